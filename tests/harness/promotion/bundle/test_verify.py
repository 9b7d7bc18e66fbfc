"""Whatever is altered in a bundle is found and named; latency binds where the policy says so."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.cli.main import cli
from harness.promotion.bundle.files import SUMS, NoBundleError, bundle_digest, names_in
from harness.promotion.bundle.verify import verify
from tests.harness.places.sealed_bundle import edit, refused, seal

HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers() and Path("/dev/nvidia0").exists()


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.promotion.bundle.latency.MAX_SECONDS", 0.1)


def test_a_sound_bundle_is_verified(sealed: Path) -> None:
    result = verify(sealed)
    assert result.ok, result.lines()
    assert [check.name for check in result.checks][:4] == ["files", "digests", "documents", "fp32"]
    assert result.digest == bundle_digest(sealed)
    assert result.latency["fp32"]["provider"] == "CPUExecutionProvider"
    if not HAS_CUDA:
        assert any(note.startswith("fp16 was not run: ") for note in result.notes)
        assert "use device" not in "".join(result.notes)
    assert json.loads(json.dumps(result.as_json()))["ok"]


def test_the_command_ends_as_its_verdict(sealed: Path, bundle: Path) -> None:
    shown = CliRunner().invoke(cli, ["verify", str(sealed), "--digest", bundle_digest(sealed), "-q"])
    assert (shown.exit_code, shown.output) == (0, "")
    (bundle / "card.md").unlink()
    shown = CliRunner().invoke(cli, ["verify", str(bundle), "--json"])
    document = json.loads(shown.output)
    assert shown.exit_code == 3
    assert not document["ok"]
    assert set(document) == {"bundle", "ok", "digest", "checks", "notes", "latency"}
    shown = CliRunner().invoke(cli, ["verify", str(sealed.with_name("smal"))])
    assert shown.exit_code == 2
    assert f"did you mean {sealed}?" in shown.output


def test_no_bundle_is_said_with_the_nearest_one(sealed: Path) -> None:
    with pytest.raises(NoBundleError, match=r"no bundle in it; did you mean .*small"):
        verify(sealed.parent)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_one_flipped_bit_anywhere_is_found_and_its_file_named(sealed: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(names_in(sealed))))
    path = sealed / name
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.integers(0, 7))
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
    try:
        told = refused(sealed)
    finally:
        path.write_bytes(whole)
    assert name == SUMS or f"{name} was altered" in told


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_a_file_that_is_cut_short_is_found_and_named(sealed: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(names_in(sealed))))
    path = sealed / name
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 2))])
    try:
        told = refused(sealed)
    finally:
        path.write_bytes(whole)
    assert name in told


def swap(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def replace_in_sums(folder: Path, old: str, new: str) -> None:
    text = (folder / SUMS).read_text("utf-8")
    assert old in text
    (folder / SUMS).write_text(text.replace(old, new), "utf-8")


TAMPERING: dict[str, tuple[Callable[[Path], Any], str]] = {
    "models swapped": (lambda b: swap(b / "model.onnx", b / "model.int8.onnx"), "model.int8.onnx was altered"),
    "golden swapped": (lambda b: swap(b / "golden/logits.npy", b / "golden/logits.int8.npy"), "golden/logits.npy was altered"),
    "added": (lambda b: (b / "golden/more.npy").write_bytes(b"x"), "golden/more.npy is not in SHA256SUMS"),
    "hidden": (lambda b: (b / ".more").touch(), ".more is not in SHA256SUMS"),
    "removed": (lambda b: (b / "card.md").unlink(), "card.md is missing"),
    "no sums": (lambda b: (b / SUMS).unlink(), "SHA256SUMS is missing"),
    "line removed": (lambda b: replace_in_sums(b, "  card.md\n", "  card.mdx\n"), "card.md is not in SHA256SUMS"),
    "absolute": (lambda b: replace_in_sums(b, "  card.md", "  /etc/passwd"), "'/etc/passwd' is not a plain path"),
    "parent": (lambda b: replace_in_sums(b, "  card.md", "  golden/../card.md"), "'golden/../card.md' is not a plain path"),
    "outside": (lambda b: replace_in_sums(b, "  card.md", "  ../card.md"), "'../card.md' is not a plain path"),
    "twice": (lambda b: (b / SUMS).write_text((b / SUMS).read_text() * 2), "card.md for the second time"),
    "no digest": (lambda b: (b / SUMS).write_text("card.md\n"), "SHA256SUMS, line 1: not a sha256"),
    "empty": (lambda b: (b / SUMS).write_text(""), "SHA256SUMS, line 1: not a sha256"),
    "symbolic link": (lambda b: ((b / "card.md").rename(b.parent / "card.md"), (b / "card.md").symlink_to("../card.md")), "card.md is a symbolic link"),
    "linked folder": (lambda b: ((b / "golden").rename(b.parent / "g"), (b / "golden").symlink_to("../g")), "golden is not in SHA256SUMS"),
    "hard link": (lambda b: (b.parent / "other name").hardlink_to(b / "model.onnx"), "model.onnx has a second name (hard link)"),
    "pipe": (lambda b: ((b / "card.md").unlink(), os.mkfifo(b / "card.md")), "card.md is not a plain file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TAMPERING)
def test_tampering_is_found_and_the_file_named(bundle: Path, kind: str) -> None:
    tamper, told = TAMPERING[kind]
    tamper(bundle)
    assert told in refused(bundle)


def test_who_seals_an_altered_bundle_again_is_found_by_the_digest_alone(bundle: Path) -> None:
    true = bundle_digest(bundle)
    assert verify(bundle, true.upper(), latency=False).ok
    with (bundle / "card.md").open("a") as card:
        card.write("The best model there is.\n")
    seal(bundle)
    assert verify(bundle, latency=False).ok
    assert f"given was {true}" in refused(bundle, true)


@pytest.mark.parametrize(
    ("policy", "ok", "told"),
    [
        ({"quality": {"on_failure": "refuse"}, "latency": {"device": "cpu", "max_p99_ms": 1e-6}}, False, "wanted P99 < 1e-06 ms on cpu"),
        ({"quality": {"on_failure": "warn"}, "latency": {"device": "cpu", "max_p99_ms": 1e-6}}, True, "too slow here, which the policy only warns of"),
        ({"quality": {"on_failure": "refuse"}, "latency": {"device": "cpu", "max_p99_ms": 1e6}}, True, "wanted P99 < 1e+06 ms on cpu"),
        pytest.param(
            {"quality": {"on_failure": "refuse"}, "latency": {"device": "cuda", "max_p99_ms": 1e-6}}, True, "was not measured on cuda",
            marks=pytest.mark.skipif(HAS_CUDA, reason="there is a GPU"),
        ),
    ],
)  # fmt: skip
def test_latency_binds_where_the_policy_refuses_and_on_its_device(
    bundle: Path, policy: dict[str, Any], ok: bool, told: str
) -> None:
    def only_canonical(evidence: dict[str, Any]) -> None:
        evidence.update(policy=policy, variants=evidence["variants"][:1])

    for name in ("model.fp16.onnx", "model.int8.onnx"):
        (bundle / name).unlink()
    edit(bundle / "evidence.json", only_canonical)
    result = verify(bundle)
    assert result.ok is ok
    assert told in "\n".join(result.lines())
