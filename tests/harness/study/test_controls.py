"""Negative controls: labels that say nothing, verdicts, what is trained, and the sweep file."""

from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.config import DataConfig
from data.preparation.prepare import prepare
from harness.config.control_configs import CONTROLS, EPOCHS, control_config, control_configs
from harness.config.cost import estimate, window_macs
from harness.config.files.sweep_loader import load_sweep
from harness.config.files.yaml_file import SweepError
from harness.config.json_schema import json_schema
from harness.config.search_space import SearchSpace
from harness.config.trial.training_config import TrainingConfig
from harness.config.trial.trial_config import TrialConfig
from harness.core.settings import Settings
from harness.execution.data_gate import audit_data_configs
from harness.execution.launch import cost_line
from harness.metrics.chance_level import judge_against_chance
from harness.metrics.classification import binary_metrics
from harness.study.controls import Control
from harness.study.storage.trial_spool import TrialSpool
from harness.training.fit import Split, fit
from harness.training.job import Job
from harness.training.state import of_last_epoch
from harness.training.trial import permuted_labels, run_trial
from tests.harness.places.control_sweep import sweep, windows

# Labels that say nothing


@given(st.lists(st.integers(0, 1), min_size=1, max_size=300), st.integers(0, 2**31 - 1))
def test_permuted_labels_keep_their_counts_and_follow_the_seed(labels: list[int], seed: int) -> None:
    given_labels = np.array(labels, dtype=np.int64)
    permuted = permuted_labels(given_labels, seed)
    assert sorted(permuted) == sorted(labels)
    assert given_labels.tolist() == labels
    assert np.array_equal(permuted, permuted_labels(given_labels, seed))


def test_permuted_labels_agree_with_the_true_ones_by_chance_alone() -> None:
    labels = np.arange(2_000) % 2
    agreement = [(permuted_labels(labels, seed) == labels).mean() for seed in range(200)]
    assert abs(np.mean(agreement) - 0.5) < 0.005
    assert len({permuted_labels(labels, seed).tobytes() for seed in range(20)}) == 20


# The verdict


def test_a_score_at_chance_is_sound() -> None:
    labels, clusters = windows(20, 20)
    correct = np.random.default_rng(0).integers(0, 2, len(labels))
    judgement = judge_against_chance(correct, clusters)
    assert (judgement.verdict, judgement.windows, judgement.clusters) == ("sound", 400, 20)
    assert judgement.low < 0.5 < judgement.value + 0.1


def test_a_score_that_no_chance_explains_is_broken_and_says_its_numbers() -> None:
    labels, clusters = windows(20, 20)
    heard = np.random.default_rng(0).random(len(labels)) < 0.4  # the share that leaked
    correct = np.where(heard, 1, np.random.default_rng(1).integers(0, 2, len(labels)))
    control = Control("unseen", judge_against_chance(correct, clusters), "", "f")
    assert control.verdict == "broken"
    assert str(control).startswith(
        f"BROKEN CONTROL unseen: it scores {correct.mean():.3f}, 99.9 % lower bound"
    )
    assert "K = 20" in str(control)


def test_few_clusters_say_nothing_however_high_the_score() -> None:
    labels, clusters = windows(9, 40)
    control = Control("unseen", judge_against_chance(np.ones(len(labels)), clusters))
    assert control.verdict == "uninformative"
    assert "fewer than 10 clusters" in str(control)
    assert judge_against_chance(np.ones(400), windows(10, 40)[1]).verdict == "broken"


@pytest.mark.parametrize(("speakers", "spread"), [(10, 0.05), (14, 0.5), (40, 5.0), (40, 1e6)])
def test_a_sound_control_is_called_broken_once_in_a_hundred_at_most(speakers: int, spread: float) -> None:
    # Each speaker's windows lean to one class as they like (spread .05: nearly all to one), whatever their own.
    generator = np.random.default_rng(speakers)
    labels, clusters = windows(speakers, 10)
    broken = 0
    for _ in range(1_000):
        leaning = np.repeat(generator.beta(spread, spread, speakers), 10)
        broken += (
            judge_against_chance((generator.random(len(labels)) < leaning) == labels, clusters).verdict
            == "broken"
        )
    assert broken <= 10


