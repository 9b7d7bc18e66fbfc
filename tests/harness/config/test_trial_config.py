import json
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config.parameters import parameter_locations
from harness.config.search_space import SearchSpace, Values
from harness.config.sweep import Sweep
from harness.config.trial.trial_config import IRRELEVANT, TrialConfig
from harness.core.errors import InputError
from harness.core.seeds import derived_seed


def space(parameters: dict[str, Any], **rest: Any) -> SearchSpace:
    return SearchSpace(Sweep.model_validate({"name": "x", "parameters": parameters, **rest}))


PINNED = "e7bae5dd0b0fb69ceff5c6c3244edeebff167e083c4156470db4c5e1c21c7a7a"


def test_the_fingerprint_is_the_same_in_every_process() -> None:
    program = "from harness.config.trial.trial_config import TrialConfig; print(TrialConfig().fingerprint())"
    found = {
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }  # fmt: skip
    assert found == {TrialConfig().fingerprint()}


def test_the_fingerprint_of_a_literal_configuration_is_pinned() -> None:
    # It changes with a new field, a new default or IMPLEMENTATION: trials of an old study are then run anew.
    config = TrialConfig.model_validate({
        "data": {"corpus": "demo", "train_windows": 1000, "val_windows": 100, "test_windows": 100},
        "feature": {"kind": "waveform", "normalize": True},
        "model": {"width": 0.25, "dropout": 0.3, "kernel_size": 3},
        "training": {"epochs": 8, "learning_rate": 0.001},
    })  # fmt: skip
    assert config.fingerprint() == PINNED


def test_equal_configurations_have_equal_fingerprints() -> None:
    searched = space({"width": [1, 0.5], "learning_rate": 1e-3})
    assert searched.config({"width": 1}).fingerprint() == searched.config({"width": 1.0}).fingerprint()
    assert searched.config({"width": 1.0}).fingerprint() == TrialConfig().fingerprint()
    order = {"width": 0.5, "learning_rate": 1e-3}
    assert (
        searched.config(order).fingerprint() == searched.config(dict(reversed(order.items()))).fingerprint()
    )
    again = TrialConfig.model_validate(json.loads(TrialConfig().model_dump_json()))
    assert again.fingerprint() == TrialConfig().fingerprint()


@pytest.mark.parametrize("section", IRRELEVANT)
def test_what_changes_no_number_is_not_in_the_fingerprint(section: str) -> None:
    changed = {"max_lost_share": 0.5, "max_download_gb": 2.0, "checkpoint_every": 7, "path": "elsewhere.onnx"}
    base = {"feature": {"kind": "xvector", **XVECTOR}} if section == "feature" else {section: {}}
    one = TrialConfig.model_validate(base)
    for field in IRRELEVANT[section]:
        config = TrialConfig.model_validate({section: {**base[section], field: changed[field]}})
        assert config != one
        assert config.fingerprint() == one.fingerprint()


XVECTOR = {"path": "embedding.onnx", "sha256": "0" * 64}
OTHER: dict[str, Any] = {
    "sha256": "1" * 64, "recipe": "3dspeaker", "windows": "whole", "dim": 192, "ema_decay": 0.99, "voice_variants": 2,
    "pitch_semitones": 1.0, "stretch": 0.2,
    "subset": "other", "train_windows": 100, "feature": "log_mel", "waveform.normalize": False, "n_mels": 60,
    "n_fft": 1024, "win_length": 320, "hop_length": 200, "f_min": 20.0, "f_max": 7000.0, "top_db": 60.0, "cmvn": False,
    "n_mfcc": 20, "delta_width": 5, "width": 0.5, "dropout": 0.1, "kernel_size": 5, "epochs": 3, "batch_size": 16,
    "learning_rate": 0.01, "weight_decay": 0.1, "warmup_share": 0.2, "precision": "fp32", "train_score_windows": 64,
    "augment_share": 0.5, "noise_snr_db": 5.0, "gain_db": 6.0, "reverb_rt60_s": 0.4, "freq_mask": 4, "time_mask": 40, "masks": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [name for name in parameter_locations() if name not in ("checkpoint_every", "xvector.path")]
)
def test_every_searched_parameter_changes_the_fingerprint(name: str) -> None:
    kind = parameter_locations()[name].front_end or "mfcc"
    required = {f"xvector.{field}": value for field, value in XVECTOR.items()} if kind == "xvector" else {}
    base: Values = {"feature": kind, **required}
    value = OTHER.get(name, OTHER.get(parameter_locations()[name].field))
    searched = space({})
    assert searched.config({**base, name: value}).fingerprint() != searched.config(base).fingerprint()


def test_an_inactive_parameter_changes_nothing() -> None:
    searched = space({"feature": ["mfcc", "log_mel"], "mfcc.n_mfcc": [20, 40]})
    fixed = space({"feature": "log_mel"})
    values = [values for values in searched.combinations() or () if values["feature"] == "log_mel"]
    assert [searched.config(one).fingerprint() for one in values] == [
        fixed.config({"feature": "log_mel"}).fingerprint()
    ]


def test_flat_rows_name_every_field_once() -> None:
    flat = TrialConfig().flat()
    assert flat["feature"] == "mfcc"
    assert flat["feature.n_mfcc"] == 40
    assert flat["data.evaluate_on"] == "[]"
    assert flat["feature.f_max"] == "null"
    assert set(flat) >= {"model.width", "training.epochs", "data.corpus"}
    sections = TrialConfig().model_dump(exclude={"control", "stack"})
    assert len(flat) == sum(len(section) for section in sections.values())


@given(
    st.lists(st.integers() | st.text(max_size=5), max_size=4),
    st.lists(st.integers() | st.text(max_size=5), max_size=4),
)
def test_a_derived_seed_is_31_bits_of_its_parts(one: list[Any], other: list[Any]) -> None:
    assert 0 <= derived_seed(*one) < 2**31
    assert (derived_seed(*one) == derived_seed(*other)) == (one == other)


def test_derived_seeds_are_pinned() -> None:
    assert derived_seed("training", 0, 0) == 1664388461


def test_a_recorded_configuration_of_an_absent_plugin_is_one_error_for_people() -> None:
    assert TrialConfig.from_record(TrialConfig().model_dump(mode="json")) == TrialConfig()
    with pytest.raises(
        InputError, match=r"cannot be read here: feature: .*name its module in HARNESS_PLUGINS"
    ):
        TrialConfig.from_record({"feature": {"kind": "of_a_plugin"}})
