"""Row 10: a bad audio file is a named error or a counted quarantine; no NaN in a batch, no hang, bounded memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from data.audio.decode import load_audio
from data.config import DataConfig
from data.corpora.ami.disk import AmiReader
from data.corpora.base import Request
from data.errors import DataError
from data.preparation.prepare import Prepared, prepare
from data.preparation.windows import RecordingExaminer
from models.front_ends.config import LogMel, Mfcc, MfccDelta
from models.front_ends.features import LogMelFeatures, MfccDeltaFeatures, MfccFeatures
from tests.data.conftest import MakeCorpus
from tests.data.meetings import Files, write_ami
from tests.faults.bad_audio import CASES, NOISE, RATE, Case, cut, written
from tests.faults.rights import without_rights

SECONDS, MEGABYTES, SPEAKERS = 60, 400, 6
# Reads every file named on its standard input, in a process whose memory is counted.
READING = """
import json, sys
from pathlib import Path
import numpy as np
from data.audio.decode import load_audio
from data.errors import AudioError
outcomes = []
for name in json.load(sys.stdin):
    try:
        samples = load_audio(Path(name)).samples
        sound = samples.ndim == 1 and samples.dtype == np.float32 and bool(np.isfinite(samples).all())
        outcomes.append("" if sound else "unsound")
    except AudioError as error:
        outcomes.append(str(error))
peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]  # ru_maxrss knows the parent's too
print(json.dumps([outcomes, int(peak) / 1024]))
"""


def config(**fields: object) -> DataConfig:
    given = {"corpus": "librispeech", "subset": "small", "parts": {"small": ["part-a"]}, **fields}
    return DataConfig.model_validate(given)


def put(case: Case, number: int, root: Path) -> Path:
    """Make a bad file among the good ones of a speaker."""
    speaker = 100 + number % SPEAKERS
    path = root / "part-a" / f"{speaker}" / f"{speaker}0" / f"{speaker}-{speaker}0-9{number:03d}.{case.file}"
    case.make(path)
    return path


def features_are_finite(prepared: Prepared) -> bool:
    """Whether every number that a network would see is finite."""
    front_ends = (LogMelFeatures(LogMel()), MfccFeatures(Mfcc()), MfccDeltaFeatures(MfccDelta()))
    for split in prepared.splits.values():
        waveforms = torch.from_numpy(np.array(split.windows())).float() / 32_768
        batches = (front_end(batch) for batch in waveforms.split(64) for front_end in front_ends)
        if not all(bool(torch.isfinite(batch).all()) for batch in batches):
            return False
    return True


@pytest.mark.row(10)
@pytest.mark.timeout(300)
def test_every_bad_file_has_its_reason(tmp_path: Path, root: Path, measured: Callable[..., None]) -> None:
    """Read one by one, in a process that may neither hang nor grow."""
    paths = []
    for number, case in enumerate(CASES):
        paths.append(tmp_path / f"{number}.{case.file}")
        case.make(paths[-1])
    done = subprocess.run(
        [sys.executable, "-P", "-c", READING], cwd=tmp_path, text=True, check=False,
        input=json.dumps([str(path) for path in paths]), capture_output=True, timeout=SECONDS,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outcomes, megabytes = json.loads(done.stdout)
    wrong = [
        f"{case.name}: {outcome!r}"
        for case, outcome in zip(CASES, outcomes, strict=True)
        if (outcome != "" if case.used else case.reason not in outcome)
    ]
    assert not wrong, "\n".join(wrong)
    refused = sum(outcome != "" for outcome in outcomes)
    figure = (
        f"{len(outcomes)} files: {refused} refused with their reason, {len(outcomes) - refused} read and finite, "
        f"{megabytes:.0f} MB"
    )
    measured(figure, holds=not wrong and len(outcomes) >= 25 and megabytes < MEGABYTES)


@pytest.mark.row(10)
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_bad_files_in_a_corpus_are_set_aside_and_counted(
    tmp_path: Path,
    make_corpus: MakeCorpus,
    measured: Callable[..., None],
) -> None:
    root = make_corpus(speakers=SPEAKERS, seconds=4.0)
    expected = {}
    for number, case in enumerate(CASES):
        path = put(case, number, root)
        if case.reason:
            expected[path.relative_to(root).as_posix()] = case.reason
    good = next((root / "part-a" / "101").rglob("*.wav"))
    twin = good.with_suffix(".FLAC")
    shutil.copyfile(good, twin)  # `.FLAC` sorts first: the WAV is the second of this id
    expected[good.relative_to(root).as_posix()] = "has the same id"
    loose = root / "part-a" / "101" / "loose.wav"
    shutil.copyfile(good, loose)
    expected[loose.relative_to(root).as_posix()] = "misplaced"
    strange = good.with_name("101-1010-\udcff.wav")
    shutil.copyfile(good, strange)
    expected[strange.relative_to(root).as_posix().encode(errors="backslashreplace").decode()] = "not UTF-8"
    with pytest.raises(DataError, match=r"cannot be used \(\d+\.\d%, max_lost_share is 5\.0%\)"):
        prepare(config(), data_root=root, cache=tmp_path / "cache")
    assert not any((tmp_path / "cache" / "prepared").glob("[0-9a-f]*"))
    prepared = prepare(config(max_lost_share=1.0), data_root=root, cache=tmp_path / "cache")
    lost = {one.path: one.reason for one in prepared.lost}
    wrong = [f"{path}: {reason}" for path, reason in lost.items() if expected.get(path, "used") not in reason]
    assert not wrong, "\n".join(wrong)
    heard = [w.sources[0] for split in prepared.splits.values() for w in split.manifest.windows]
    bad = {Path(path).stem for path in expected} - {good.stem}
    assert not bad & {source.recording_id for source in heard}
    windows, unheard = len(heard), len(expected) - len(lost)  # no window was planned of the others
    figure = (
        f"in a corpus of {prepared.examined} recordings: {len(lost)} set aside with their reason, {unheard} bad ones "
        f"never asked for; every feature of {windows} windows finite"
    )
    measured(figure, holds=features_are_finite(prepared) and windows > 0 and len(lost) >= 25)


def _rttm(text: str) -> Callable[[Files], object]:
    return lambda files: files.rttm.write_text(text.replace("{m}", files.meeting))


def _instead(which: str, make: Callable[[Path], object]) -> Callable[[Files], object]:
    def change(files: Files) -> None:
        path = getattr(files, which)
        path.unlink()
        make(path)

    return change


TURN = "SPEAKER {m} 1 1.00 2.00 <NA> <NA> MEE001 <NA> <NA>\n"
# What is done to a meeting -> ("set aside" or "refused", words). References are written by hand: a bad one is refused.
MEETING: dict[str, tuple[Callable[[Files], object], str, str]] = {
    "audio cut off": (_instead("audio", cut(0.5)), "set aside", "truncated: 64022 bytes"),
    "audio of NaN": (_instead("audio", written(NOISE / np.nan, subtype="FLOAT")), "set aside", "not finite"),
    "audio silent": (_instead("audio", written(0 * NOISE)), "set aside", "silent"),
    "audio a pipe": (_instead("audio", os.mkfifo), "set aside", "it is a pipe"),
    "audio a folder": (_instead("audio", Path.mkdir), "set aside", "it is a folder"),
    "audio a dead link": (_instead("audio", lambda path: path.symlink_to("gone.wav")), "set aside", "No such file"),
    "audio gone": (lambda files: files.audio.unlink(), "set aside", "has no audio"),
    "audio shorter than its turns": (
        _instead("audio", written(NOISE[:160])), "set aside", "nobody speaks in the scored part"),
    "reference gone": (lambda files: files.rttm.unlink(), "set aside", "has no reference"),
    "reference empty": (_rttm(""), "set aside", "nobody speaks"),
    "reference long after the audio": (_rttm(TURN.replace("1.00", "5000")), "set aside", "nobody speaks"),
    "reference a pipe": (_instead("rttm", os.mkfifo), "refused", "it is a pipe, not a file"),
    "reference a folder": (_instead("rttm", Path.mkdir), "refused", "it is a folder, not a file"),
    "reference a dead link": (_instead("rttm", lambda path: path.symlink_to("gone")), "refused", "No such file"),
    "reference binary": (lambda files: files.rttm.write_bytes(b"\xff\xfe\0"), "refused", "is not text in UTF-8 (byte 0)"),
    "reference of 17 MB": (lambda files: os.truncate(files.rttm, 17 * 2**20), "refused", "no such file has more than"),
    "reference of another meeting": (_rttm(TURN.replace("{m}", "EN2001a")), "refused", "is of 'EN2001a'"),
    "reference of NaN": (_rttm(TURN.replace("1.00", "nan")), "refused", "has start 'nan'"),
    "regions a pipe": (_instead("uem", os.mkfifo), "refused", "it is a pipe, not a file"),
    "regions empty": (lambda files: files.uem.write_text(""), "refused", "is empty; a UEM names the regions"),
    "regions turned round": (lambda files: files.uem.write_text("EN2002a 1 9 3\n"), "refused", "ends at 3 s, not after"),
}  # fmt: skip


@pytest.fixture(scope="module")
def written_ami(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ami(tmp_path_factory.mktemp("ami") / "AMI", seconds=8.0, voices=False)


@pytest.mark.row(10)
@pytest.mark.timeout(300)
def test_bad_meetings_are_set_aside_or_refused(
    written_ami: Path, tmp_path: Path, measured: Callable[..., None]
) -> None:
    counts, wrong = {"set aside": 0, "refused": 0}, []
    for name, (change, outcome, words) in MEETING.items():
        root = tmp_path / name / "AMI"
        shutil.copytree(written_ami, root)
        change(Files(root, "EN2002a", "test"))
        found, reason = examined(root)
        counts[outcome] += 1
        if found != outcome or words not in reason:
            wrong.append(f"{name}: {found}: {reason}")
    assert not wrong, "\n".join(wrong)
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    measured(f"{sum(counts.values())} bad meetings: {told}", holds=not wrong)


def examined(root: Path) -> tuple[str, str]:
    """Read all of a folder of AMI as preparation does; what became of it, and the words."""
    reader = AmiReader()
    parts = ("test",)
    try:
        place = reader.locate(Request(parts, root, root, print))
        scan = reader.scan(place, reader.listing(place, parts))
        examiner = RecordingExaminer(root, print)
        examiner.examine([r for rs in scan.recordings.values() for r in rs], speech=False)
    except DataError as error:
        return "refused", str(error)
    reasons = [*(lost.reason for lost in scan.lost), *examiner.failures.values()]
    return ("set aside" if reasons else "used"), "; ".join(reasons)


# What changes while it is prepared


def rewrite(path: Path) -> None:
    soundfile.write(path, np.roll(NOISE, 1), RATE)


@pytest.mark.parametrize(
    ("when", "change", "words"),
    [
        ("making windows", rewrite, "changed while they were being prepared"),
        ("storing", rewrite, "changed while it was being prepared"),
        ("storing", lambda path: path.write_bytes(path.read_bytes()[:1_000]), "truncated: "),
        ("storing", Path.unlink, "unreadable: No such file"),
    ],
    ids=["after it was cut", "other samples", "cut off", "removed"],
)
def test_a_file_that_changes_meanwhile_is_refused(
    make_corpus: MakeCorpus,
    tmp_path: Path,
    when: str,
    change: Callable[[Path], object],
    words: str,
) -> None:
    root = make_corpus(speakers=4, seconds=4.0)
    victim = sorted(root.rglob("*.wav"))[0]
    done = []

    def meddle(message: str) -> None:
        if message.startswith(when) and not done:
            done.append(change(victim))

    with pytest.raises(DataError) as caught:
        prepare(config(), data_root=root, cache=tmp_path / "cache", progress=meddle)
    assert words in str(caught.value)
    assert victim.name in str(caught.value)
    assert not any((tmp_path / "cache" / "prepared").glob("[0-9a-f]*"))


# Folders


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that anybody may enter, as pytest's own may not be."""
    with tempfile.TemporaryDirectory(prefix="audio-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize(
    "locked", ["part-a", "part-a/100", "part-a/100/1000/100-1000-0000.wav", "SPEAKERS.TXT"]
)
def test_what_may_not_be_read_is_named(open_place: Path, make_corpus: MakeCorpus, locked: str) -> None:
    root = make_corpus(root=open_place / "LibriSpeech", speakers=4, chapters=1, seconds=4.0)
    load_audio(next(root.rglob("*.wav")))  # what is imported at the first use, nobody might not read
    (open_place / "cache").mkdir(mode=0o777)
    (open_place / "cache").chmod(0o777)
    path = root / locked
    path.chmod(0)
    with without_rights(), pytest.raises(DataError) as caught:
        prepare(config(max_lost_share=0), data_root=root, cache=open_place / "cache")
    path.chmod(0o755)
    assert locked in str(caught.value)
    assert "ermission denied" in str(caught.value) or "System error" in str(caught.value)


def test_a_cache_that_may_not_be_written_is_named(open_place: Path, make_corpus: MakeCorpus) -> None:
    root = make_corpus(root=open_place / "LibriSpeech", speakers=2, chapters=1, seconds=4.0)
    (open_place / "cache").mkdir(mode=0o555)
    with without_rights(), pytest.raises(DataError, match=r"cache .* cannot be used: Permission denied"):
        prepare(config(), data_root=root, cache=open_place / "cache")


def test_a_data_root_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"data root .*file is not a folder; pass --data-root DIR"):
        prepare(config(), data_root=tmp_path / "file", cache=tmp_path / "cache")


def test_links_that_go_in_a_circle_are_named_at_once(tmp_path: Path, make_corpus: MakeCorpus) -> None:
    root = make_corpus(speakers=2, chapters=1, seconds=4.0)
    for name in ("a", "b"):  # every turn doubles the ways there are
        (root / "part-a" / "100" / name).symlink_to("../..", target_is_directory=True)
    began = time.process_time()
    with pytest.raises(DataError, match="is a link to a folder that holds it; remove it"):
        prepare(config(), data_root=root, cache=tmp_path / "cache")
    assert time.process_time() - began < 5