def test_the_last_epoch_is_judged_not_the_best() -> None:
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(80, 2, 4, generator=generator), torch.arange(80) % 2
    split = Split(features, labels, ["s"] * 80)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 2))
    config = TrainingConfig(epochs=6, batch_size=16, learning_rate=0.5)
    result = fit(model, split, split, config, seed=3, device=torch.device("cpu"))
    last = of_last_epoch(result)
    assert result.best_epoch < last.best_epoch == 5
    assert last.score == result.reports[5].metrics["val/balanced_accuracy"]
    right = (last.val_logits.argmax(dim=1) == labels).float().mean()
    assert right == pytest.approx(result.reports[5].metrics["val/accuracy"])
    with torch.no_grad():
        model.load_state_dict(last.best_state)
        assert torch.equal(model(features), last.val_logits)


# What is trained


def test_a_control_is_the_cheapest_training_of_the_space() -> None:
    space = SearchSpace(sweep())
    configs = control_configs(space)
    assert list(configs) == list(CONTROLS)
    for name, config in configs.items():
        assert config.feature.kind == "mfcc"
        assert (config.model.width, config.training, config.control) == (
            0.125,
            TrainingConfig(epochs=EPOCHS),
            name,
        )
        assert window_macs(config) <= min(map(window_macs, space.random_configs(50)))
    wide = control_config(SearchSpace(sweep(parameters={"width": 1.0})), "unseen")
    assert wide.model.width == 0.25


def test_what_the_controls_are_trained_on() -> None:
    data = {
        "subset": "other",
        "evaluate_on": ["clean", "other"],
        "train_windows": 5000,
        "seed": 3,
        "speakers": 40,
    }
    configs = control_configs(SearchSpace(sweep(data=data)))
    assert configs["shuffled_labels"].data == DataConfig.model_validate(
        {**data, "evaluate_on": ("clean", "other")}
    )
    unseen = configs["unseen"].data
    assert (unseen.task, unseen.variant, unseen.subset, unseen.evaluated) == (
        "pseudo",
        "unseen",
        "other",
        ("other",),
    )
    assert (unseen.train_windows, unseen.seed, unseen.speakers) == (2000, 3, 40)


def test_a_control_is_no_trial_of_the_same_values() -> None:
    config = control_config(SearchSpace(sweep()), "shuffled_labels")
    plain = config.model_copy(update={"control": ""})
    assert config.fingerprint() != plain.fingerprint()
    assert config.flat() == plain.flat()


def test_the_gate_looks_at_the_controls_data_once(demo_cache: Path) -> None:
    settings = Settings(record=Path("r"), data_root=None, cache=demo_cache, workers=None, device="cpu")
    names = [one.name for one in audit_data_configs(SearchSpace(sweep()), settings, lambda text: None)]
    assert names == [
        "demo clean, pseudo/seen, 240 windows",
        "control unseen: demo clean, pseudo/unseen, 240 windows",
    ]


def test_the_cost_counts_controls() -> None:
    space = SearchSpace(sweep(parameters={"feature": "mfcc"}))
    configs = list(control_configs(space).values())
    sizes = {config.data.digest(): (240, 96) for config in [*configs, control_config(space, "unseen")]}
    plain, more = (estimate(space, 4, 2, "cpu", sizes, controls) for controls in ((), configs))
    assert more.seconds > plain.seconds
    assert "4 trials and 2 controls on 2 workers" in cost_line(more)
    assert "controls" not in cost_line(plain)


def seconds(**parameters: Any) -> float:
    """The expected time of a sweep of one trial, on one CPU worker."""
    space = SearchSpace(sweep(parameters={"feature": "mfcc", **parameters}))
    return estimate(space, 1, 1, "cpu", {space.sweep.data.digest(): (10_000, 1_000)}).seconds


def test_the_cost_counts_augmented_waveforms_and_what_a_narrow_network_costs_beside_its_arithmetic() -> None:
    plain = seconds(epochs=10)
    assert seconds(epochs=10, freq_mask=4, time_mask=40) == plain  # of stored features
    assert seconds(epochs=10, noise_snr_db=5, augment_share=0) == plain
    assert seconds(epochs=10, gain_db=6) == pytest.approx(plain + 10 * 10_000 * 2.1e-3)
    noisy = seconds(epochs=10, noise_snr_db=5, reverb_rt60_s=0.4, augment_share=0.5)
    assert noisy == pytest.approx(plain + 10 * 10_000 * (2.1e-3 + 0.5 * (1.3e-3 + 1.1e-3)))
    raw = seconds(epochs=10, feature="waveform", gain_db=6)
    assert raw == seconds(epochs=10, feature="waveform")  # it has no features to make anew
    narrow, wide = (seconds(epochs=10, width=width) for width in (0.125, 0.25))
    assert wide / narrow < 3  # their multiply-accumulates are as 1 to 3.5


