"""Row 7: a promoted bundle altered in every way there is. It is refused before anything of it is loaded.

Who receives a bundle has the digest of its SHA256SUMS from elsewhere, the registry: without it, whoever alters a file
and seals the bundle again is not found by digests. `test_promotion_killed` asks the same of what the registry holds.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto

from harness.promotion.bundle import verify as verification
from harness.promotion.bundle.files import SUMS, bundle_digest, names_in
from harness.promotion.bundle.verify import verify
from tests.harness.places.sealed_bundle import edit, edit_model, seal

FLIPS, CUTS = {True: 185, False: 12}, {True: 60, False: 8}  # full or not
LOADED = "something of it was opened"


@dataclass(frozen=True)
class Case:
    """One way to alter a bundle in its folder; the name that the refusal must say."""

    kind: str
    name: str
    alter: Callable[[Path], Any]


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def flipped(name: str, at: float, bit: int) -> Case:
    def alter(bundle: Path) -> None:
        content = bytearray((bundle / name).read_bytes())
        content[int(at * len(content))] ^= 1 << bit
        (bundle / name).write_bytes(content)

    return Case("flipped", name, alter)


def truncated(name: str, share: float) -> Case:
    def alter(bundle: Path) -> None:
        content = (bundle / name).read_bytes()
        (bundle / name).write_bytes(content[: int(share * len(content))])

    return Case("truncated", name, alter)


def swapped(one: str, other: str) -> Case:
    """Two files of a bundle under each other's name."""

    def alter(bundle: Path) -> None:
        first, second = (bundle / one).read_bytes(), (bundle / other).read_bytes()
        (bundle / one).write_bytes(second)
        (bundle / other).write_bytes(first)

    return Case("swapped", one, alter)


def from_another(name: str, another: Path) -> Case:
    """A file of another bundle; SHA256SUMS is that of another which is whole."""

    def alter(bundle: Path) -> None:
        shutil.copy(another / name, bundle / name)

    return Case("from another bundle", name, alter)


def whole_of_another(another: Path) -> Case:
    def alter(bundle: Path) -> None:
        shutil.rmtree(bundle)
        shutil.copytree(another, bundle)

    return Case("another bundle", SUMS, alter)


def hard_linked(name: str) -> Case:
    return Case(
        "hard-linked", name, lambda bundle: (bundle.parent / "second name").hardlink_to(bundle / name)
    )


def symlinked(name: str) -> Case:
    def alter(bundle: Path) -> None:
        (bundle / name).rename(bundle.parent / "elsewhere")
        (bundle / name).symlink_to(bundle.parent / "elsewhere")

    return Case("symlinked", name, alter)


def removed(name: str) -> Case:
    return Case("removed", name, lambda bundle: (bundle / name).unlink())


def added(name: str) -> Case:
    def alter(bundle: Path) -> None:
        (bundle / name).parent.mkdir(exist_ok=True)
        (bundle / name).write_bytes(b"more")

    return Case("added", name, alter)


def external_data(model: str, location: str) -> Case:
    """Weights moved into another file, inside or outside of the bundle, and all of it sealed again."""

    def move_out(graph: onnx.ModelProto, bundle: Path) -> None:
        tensor = next(one for one in graph.graph.initializer if len(one.raw_data) > 100)
        (bundle / location).write_bytes(tensor.raw_data)
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", location
        tensor.ClearField("raw_data")

    return Case(
        "external data",
        SUMS,
        lambda bundle: edit_model(bundle, lambda graph: move_out(graph, bundle), model),
    )


def sealed_again(name: str) -> Case:
    """Somebody alters a file and makes a new SHA256SUMS: the digest that came another way finds it."""

    def alter(bundle: Path) -> None:
        with (bundle / name).open("ab") as file:
            file.write(b" ")
        seal(bundle)

    return Case("sealed again", SUMS, alter)


