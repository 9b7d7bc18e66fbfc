"""Files of any content: what reads them gives a value or its own error, and writes nothing (rows 9 and 10)."""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.corpora.librispeech.disk import read_speakers
from data.corpora.rttm import read_meetings, read_rttm, read_uem
from data.corpora.rttm import read_speakers as read_turners
from data.errors import DataError
from data.labels import LabelMap
from data.preparation.manifest import Manifest
from data.preparation.prepare import prepare
from data.preparation.prepared import Prepared, load_prepared
from data.store.content_store import MARKER
from harness.config.files.sweep_loader import load_sweep, sweep_from
from harness.config.files.yaml_file import SweepError, YamlFile
from harness.config.parameters import parameter_locations
from harness.config.sweep import Sweep
from harness.study.storage.trial_spool import CHECKPOINT
from harness.training.checkpoint import CheckpointError, Checkpoints, DamagedCheckpointError
from tests.data.conftest import MakeCorpus
from tests.faults.bad_sweeps import MALFORMED
from tests.faults.mutation import bent, mutated
from tests.faults.test_bad_audio import config

CASES = {True: 2_000, False: 80}  # of each kind of file; five kinds


class Fuzz:
    """`fuzz(strategy, check, share)` checks that share of a kind's cases, and says how many it really were.

    wanted : how many were asked for
    findings : the tracebacks, of each strategy the smallest
    """

    def __init__(self, seed: int, full: bool) -> None:
        self._seed, self._full = seed, full
        self.wanted, self.findings = 0, list[str]()

    def __call__(
        self, strategy: st.SearchStrategy[Any], check: Callable[[Any], None], share: float = 1.0
    ) -> int:
        cases, count = round(share * CASES[self._full]), 0

        @settings(
            max_examples=cases, derandomize=not self._full, database=None, deadline=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(strategy)
        def one(case: Any) -> None:
            nonlocal count
            count += 1
            check(case)

        self.wanted += cases
        try:
            (hypothesis.seed(self._seed)(one) if self._full else one)()
        except Exception as error:
            self.findings.append("".join(traceback.format_exception(error)))
        return count

    def holds(self, count: int) -> bool:
        """Whether so many cases are all that were asked for, and nothing was found."""
        return count >= self.wanted and not self.findings

    @property
    def found(self) -> str:
        """The findings as a figure says them."""
        return f"{len(self.findings)} tracebacks{''.join(self.findings)} (seed {self._seed})"


@pytest.fixture
def fuzz(seed: int, full: bool) -> Fuzz:
    return Fuzz(seed, full)


def outcome(
    read: Callable[..., Any], refusal: type[Exception] | tuple[type[Exception], ...], *given: Any
) -> Any:
    """Return what is read, or the refusal; any other exception is a finding."""
    try:
        return read(*given)
    except refusal as error:
        return error


# Sweep files


KEYS = st.sampled_from([
    "name", "data", "parameters", "sampler", "pruner", "budget", "seed", "type", "tpe", "grid", "none", "feature", "mfcc", "controls",
    "log_mel", "mfcc.n_mfcc", "mfcc.n_mels", "log_mel.n_fft", "width", "kernel_size", "epochs", "learning_rate", "subset", "baseline",
    "train_windows", "corpus", "demo", "clean", "other", "parts", "evaluate_on", "value", "choice", "int", "float", "step", "unseen",
    "log", "when", "trials", "hours", "workers", "speakers", "warmup_epochs", "startup_trials", "reduction_factor", "median",
])  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 300)
    | st.integers()
    | st.floats()
    | KEYS
    | st.text(max_size=4)
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
FORMS = ANYTHING | st.fixed_dictionaries(
    {},
    optional={
        "int": st.lists(st.integers(-2, 100), min_size=2, max_size=2),
        "float": st.lists(st.floats(0, 1), min_size=2, max_size=2),
        "choice": st.lists(SCALARS, max_size=3),
        "step": SCALARS,
        "log": st.booleans(),
        "when": st.dictionaries(st.sampled_from(["feature", "width", "subset"]), SCALARS, max_size=2),
    },
)
NEARLY = st.fixed_dictionaries(
    {"name": st.just("x")},
    optional={
        "parameters": st.dictionaries(st.sampled_from(sorted(parameter_locations())), FORMS, max_size=4),
        "data": st.dictionaries(KEYS, ANYTHING, max_size=3),
        **dict.fromkeys(("sampler", "pruner", "budget", "controls", "baseline"), ANYTHING),
    },
)
VALUES = st.dictionaries(KEYS | st.text(max_size=4), ANYTHING, max_size=5) | NEARLY
LINE = st.tuples(
    st.integers(0, 3), KEYS, st.sampled_from(["", " 1", " 1e-3", " [mfcc, 2]", " {int: [1, 4]}", " *a", " x"])
)
LINES = st.lists(LINE, max_size=8).map(
    lambda rows: "".join(f"{d * '  '}{key}:{rest}\n" for d, key, rest in rows)
)


