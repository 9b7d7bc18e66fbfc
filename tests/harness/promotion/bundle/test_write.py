"""A bundle says everything a server needs, in files that other tools read."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator, ValidationError

from harness.cli.main import cli
from harness.config.files.policy_file import read_policy_file
from harness.config.policy import FOLDER, POLICIES
from harness.promotion.bundle.card import card_of
from harness.promotion.bundle.files import SUMS, read_bundle
from harness.promotion.bundle.verify_model import BrokenBundleError, Bundle, included_variants
from harness.promotion.bundle.write import write_bundle
from models.export.specification import LATER_FIELDS, Specification
from models.onnx_io.session import open_session
from tests.harness.places.sealed_bundle import SPECIFICATION, example_evidence


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
    for field in specification:
        with pytest.raises(ValidationError, match=field):
            validator.validate({key: value for key, value in specification.items() if key != field})
    for meaning in (
        {},
        {"0": "one"},
        {"0": "one", "2": "two"},
        {"0": "one", "1": "two", "2": "three"},
        {"0": 1, "1": 2},
    ):
        with pytest.raises(ValidationError):
            validator.validate(specification | {"label_meaning": meaning})


def test_the_schema_requires_whatever_verify_asks_for(sealed: Path) -> None:
    schema, specification = read(sealed / "specification.schema.json"), read(sealed / "specification.json")
    bundle = Bundle(sealed, "", read_bundle(sealed)[0])
    evidence = read(sealed / "evidence.json")
    included_variants(bundle, specification, evidence)
    asked = set()
    for field in specification:
        try:
            included_variants(bundle, {k: v for k, v in specification.items() if k != field}, evidence)
        except BrokenBundleError:
            asked.add(field)
    assert {"input_name", "window_samples", "label_meaning", "run_id"} < asked <= set(schema["required"])


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


def test_golden_outputs_belong_to_the_models(sealed: Path, tmp_path: Path) -> None:
    shutil.copy(sealed / "model.onnx", tmp_path)
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


def test_numbers_that_json_does_not_have_become_null(sealed: Path, tmp_path: Path) -> None:
    shutil.copy(sealed / "model.onnx", tmp_path)
    evidence = {"icc": float("nan"), "inner": [{"bound": float("inf")}], "kept": 0.5}
    logits = {"model.onnx": np.zeros((2, 2), np.float32)}
    write_bundle(
        tmp_path, specification=SPECIFICATION, evidence=evidence, golden_waveform=np.zeros((2, 48_000), np.float32),
        golden_logits=logits, card="",
    )  # fmt: skip
    assert read(tmp_path / "evidence.json") == {"icc": None, "inner": [{"bound": None}], "kept": 0.5}


@pytest.mark.parametrize("kind", ["sweep", "specification", "policy"])
def test_every_schema_is_one(kind: str) -> None:
    Draft202012Validator.check_schema(json.loads(CliRunner().invoke(cli, ["schema", kind]).output))


@pytest.mark.parametrize("name", POLICIES)
def test_the_shipped_policies_follow_the_schema_that_is_printed(name: str) -> None:
    schema = json.loads(CliRunner().invoke(cli, ["schema", "policy"]).output)
    values = read_policy_file(FOLDER / f"{name}.yaml").values
    Draft202012Validator(schema).validate(values)
    with pytest.raises(ValidationError):
        Draft202012Validator(schema).validate(values | {"surprise": {}})


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
    assert "worst clusters, with their windows: s0 0.50 (10), s1 0.53 (10), s2 0.57 (10)" in card
    assert "best clusters: s11 0.87 (10)" in card
    assert "**quality** gap: 0.2, wanted <= 0.1. More dropout." in card
    assert "best of 4 trials: about 0.050 of it may be luck" in card
    assert "divided by 32768" in card
    confirmed = card_of({**example_evidence(), "confirmation": CONFIRMATION, "champion": CONTEST})
    assert "| mfcc | 0.710 | 0.020 | 0.690 | 0.800 | 0.090 | 0.070 |" in confirmed
    assert "against version 2: better" in confirmed
    assert "not retrained" not in confirmed
    assert len(confirmed.splitlines()) < 100


def verdict_of(**changed: Any) -> str:
    """The line under the title."""
    return card_of({**example_evidence(), **changed}).splitlines()[2]


def test_the_line_under_the_title_is_enough_to_decide() -> None:
    line = verdict_of(alias="champion")
    assert line.startswith(
        "**`pseudo-seen`, champion.** Unconfirmed. Test balanced accuracy 0.750, 95 % interval 0."
    )
    assert "where chance is 0.5; 120 windows of K = 12 clusters" in line
    assert line.endswith("**1 quality guard failed**: gap.")
    assert not re.search("beats chance|no evidence", line)
    test = {**example_evidence()["test"], "low": 0.4, "clusters": 3}
    assert "**Nothing shows that it beats chance.** **Few clusters: no evidence.**" in verdict_of(test=test)
    lost = {**CONTEST, "verdict": "not shown better"}
    line = verdict_of(alias="challenger", champion=lost, guards=[])
    assert line.startswith(
        "**`pseudo-seen`, challenger: it lost against version 2, which stays champion: not shown better.**"
    )
    assert "failed" not in line


def test_the_limits_are_those_that_are_known() -> None:
    def limits(**changed: Any) -> str:
        return card_of({**example_evidence(), **changed}).partition("## Limits")[2].partition("##")[0]

    assert "Generated voices" in limits()
    assert "`seen`: it recognises the speakers" in limits()
    assert "no meetings" not in limits()
    read_speech = {"task": "overlap", "variant": "default", "corpus": "librispeech"}
    assert "Mixtures of read speech are no meetings" in limits(data=read_speech)
    assert not re.search("Generated|dealt", limits(data=read_speech))
    assert "no meetings" not in limits(data={**read_speech, "corpus": "ami"})
    assert "Unconfirmed" in limits(confirmed=False)
    assert "Unconfirmed" not in limits(confirmed=True)
    assert "opened this test before" in limits(test_openings=2)
    assert "Fewer than 10 clusters" in limits(test={**example_evidence()["test"], "clusters": 3})
    held = "holds external weights: xvector abc"
    assert limits(limits=[held], external_weights=["xvector abc"]).count(held) == 1


def test_the_card_ranks_no_clusters_of_a_few_windows() -> None:
    small = {f"s{k}": {"windows": 2 + 9 * (k < 4), "accuracy": 0.5} for k in range(12)}
    card = card_of({**example_evidence(), "test_by_cluster": small})
    assert "too few windows of each to say how they differ (median 2, wanted 5 or more)" in card
    assert "worst clusters" not in card


def test_the_card_says_what_each_file_changes_and_where_that_was_measured() -> None:
    variant = {
        "name": "fp16", "file": "model.fp16.onnx", "device": "cuda", "included": True, "warning": "may lose more: -1.3",
        "accuracy": example_evidence()["test"], "accuracy_loss": 0.0125, "max_logit_difference": 0.0039, "agreement": 0.982,
        "accuracy_change": {"value": -0.0125, "low": -0.03, "high": 0.004}, "accuracy_provider": "CPUExecutionProvider",
        "latency": {"cold_ms": 15.2, "p50_ms": 1.0, "p99_ms": 2.0},
    }  # fmt: skip
    card = card_of({
        **example_evidence(), "variants": [variant], "ece": 0.0712, "macs": 22_800_000, "parameters": 580_000,
        "machine": {"cpu": "Some CPU", "cores": 2, "threads": 1, "load": 1.25},
    })  # fmt: skip
    assert "(120 windows, K = 12) | -1.2 [-3.0, +0.4] | 0.0039 | 98.2 % | 15 | 1.0 | 2.0 |" in card
    assert "- `model.fp16.onnx` may lose more: -1.3" in card
    assert "accuracy was computed on the CPU (CPUExecutionProvider)" in card
    assert "latency on Some CPU, 2 cores, 1 thread used, load average 1.2 when it began" in card
    assert "22.8 M multiply-accumulates a window in the network, 580,000 parameters, torch " in card
    assert "calibration error (ECE) 0.071" in card


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
