"""The baseline of a sweep: each parameter's own default where the sweep admits it, or what the file says."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config.baseline import BaselineError, admitted, baseline_of
from harness.config.files.sweep_loader import load_sweep
from harness.config.files.yaml_file import SweepError
from harness.config.json_schema import json_schema
from harness.config.parameters import Choice, FloatRange, IntRange, parameter_locations
from harness.config.search_space import SearchSpace
from harness.config.sweep import Sweep


def space(parameters: dict[str, Any], **more: Any) -> SearchSpace:
    return SearchSpace(Sweep.model_validate({"name": "x", "parameters": parameters, **more}))


@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 5))
def test_the_default_where_the_range_admits_it_else_the_first_candidate(
    low: int, steps: int, step: int
) -> None:
    form = IntRange.model_validate({"int": [low, low + steps * step], "step": step})
    default = parameter_locations()["epochs"].default
    assert admitted("epochs", form) == (default if default in form.grid() else low)


def test_choices_and_float_ranges_admit_what_they_hold() -> None:
    rate = parameter_locations()["learning_rate"].default
    assert admitted("learning_rate", FloatRange.model_validate({"float": [rate / 2, rate * 2]})) == rate
    assert admitted("learning_rate", FloatRange.model_validate({"float": [rate * 2, rate * 3]})) == rate * 2
    assert admitted("feature", Choice(choice=["waveform", "mfcc"])) == "mfcc"
    assert admitted("feature", Choice(choice=["waveform", "log_mel"])) == "waveform"


def test_the_baseline_respects_conditions_and_is_a_configuration() -> None:
    searched = {
        "feature": ["waveform", "mfcc"], "mfcc.n_mfcc": [13, 20], "width": [0.125, 0.25], "epochs": 3,
        "dropout": {"choice": [0.1, 0.4], "when": {"feature": "waveform"}},
    }  # fmt: skip
    values, config = baseline_of(space(searched))
    assert set(values) == {"feature", "mfcc.n_mfcc", "width", "epochs"}
    assert (config.feature.kind, config.training.epochs) == ("mfcc", 3)
    values, config = baseline_of(space(searched, baseline={"feature": "waveform", "width": 0.75}))
    assert (set(values), config.model.width) == ({"feature", "dropout", "width", "epochs"}, 0.75)


def test_a_front_end_whose_file_is_missing_is_no_baseline(tmp_path: Path) -> None:
    arms = {"xvector.path": str(tmp_path / "absent.onnx"), "xvector.sha256": "0" * 64}
    both = space({"feature": ["xvector", "waveform"], **arms})
    assert baseline_of(both)[1].feature.kind == "waveform"
    with pytest.raises(BaselineError, match="the baseline cannot be trained here"):
        baseline_of(both, {"feature": "xvector"})


def test_it_decides_no_trial() -> None:
    assert space({}, baseline={"width": 0.5}).sweep.digest() == space({}).sweep.digest()


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("{widht: 1}", "baseline.widht: no such parameter; did you mean width?"),
        ("{feature: mfc}", "baseline.feature: no front end is called 'mfc'; did you mean mfcc?"),
        ("{learning_rate: fast}", 'baseline.learning_rate: must be a number; got "fast"'),
        ("{epochs: [1]}", "baseline.epochs: must be one number or word; got [1]"),
        ("{feature: waveform, mfcc.n_mfcc: 20}", "baseline.mfcc.n_mfcc: feature is waveform in the baseline"),
        ("{subset: cleen}", "baseline.subset: unknown subset of corpus demo 'cleen'"),
        ("{train_windows: 96}", "baseline.train_windows: train_windows: no trial has these data"),
        ("[1]", "baseline: must be a mapping of keys to values; got [1]"),
    ],
)
def test_every_mistake_is_named_at_its_line(tmp_path: Path, written: str, told: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"name: x\nparameters: {{feature: [waveform, mfcc]}}\nbaseline: {written}\n", "utf-8")
    with pytest.raises(SweepError) as caught:
        load_sweep(path)
    assert f"  line 3: {told}" in str(caught.value)
    assert len(caught.value.problems) == 1
    path.write_text("name: x\nbaseline:\n", "utf-8")
    assert load_sweep(path).baseline == {}


@pytest.mark.parametrize(
    ("baseline", "ok"),
    [
        ({"width": 0.5, "feature": "mfcc"}, True),
        (None, True),
        ({"widht": 1}, False),
        ({"epochs": [1]}, False),
    ],
)
def test_the_schema_knows_it(baseline: Any, ok: bool) -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    assert validator.is_valid({"name": "x", "baseline": baseline}) is ok