def is_sweep_or_refusal(found: Sweep | SweepError) -> None:
    if isinstance(found, SweepError):
        assert found.problems
        assert all(line.isprintable() for line in str(found).splitlines()[1:])
        assert len(str(found)) < 20_000


@pytest.mark.row(9)
@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_any_sweep_file_is_a_sweep_or_refused(
    tmp_path: Path, root: Path, fuzz: Fuzz, measured: Callable[..., None]
) -> None:
    path = tmp_path / "s.yaml"
    valid = [file.read_bytes() for file in sorted((root / "sweeps").glob("*.yaml"))]
    nearly_valid = [text.encode() for text, *_ in MALFORMED.values()]

    def read(content: bytes) -> None:
        path.write_bytes(content)
        is_sweep_or_refusal(outcome(load_sweep, SweepError, path))
        assert [entry.name for entry in tmp_path.iterdir()] == ["s.yaml"]

    def read_values(values: dict[str, Any]) -> None:
        is_sweep_or_refusal(outcome(lambda: sweep_from(YamlFile("s.yaml", values)), SweepError))

    texts = (LINES | st.text(max_size=50)).map(lambda text: text.encode(errors="replace"))
    count = fuzz(mutated(*valid), read, 0.4) + fuzz(mutated(*nearly_valid), read, 0.2)
    count += fuzz(VALUES, read_values, 0.3) + fuzz(texts, read, 0.1)
    measured(f"{count} sweep files of any content: {fuzz.found}", holds=fuzz.holds(count))


# References and tables


RTTM = "".join(
    f"SPEAKER m 1 {start:.2f} 2.00 <NA> <NA> MEE{start:03d} <NA> <NA>\n" for start in range(3)
).encode() + b";; a comment\nSPKR-INFO m 1 <NA>\n"  # fmt: skip
UEM = b"m 1 0.00 10.00\nm 1 12.5 60.000\n"
LISTS = b"EN2001a\nES2002a\n\nIS1000b\n"
TABLE = (
    b"\xef\xbb\xbf;ID  |SEX| SUBSET           |MINUTES| NAME\n; a remark | F |\n"
    b"14   | F | train-clean-360  | 25.03 | Kristin | of | Bars\n16   | m | x | 1 | Lower\n"
)