@pytest.mark.slow
def test_the_evidence_of_permuted_labels_holds_the_labels_that_were_learnt(
    tmp_path: Path, demo_cache: Path
) -> None:
    data = DataConfig(train_windows=80, val_windows=40, test_windows=40)
    prepared = prepare(data, data_root=None, cache=demo_cache)
    config = TrialConfig.model_validate({
        "data": data.model_dump(), "model": {"width": 0.125}, "training": {"epochs": 1},
        "control": "shuffled_labels",
    })  # fmt: skip
    spool = TrialSpool(tmp_path / "spool")
    spool.write("trial", {"run_name": "control"})
    job = Job(
        -2, config.model_dump(mode="json"), str(prepared.folder), str(spool.folder), str(tmp_path), 3, {}
    )
    outcome = run_trial(job, torch.device("cpu"), lambda epoch, metrics: False, lambda: False)
    with np.load(spool.artifacts / "predictions.npz") as stored:
        scores = binary_metrics(stored["train_logits"], stored["train_labels"])
        learnt = permuted_labels(prepared.train.manifest.labels(), 3)
        assert stored["train_labels"].tolist() == learnt.tolist()  # of 80 windows all are scored
        assert learnt.tolist() != prepared.train.manifest.labels().tolist()
        assert (stored["val_labels"] == prepared.val.manifest.labels()).all()
    assert scores["loss"] == pytest.approx(outcome["at_best"]["train/loss"], abs=1e-5)


# The sweep file


def told(folder: Path, text: str) -> list[tuple[int | None, str, str]]:
    path = folder / "s.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(SweepError) as caught:
        load_sweep(path)
    return [(problem.line, problem.where, problem.message) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("controls: [unseen, shufled_labels]", "controls.1", "did you mean shuffled_labels?"),
        ("controls: [none]", "controls.0", "no such value: 'none'; there is unseen, shuffled_labels"),
        ("controls: unseen", "controls", "must be a list; got \"unseen\""),
        ("controls: [unseen, unseen]", "controls", "a control is named twice"),
        ("control: [unseen]", "control", "did you mean controls?"),
    ],
)  # fmt: skip
def test_a_mistake_in_controls_is_told(tmp_path: Path, text: str, where: str, message: str) -> None:
    ((line, place, shown),) = told(tmp_path, f"name: x\n{text}\n")
    assert (line, place) == (2, where)
    assert message in shown


@pytest.mark.parametrize("value", [[], None, ["unseen"], ["shuffled_labels", "unseen"]])
def test_the_schema_knows_controls(tmp_path: Path, value: Any) -> None:
    jsonschema.validate({"name": "x", "controls": value}, json_schema())
    path = tmp_path / "s.yaml"
    path.write_text(f"name: x\ncontrols: {'' if value is None else value}\n", "utf-8")
    assert list(load_sweep(path).controls) == (value or [])


@pytest.mark.parametrize("value", [["unsen"], ["unseen", "unseen"], "unseen", [1]])
def test_the_schema_refuses_what_the_harness_refuses(tmp_path: Path, value: Any) -> None:
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid({"name": "x", "controls": value})
    assert told(tmp_path, f"name: x\ncontrols: {value}\n")


@pytest.mark.parametrize("corpus", ["ami", "ami_hub", "librispeech"])
def test_meetings_have_no_unseen_control(tmp_path: Path, corpus: str) -> None:
    data = f"data: {{corpus: {corpus}, subset: ami, task: overlap}}\n"
    ((line, where, shown),) = told(tmp_path, "name: x\n" + data + "controls: [shuffled_labels, unseen]\n")
    assert (line, where) == (3, "controls.1")
    assert shown == (
        "unseen cannot be made here (ami holds meetings of several speakers, and classes are dealt to "
        "recordings of one); leave it out"
    )


def test_unseen_takes_the_first_subset_of_utterances() -> None:
    space = SearchSpace(
        sweep(
            data={"corpus": "librispeech", "task": "overlap"},
            parameters={"subset": ["ami", "other", "clean"]},
        )
    )
    assert control_config(space, "unseen").data.subset == "other"
    assert control_config(space, "shuffled_labels").data.subset == "ami"


def test_controls_make_no_new_study() -> None:
    assert sweep().digest() == sweep(controls=[]).digest()
