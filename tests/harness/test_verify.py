"""Whatever is altered in a bundle is found and named; what is verified runs where only onnxruntime and numpy are."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from harness.bundle_files import SUMS, NoBundleError, bundle_digest, golden_of, names_in
from harness.cli import cli
from harness.verify import verify
from models import onnx_files
from models.onnx_runtime import NotOnnxError, external_tensors
from tests.harness.places.sealed_bundle import edit, edit_model, seal

ROOT = Path(__file__).parents[2]
HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers() and Path("/dev/nvidia0").exists()


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.latency.MAX_SECONDS", 0.1)


@pytest.fixture
def bundle(sealed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sealed, tmp_path / "small"))


def refused(folder: Path, digest: str | None = None) -> str:
    result = verify(folder, digest, latency=False)
    assert not result.ok
    return "\n".join(result.lines(quiet=True))


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


def set_in(name: str, key: str, value: Any) -> Callable[[Path], None]:
    return lambda bundle: edit(bundle / name, lambda content: content.update({key: value}))


def set_in_variant(key: str, value: Any) -> Callable[[Path], None]:
    return lambda bundle: edit(
        bundle / "evidence.json", lambda content: content["variants"][2].update({key: value})
    )


def change_golden(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def alter(bundle: Path) -> None:
        np.save(bundle / name, change(np.load(bundle / name)))
        seal(bundle)

    return alter


def add_model(bundle: Path) -> None:
    shutil.copy(bundle / "model.onnx", bundle / "model.extra.onnx")
    seal(bundle)


def fix_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3


def other_run(model: onnx.ModelProto) -> None:
    next(entry for entry in model.metadata_props if entry.key == "run_id").value = "f" * 32


def put_outside(model: onnx.ModelProto) -> None:
    tensor = next(one for one in model.graph.initializer if len(one.raw_data) > 100)
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    Path("weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")


SEALED_AGAIN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "other weights": (lambda b: (shutil.copy(b / "model.int8.onnx", b / "model.onnx"), seal(b)), "fp32: model.onnx differs from its golden outputs (golden/logits.npy) by"),
    "golden outputs": (change_golden(golden_of("model.int8.onnx"), lambda a: a + np.float32(0.001)), "int8: model.int8.onnx differs from its golden outputs"),
    "golden NaN": (change_golden("golden/logits.npy", lambda a: a * np.float32("nan")), "by nan"),
    "golden windows": (change_golden("golden/logits.npy", lambda a: a[:1]), "golden/logits.npy has 1 windows"),
    "golden of objects": (change_golden("golden/logits.npy", lambda a: a.astype(object)), "fp32: Object arrays cannot be loaded"),
    "canonical tolerance": (lambda b: (edit(b / "evidence.json", lambda e: e["variants"][0].update(golden_tolerance=9.0)), change_golden("golden/logits.npy", lambda a: a + np.float32(0.01))(b)), "more than 0.0001"),
    "boundless tolerance": (set_in_variant("golden_tolerance", float("inf")), "variant int8 tolerates inf"),
    "a golden elsewhere": (set_in_variant("golden", "../logits.npy"), "names '../logits.npy', which is no file of the bundle"),
    "a strange device": (set_in_variant("device", "tpu"), "'tpu', not cpu or cuda"),
    "no device": (lambda b: edit(b / "evidence.json", lambda e: e["variants"][2].pop("device")), "'device' is missing"),
    "no variants": (set_in("evidence.json", "variants", None), "variants is not a list"),
    "left out": (set_in_variant("included", False), "no variant of model.int8.onnx"),
    "one more model": (add_model, "no variant of model.extra.onnx"),
    "window": (set_in("specification.json", "window_samples", 32_000), "model.onnx has inputs and outputs"),
    "output name": (set_in("specification.json", "output_name", "scores"), "model.onnx has inputs and outputs"),
    "another run's weights": (lambda b: edit_model(b, other_run), "run_id is 'ffff"),
    "no JSON": (lambda b: ((b / "evidence.json").write_text("{"), seal(b)), "evidence.json is not JSON"),
    "fixed batch": (lambda b: edit_model(b, fix_batch), "not float32 with a free batch"),
    "no model": (lambda b: ((b / "model.onnx").write_bytes(b"ORTM" * 9), seal(b)), "fp32: not an ONNX model"),
    "external data": (lambda b: edit_model(b, put_outside), "model.onnx keeps 1 tensors in other files"),
}  # fmt: skip


def put_beside(bundle: Path) -> None:
    """External data that SHA256SUMS covers: still refused, for a session follows the path and not the digest."""
    edit_model(bundle, put_outside)
    Path("weights.bin").rename(bundle / "weights.bin")
    edit_model(bundle, lambda model: None)


SEALED_AGAIN["external data in the bundle"] = (put_beside, "fp32: model.onnx keeps 1 tensors in other files")


@pytest.mark.parametrize("kind", SEALED_AGAIN)
def test_what_was_sealed_again_still_has_to_do_what_the_bundle_says(
    bundle: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bundle.parent)
    tamper, told = SEALED_AGAIN[kind]
    tamper(bundle)
    assert told in refused(bundle)


@pytest.mark.parametrize("location", ["weights.bin", "small/weights.bin", "../weights.bin"])
def test_external_data_is_never_read(bundle: Path, monkeypatch: pytest.MonkeyPatch, location: str) -> None:
    """onnxruntime itself follows such a path from the working directory; a pipe there would never end."""
    monkeypatch.chdir(bundle.parent)

    def outside(model: onnx.ModelProto) -> None:
        put_outside(model)
        tensor = next(one for one in model.graph.initializer if one.external_data)
        tensor.external_data[0].value = location

    edit_model(bundle, outside)
    Path("weights.bin").unlink()
    for pipe in {Path("weights.bin"), Path(location)}:
        os.mkfifo(pipe)
    try:
        assert "in other files" in refused(bundle) or location.startswith("small")
        assert not verify(bundle, latency=False).ok
    finally:
        Path(location).unlink()


TENSOR_PLACES = ("initializer", "sparse", "attribute", "attributes", "subgraph", "function", "training")


@given(
    st.lists(st.tuples(st.sampled_from(TENSOR_PLACES), st.booleans()), min_size=1, max_size=6), st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_external_tensors_are_found_wherever_onnx_keeps_tensors(
    places: list[tuple[str, bool]], by_path: bool
) -> None:
    model = helper.make_model(helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [], []))
    outside = set()
    for number, (place, is_outside) in enumerate(places):
        tensor = helper.make_tensor(f"t{number}", TensorProto.FLOAT, [2], [1.0, 2.0])
        if is_outside:
            outside.add(tensor.name)
            if by_path:
                entry = tensor.external_data.add()
                entry.key, entry.value = "location", "w.bin"
            else:
                tensor.data_location = TensorProto.EXTERNAL
        inner = helper.make_graph([], "inner", [], [], [tensor])
        if place == "initializer":
            model.graph.initializer.append(tensor)
        elif place == "sparse":
            model.graph.sparse_initializer.add().values.CopyFrom(tensor)
        elif place == "attribute":
            model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
        elif place == "attributes":
            model.graph.node[0].attribute.append(helper.make_attribute("many", [tensor]))
        elif place == "subgraph":
            model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=inner))
        elif place == "function":
            model.functions.add().node.append(helper.make_node("Constant", [], ["c"], value=tensor))
        else:
            model.training_info.add().initialization.CopyFrom(inner)
    assert set(external_tensors(model.SerializeToString())) == outside
    if outside:
        with pytest.raises(onnx_files.OnnxFileError, match=f"keeps {len(outside)} tensors"):
            onnx_files.parse_onnx(model.SerializeToString(), "it")


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_bytes_that_are_no_model_are_one_error(content: bytes) -> None:
    try:
        names = external_tensors(content)
    except NotOnnxError:
        return
    assert names == [] or content


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


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has onnxruntime, numpy and this package; nothing else, not even pip."""
    place = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True, timeout=60)
    (site,) = place.glob("lib/python*/site-packages")
    for module in (np, onnxruntime):
        installed = Path(str(module.__file__)).parent
        for folder in (installed, installed.with_name(f"{installed.name}.libs")):
            if folder.is_dir():
                (site / folder.name).symlink_to(folder)
    for package in ("harness", "models"):
        (site / package).symlink_to(ROOT / package)
    script = place / "bin" / "harness"  # as pip writes it of [project.scripts]
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]["harness"]
    module, function = declared.split(":")
    script.write_text(f"#!{place}/bin/python\nfrom {module} import {function}\n{function}()\n")
    script.chmod(0o755)
    return place