@pytest.mark.row(10)
@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_any_reference_is_read_or_refused(tmp_path: Path, fuzz: Fuzz, measured: Callable[..., None]) -> None:
    path = tmp_path / "m.txt"

    def check(content: bytes, *readers: Callable[..., Any]) -> None:
        path.write_bytes(content)
        for reader in readers:
            given = (path,) if reader is read_meetings else (path, "m")
            found = outcome(reader, DataError, *given)
            if isinstance(found, DataError):
                assert str(found).startswith(str(path))
                assert str(found).isprintable()
        assert [entry.name for entry in tmp_path.iterdir()] == ["m.txt"]

    def check_table(content: bytes) -> None:
        path.write_bytes(content)
        found = outcome(read_speakers, DataError, path)
        assert isinstance(found, DataError) or set(found.values()) <= {"F", "M"}

    count = fuzz(mutated(RTTM), lambda content: check(content, read_rttm, read_turners), 0.7)
    count += fuzz(mutated(UEM), lambda content: check(content, read_uem), 0.2)
    count += fuzz(mutated(LISTS), lambda content: check(content, read_meetings), 0.1)
    tables = fuzz(mutated(TABLE), check_table)
    measured(
        f"{count} references and {tables} tables of speakers of any content: {fuzz.found}",
        holds=fuzz.holds(count + tables),
    )


# Prepared data


@pytest.fixture
def prepared(make_corpus: MakeCorpus, tmp_path: Path) -> Prepared:
    root = make_corpus(speakers=4, seconds=4.0)
    return prepare(config(max_lost_share=0.5), data_root=root, cache=tmp_path / "cache")


def seal(folder: Path) -> None:
    """Write the marker anew, so that what was altered is read at all."""
    files = [path for path in folder.iterdir() if path.name != MARKER]
    stored = {p.name: (p.stat().st_size, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files}
    (folder / MARKER).write_text(json.dumps(stored))


@pytest.mark.row(10)
@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_any_prepared_folder_is_opened_or_refused(
    prepared: Prepared, fuzz: Fuzz, measured: Callable[..., None]
) -> None:
    folder, counts = prepared.folder, {}
    readers = {"manifest_val.json": Manifest.load, "label_map.json": LabelMap.load}
    for name in (*readers, "prepared.json", MARKER):
        path = folder / name
        intact = path.read_bytes()

        def check(content: bytes, path: Path = path, name: str = name) -> None:
            path.write_bytes(content)
            if name != MARKER:
                seal(folder)
            before = sorted(entry.name for entry in folder.iterdir())
            found = outcome(load_prepared, DataError, folder)
            if isinstance(found, Prepared):
                assert found.digests == prepared.digests  # what decides the windows did not change
            if name in readers:
                outcome(readers[name], DataError, path)
            assert sorted(entry.name for entry in folder.iterdir()) == before

        counts[name] = fuzz(mutated(intact), check, 0.15) + fuzz(bent(intact), check, 0.1)
        path.write_bytes(intact)
        seal(folder)
    assert load_prepared(folder).digests == prepared.digests
    total = sum(counts.values())
    measured(f"{total} manifests and records of any content: {fuzz.found}", holds=fuzz.holds(total))


# Checkpoints


IDENTITY = {"seed": 7, "fingerprint": "ab"}


@pytest.mark.row(10)
@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_any_checkpoint_is_read_or_refused(tmp_path: Path, fuzz: Fuzz, measured: Callable[..., None]) -> None:
    """What the disk did to it, and what was made up under a digest that fits."""
    checkpoints = Checkpoints(tmp_path, 300.0)
    weights = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(2)}
    checkpoints.write({"identity": IDENTITY, "progress": {"reports": [], "model": weights}, "step": 3})
    path = tmp_path / CHECKPOINT
    intact = path.read_bytes()
    head = intact[: intact.index(b"\n") + 1]
    body = intact[len(head) + 65 :]

    def check(content: bytes) -> None:
        path.write_bytes(content)
        found = outcome(checkpoints.read, (CheckpointError, DamagedCheckpointError), IDENTITY)
        if not isinstance(found, ValueError):
            assert found["identity"] == IDENTITY
        assert [entry.name for entry in tmp_path.iterdir()] == [CHECKPOINT]

    def check_made_up(content: bytes) -> None:
        check(head + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)

    count = fuzz(mutated(intact), check, 0.4) + fuzz(mutated(body), check_made_up, 0.6)
    measured(f"{count} checkpoints of any content: {fuzz.found}", holds=fuzz.holds(count))
