"""A bundle says everything a server needs, in files that other tools read."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator, ValidationError

from harness.bundle import write_bundle
from harness.bundle_files import SUMS
from harness.card import card_of
from harness.cli import cli
from models.onnx_session import open_session
from models.specification import LATER_FIELDS, Specification
from tests.harness.bundle_place import SPECIFICATION, example_evidence, export, make_bundle


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("sealed") / "small")


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def test_sha256sum_reads_the_sums_and_they_cover_every_file(sealed: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", SUMS], cwd=sealed, check=True, timeout=60)
    listed = {line.split("  ")[1] for line in (sealed / SUMS).read_text("utf-8").splitlines()}
    assert listed == {
        "model.onnx", "model.fp16.onnx", "model.int8.onnx", "specification.json", "specification.schema.json",
        "golden/waveform.npy", "golden/logits.npy", "golden/logits.fp16.npy", "golden/logits.int8.npy",
        "evidence.json", "card.md",
    }  # fmt: skip
    assert {path.stat().st_mode & 0o777 for path in sealed.rglob("*.npy")} == {0o644}


def test_the_specification_follows_its_published_schema(sealed: Path) -> None:
    schema = read(sealed / "specification.schema.json")
    Draft202012Validator.check_schema(schema)
    assert schema == json.loads(CliRunner().invoke(cli, ["schema", "specification"]).output)
    assert all(field["description"] for field in schema["properties"].values())
    specification = read(sealed / "specification.json")
    validator = Draft202012Validator(schema)
    validator.validate(specification)
    for wrong in ({"surprise": 1}, {"sample_rate": "16 kHz"}, {"format_version": 2}):
        with pytest.raises(ValidationError):
            validator.validate(specification | wrong)
    del specification["label_meaning"]
    with pytest.raises(ValidationError, match="label_meaning"):
        validator.validate(specification)


def test_a_server_that_reads_only_the_specification_repeats_the_golden_outputs(sealed: Path) -> None:
    says = read(sealed / "specification.json")
    waveform, logits = (np.load(sealed / f"golden/{name}.npy") for name in ("waveform", "logits"))
    assert waveform.shape[1] == says["window_samples"]
    assert waveform.dtype == logits.dtype == says["input_dtype"] == says["output_dtype"]
    session = open_session(sealed / "model.onnx")
    (answer,) = session.run([says["output_name"]], {says["input_name"]: waveform})
    np.testing.assert_allclose(answer, logits, atol=1e-4)
    assert answer.shape[1] == len(says["label_meaning"])
    loudest = np.array([-32768, 32767], np.int16).astype(says["input_dtype"]) / says["int16_divisor"]
    low, high = says["input_range"]
    assert low == loudest.min()
    assert loudest.max() < high


def test_files_from_before_these_fields_still_read() -> None:
    metadata = SPECIFICATION.to_metadata()
    for name in LATER_FIELDS:
        del metadata[name]
    assert Specification.from_metadata(metadata) == SPECIFICATION


def test_golden_outputs_belong_to_the_models(tmp_path: Path) -> None:
    export(tmp_path / "model.onnx", 0)
    given = {
        "specification": SPECIFICATION,
        "evidence": {},
        "golden_waveform": np.zeros((2, 48_000), np.float32),
        "card": "",
    }
    with pytest.raises(
        ValueError,
        match=r"golden outputs of \['model.int8.onnx'\], but the models in .* are \['model.onnx'\]",
    ):
        write_bundle(tmp_path, golden_logits={"model.int8.onnx": np.zeros((2, 2), np.float32)}, **given)
    with pytest.raises(ValueError, match="1 windows for 2 inputs"):
        write_bundle(tmp_path, golden_logits={"model.onnx": np.zeros((1, 2), np.float32)}, **given)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    evidence = {"icc": float("nan"), "inner": [{"bound": float("inf")}], "kept": 0.5}
    logits = {"model.onnx": np.zeros((2, 2), np.float32)}
    write_bundle(tmp_path, golden_logits=logits, **{**given, "evidence": evidence})
    assert read(tmp_path / "evidence.json") == {"icc": None, "inner": [{"bound": None}], "kept": 0.5}


@pytest.mark.parametrize("kind", ["sweep", "specification", "policy"])
def test_every_schema_is_one(kind: str) -> None:
    Draft202012Validator.check_schema(json.loads(CliRunner().invoke(cli, ["schema", kind]).output))


CONFIRMATION = {
    "seeds": 5, "conclusion": "mfcc wins.",
    "finalists": [
        {"label": "trial 3", "name": "mfcc", "mean": 0.71, "sd": 0.02, "low": 0.69, "sweep_score": 0.8, "shrink": 0.09, "predicted_optimism": 0.07},
        {"label": "baseline", "name": "baseline", "mean": None, "sd": None, "low": None, "sweep_score": None, "shrink": None, "predicted_optimism": None},
    ],
}  # fmt: skip
CONTEST = {"opponent": "version 2", "verdict": "better", "text": "better by 0.05 [0.01, 0.09]"}


def test_the_card_says_what_a_person_asks_first() -> None:
    card = card_of(example_evidence())
    assert re.search(r"balanced accuracy 0\.750 \[0\.\d+, 0\.\d+\] \(120 windows, K = 12\)", card)
    assert "worst clusters: s0 0.50, s1 0.53, s2 0.57" in card
    assert "best clusters: s11 0.87" in card
    assert "**quality** gap: 0.2, wanted <= 0.1. More dropout." in card
    assert "best of 4 trials: about 0.050 of it may be luck" in card
    assert "divided by 32768" in card
    confirmed = card_of({**example_evidence(), "confirmation": CONFIRMATION, "champion": CONTEST})
    assert "| mfcc | 0.710 | 0.020 | 0.690 | 0.800 | 0.090 | 0.070 |" in confirmed
    assert "against version 2: better" in confirmed
    assert "not retrained" not in confirmed
    assert len(confirmed.splitlines()) < 100


def test_the_card_leaves_out_what_is_not_known() -> None:
    whole = {
        **example_evidence(), "confirmation": CONFIRMATION, "champion": CONTEST, "latency": {"p50_ms": 1.0, "p99_ms": 2.0},
        "variants": [{"name": "fp32", "file": "model.onnx", "device": "cpu", "included": True}, {"name": "int8", "included": False, "reason": "lost 0.1"}],
    }  # fmt: skip
    assert "None" not in card_of(whole)
    for key in whole:
        for evidence in (
            {k: v for k, v in whole.items() if k != key},
            {**whole, key: None},
            {key: whole[key]},
        ):
            assert card_of(evidence).startswith("# ")
    assert "model" in card_of({})