def cases(bundle: Path, another: Path, rng: random.Random, *, full: bool) -> Iterator[Case]:
    """Full: 305. Every file meets every kind that is drawn, in turn."""
    names = sorted(names_in(bundle))
    models = [name for name in names if name.endswith(".onnx")]
    plain = [name for name in names if name != SUMS]
    for number in range(FLIPS[full]):
        yield flipped(names[number % len(names)], rng.random(), rng.randrange(8))
    for number in range(CUTS[full]):
        yield truncated(names[number % len(names)], rng.random())
    few = slice(None) if full else slice(2)
    rest = [
        *(swapped(*pair) for pair in [*itertools.pairwise(models), ("card.md", "evidence.json"),
                                      ("golden/logits.npy", "golden/logits.int8.npy")]),
        *(from_another(name, another) for name in ("model.onnx", "evidence.json", "golden/logits.npy", SUMS)),
        whole_of_another(another),
    ]  # fmt: skip
    yield from rest
    for make in (hard_linked, symlinked, removed, sealed_again):
        yield from (make(name) for name in plain[few])
    yield from (
        added(name) for name in ("more.bin", ".hidden", "golden/more.npy", "model.extra.onnx", "a/b")[few]
    )
    locations = ("weights.bin", "../weights.bin")
    yield from [external_data(model, location) for model in models for location in locations][few]


@pytest.fixture(scope="module")
def another(sealed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that is whole, and is another."""
    folder = Path(shutil.copytree(sealed, tmp_path_factory.mktemp("another") / "small"))

    def rename(model: onnx.ModelProto) -> None:
        model.producer_name = "another"

    edit_model(folder, rename)
    edit(folder / "evidence.json", lambda evidence: evidence.update(subject="trial 4"))
    golden = folder / "golden/logits.npy"
    golden.write_bytes(golden.read_bytes()[:-4] + b"\0\0\0\0")
    seal(folder)
    return folder


@contextmanager
def nothing_is_opened() -> Iterator[None]:
    """Whoever goes on after the digests fails here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification, "_run", lambda *_: pytest.fail(LOADED))
        yield


def problem(case: Case, bundle: Path, true: dict[str, str], digest: str) -> str:
    """What is wrong with the refusal of an altered bundle; empty where it is right."""
    with nothing_is_opened():
        found = verify(bundle, digest, latency=False)
    told = "\n".join(found.lines(quiet=True))
    if found.ok:
        return "not refused"
    if case.name not in told:
        return f"the file is not named: {told}"
    path = bundle / case.name
    altered = (
        path.is_file() and not path.is_symlink() and case.name in true and digest_of(path) != true[case.name]
    )
    if not altered:  # then there are no two digests to name
        return ""
    wanted = (digest, bundle_digest(bundle)) if case.name == SUMS or bundle_digest(bundle) != digest else None
    told_digests = wanted or (true[case.name][:12], digest_of(path)[:12])
    return "" if all(one in told for one in told_digests) else f"the digests are not named: {told}"


@pytest.mark.row(7)
@pytest.mark.timeout(600)
def test_an_altered_bundle_is_refused(
    sealed: Path, another: Path, tmp_path: Path, full: bool, rng: random.Random, seed: int, measured: Any
) -> None:
    assert verify(sealed, bundle_digest(sealed), latency=False).ok
    digest = bundle_digest(sealed)
    true = {name: digest_of(sealed / name) for name in names_in(sealed)}
    tried: Counter[str] = Counter()
    wrong = []
    for number, case in enumerate(cases(sealed, another, rng, full=full)):
        bundle = Path(shutil.copytree(sealed, tmp_path / str(number) / "small"))
        case.alter(bundle)
        found = problem(case, bundle, true, digest)
        wrong += [f"{case.kind} {case.name}: {found}"] if found else []
        tried[case.kind] += 1
        shutil.rmtree(bundle.parent)
    count = tried.total()
    kinds = ", ".join(f"{kind} {times}" for kind, times in sorted(tried.items()))
    figure = f"{count - len(wrong)} of {count} refused ({kinds}; seed {seed})"
    measured(f"{figure}{wrong[:3] or ''}", holds=not wrong and count >= (305 if full else 40))


@pytest.mark.row(7)
@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin"])
def test_external_data_is_refused_by_who_has_no_digest(
    sealed: Path, tmp_path: Path, location: str, measured: Any
) -> None:
    """Sealed again, its digests are right; the model is still not opened, for a session would follow the path."""
    bundle = Path(shutil.copytree(sealed, tmp_path / "small"))
    external_data("model.onnx", location).alter(bundle)
    told = "\n".join(verify(bundle, latency=False).lines(quiet=True))
    holds = "model.onnx keeps 1 tensors in other files" in told
    measured("external data refused without a digest too", holds=holds)