def run(bare: Path, *words: str, code: int = 0) -> str:
    """Standard output and error of a command in the bare environment."""
    words = (str(bare / "bin" / words[0]), *words[1:])
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        words, cwd=bare.parent, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_bare_environment_is_bare(bare: Path) -> None:
    tried = "import importlib.util as u; print([m for m in {} if u.find_spec(m)])"
    absent = [
        "torch",
        "mlflow",
        "click",
        "onnx",
        "pydantic",
        "scipy",
        "rich",
        "optuna",
        "google",
        "data",
        "pip",
    ]
    assert run(bare, "python", "-c", tried.format(absent)) == "[]\n"


def test_onnxruntime_and_numpy_are_enough(bare: Path, sealed: Path, bundle: Path) -> None:
    digest = bundle_digest(sealed)
    assert "verified, digest " + digest in run(bare, "harness", "verify", str(sealed), "--digest", digest)
    with (bundle / "golden" / "logits.npy").open("ab") as file:
        file.write(b"x")
    shown = run(bare, "python", "-m", "harness.verify", str(bundle), "--json", code=3)
    assert "golden/logits.npy was altered" in json.loads(shown)["checks"][1]["text"]


def test_without_click_only_verify_works_and_says_so(bare: Path) -> None:
    assert "only `harness verify BUNDLE` works here" in run(bare, "harness", "status", code=1)
    assert "is not a signature" in " ".join(run(bare, "harness", "verify", "--help").split())
    assert "no such folder" in run(bare, "harness", "verify", "nowhere", code=2)
