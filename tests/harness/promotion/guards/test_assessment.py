"""Every guard tripped by a real candidate that was made to trip it, and one sound candidate that trips none.

One thing about it is altered in each case, and the whole assessment runs. `pytest -s` prints the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from data.labels import LabelMap
from data.preparation.manifest import Manifest, Window
from harness.config.files.policy_file import load_policy
from harness.metrics.chance_level import judge_against_chance
from harness.metrics.predictions import Predictions
from harness.promotion.guards.assessment import GuardRefusedError, post_test_guards, require_guards_pass
from harness.promotion.guards.guard import Guard, refuses
from harness.promotion.registry.champion import Contestant, ContestWindows, compare_challenger
from harness.study.controls import Control, keep_control
from models.networks.cnn import FastDiarizationModel
from models.onnx_io.runtime import ProviderError
from models.onnx_io.session import open_session
from tests.harness.places.asked_guards import champion_guard
from tests.harness.places.guard_candidate import (
    Case,
    scaled,
    shifted,
    sound_case,
    untrained,
    with_audio,
    with_network,
    with_windows,
)

DEFAULT, PRODUCTION = load_policy("default"), load_policy("production")
TABLE: list[tuple[str, str, str]] = []


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return sound_case(tmp_path_factory.mktemp("guards"))


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    yield
    print("\n| guard | trip | under `default` | message |\n|---|---|---|---|")
    for row in TABLE:
        print(f"| {' | '.join(row)} |")


def failed(guards: list[Guard]) -> dict[str, Guard]:
    return {guard.name: guard for guard in guards if not guard.ok}


def check(guards: list[Guard], name: str, trip: str, companions: set[str], *, opened: bool = False) -> None:
    """Exactly `name` and its companions fail: integrity refuses everywhere, quality under production alone."""
    found = failed(guards)
    assert set(found) == {name} | companions
    integrity = any(guard.level == "integrity" for guard in found.values())
    assert any(refuses(DEFAULT, guard) for guard in guards) is integrity
    with pytest.raises(GuardRefusedError) as refusal:
        require_guards_pass("voices", "trial 0", guards, PRODUCTION, opened=opened)
    message = str(refusal.value)
    changed = "nothing but the test's ledger was changed" if opened else "nothing was changed"
    assert message.startswith(f"trial 0 of voices is refused under policy production; {changed}\n")
    for guard in found.values():
        assert all(part in message for part in (guard.name, guard.measured, guard.bound, guard.advice))
        assert len(guard.advice) > 20
    if not integrity:
        require_guards_pass("voices", "trial 0", guards, DEFAULT)
    TABLE.append((name, trip, "refuses" if found[name].level == "integrity" else "warns", str(found[name])))


def test_a_sound_candidate_trips_nothing(sound: Case) -> None:
    guards = [*sound.before(PRODUCTION), *sound.test(PRODUCTION)]
    assert failed(guards) == {}
    assert all(guard.measured and guard.bound and guard.advice for guard in guards)
    require_guards_pass("voices", "trial 0", guards, PRODUCTION)


# The network


LEARNT_NOTHING = {"train balanced accuracy, lower bound", "train cross-entropy"}


def test_a_constant_predictor(sound: Case) -> None:
    # One class is never answered, and its training windows are as wrong as any others.
    companions = {"recall of each class", *LEARNT_NOTHING}
    guards = with_network(sound, "constant", shifted(40.0)).before(PRODUCTION)
    check(guards, "predicted-positive rate", "bias of class 1 raised by 40", companions)


def test_one_class_is_not_recognised(sound: Case) -> None:
    margin = np.subtract(*sound.logits("val").T[::-1])[sound.labels("val") == 0]
    # Just so far that 3 of 4 windows of class 0 are called 1; scaled, so that what is wrong is not wrong for sure.
    bias = -float(np.quantile(margin, 0.25))

    def change(network: FastDiarizationModel) -> None:
        shifted(bias)(network)
        scaled(0.3)(network)

    guards = with_network(sound, "one class", change).before(PRODUCTION)
    check(guards, "recall of each class", "bias moved to where 3 of 4 windows of class 0 are called 1", set())


def test_a_plateau_at_the_class_share(sound: Case) -> None:
    outcome = {**sound.candidate.subject.outcome, "val_accuracy": [0.538, *[0.5] * 29]}
    subject = replace(sound.candidate.subject, outcome=outcome)
    case = replace(sound, candidate=replace(sound.candidate, subject=subject))
    check(case.before(PRODUCTION), "plateau at the class share", "30 epochs of the notebooks' curve", set())


def test_a_model_that_never_learned(sound: Case) -> None:
    # What was never trained answers (nearly) one class.
    companions = {"train cross-entropy", "predicted-positive rate", "recall of each class"}
    guards = with_network(sound, "untrained", untrained).before(PRODUCTION)
    check(
        guards,
        "train balanced accuracy, lower bound",
        "weights as they are before the first epoch",
        companions,
    )


def test_learnt_windows_at_a_coins_loss(sound: Case) -> None:
    guards = with_network(sound, "timid", scaled(0.001)).before(PRODUCTION)
    check(guards, "train cross-entropy", "logits x 0.001: right classes at ln 2", set())


@pytest.mark.parametrize(
    ("split", "trip"),
    [("val", "1 of 4 validation windows holds a voice of the other class"),
     ("train", "1 of 8 training windows holds a voice of the other class")],
)  # fmt: skip
def test_a_gap_on_either_side(sound: Case, split: str, trip: str) -> None:
    guards = with_audio(sound, split, lambda index: index < (24 if split == "val" else 18)).before(PRODUCTION)
    check(guards, "train - validation gap", trip, set())
    assert ("memorised" in str(failed(guards)["train - validation gap"])) is (split == "val")


def test_a_miscalibrated_model(sound: Case) -> None:
    case = with_network(sound, "miscalibrated", scaled(0.15))
    assert failed(case.before(PRODUCTION)) == {}
    check(case.test(PRODUCTION), "calibration error (ECE)", "logits x 0.15", set(), opened=True)


def test_slight_miscalibration_is_said_and_never_refused(sound: Case) -> None:
    guards = with_network(sound, "tempered", scaled(0.65)).test(PRODUCTION)
    assert {name: guard.level for name, guard in failed(guards).items()} == {
        "calibration error (ECE)": "advice"
    }
    require_guards_pass("voices", "trial 0", guards, PRODUCTION)


def test_chance_on_the_test(sound: Case) -> None:
    guards = with_audio(sound, "test", lambda index: index % 48 < 24).test(PRODUCTION)
    # Sure of itself and right half of the time: that is miscalibration too.
    trip = "half of the test windows hold a voice of the other class"
    check(guards, "test balanced accuracy, lower bound", trip, {"calibration error (ECE)"}, opened=True)


# The data


def test_unbalanced_windows(sound: Case) -> None:
    def fewer(windows: list[Window]) -> list[Window]:
        return [one for k, one in enumerate(windows) if one.label == 1 or k < 96]  # everybody keeps four

    check(
        with_windows(sound, "train", fewer).before(PRODUCTION),
        "label share train",
        "a third of class 0 removed",
        set(),
    )


def test_labels_that_are_not_those_of_the_training(sound: Case) -> None:
    outcome = {**sound.candidate.subject.outcome, "label_map": "f" * 64}
    case = replace(
        sound, candidate=replace(sound.candidate, subject=replace(sound.candidate.subject, outcome=outcome))
    )
    check(case.before(PRODUCTION), "label map", "the trial's outcome names another digest", set())
    assert "ffffffffffff when trial 0 was trained" in str(failed(case.before(PRODUCTION))["label map"])


def test_labels_that_were_dealt_again(sound: Case) -> None:
    prepared = sound.candidate.shared
    one, other = (next(k for k, v in prepared.label_map.classes.items() if v == label) for label in (0, 1))
    classes = {**prepared.label_map.classes, one: 1, other: 0}
    dealt = replace(prepared, label_map=LabelMap(classes, "rank", prepared.label_map.speakers))
    guards = replace(sound, candidate=replace(sound.candidate, prepared=(dealt,))).before(PRODUCTION)
    # The rule no longer gives this map, which the data gate's own check says.
    check(guards, "label map", "two speakers' classes exchanged after the training", {"label map digest"})
    assert "28 windows have another label" in str(failed(guards)["label map"])  # 2 x (6 + 4 + 4)


def test_an_outcome_of_an_earlier_version_is_judged_by_the_studys_data_gate(sound: Case) -> None:
    outcome = {key: value for key, value in sound.candidate.subject.outcome.items() if key != "label_map"}
    candidate = replace(sound.candidate, subject=replace(sound.candidate.subject, outcome=outcome))
    assert failed(replace(sound, candidate=candidate).before(PRODUCTION)) == {}
    study = candidate.study.optuna_study
    audits = study.user_attrs["audits"]
    try:
        study.set_user_attr("audits", [{**one, "label_map_digest": "e" * 64} for one in audits])
        found = failed(replace(sound, candidate=candidate).before(PRODUCTION))
        assert "eeeeeeeeeeee at the study's data gate" in str(found["label map"])
    finally:
        study.set_user_attr("audits", audits)


def test_too_few_speakers(sound: Case) -> None:
    def two_and_one(windows: list[Window]) -> list[Window]:
        kept = {0: 2, 1: 1}
        names = {w.speaker for label, n in kept.items() for w in [x for x in windows if x.label == label][:n]}
        ones = [one for one in windows if one.speaker in names]
        return [one for one in ones if one.label == 1] + [one for one in ones if one.label == 0][:6]

    guards = with_windows(sound, "train", two_and_one).before(PRODUCTION)
    # The others are evaluated and never trained on, which this split rule forbids.
    check(guards, "class sizes train", "one speaker of class 1 and 6 windows a class", {"seen speakers"})


def test_few_clusters_in_the_test(sound: Case) -> None:
    def of_eight(windows: list[Window]) -> list[Window]:
        names = sorted({one.speaker for one in windows})[:8]
        return [one for one in windows if one.speaker in names]

    check(
        with_windows(sound, "test", of_eight).before(PRODUCTION), "clusters in the test", "8 speakers", set()
    )


def test_leakage(sound: Case) -> None:
    test: Manifest = sound.candidate.shared.test.manifest
    (source,) = test.windows[0].sources

    def added(**fields: Any) -> Case:
        copied = replace(test.windows[0], sources=(replace(source, **fields),))
        return with_windows(sound, "train", lambda windows: [*windows, copied])

    guards = added(recording_id="new", chapter="new").before(PRODUCTION)
    check(guards, "leakage audio", "a test window's file copied into train under another name", set())
    companions = {"leakage utterance", "leakage audio"}
    check(added().before(PRODUCTION), "leakage chapter", "a test window copied into train", companions)


def test_a_broken_control(sound: Case) -> None:
    clusters = sound.candidate.shared.val.manifest.clusters()
    study = sound.candidate.study
    keep_control(study, Control("unseen", judge_against_chance(np.ones(len(clusters)), clusters)))
    try:
        guards = sound.before(PRODUCTION)
    finally:
        study.optuna_study.set_user_attr("controls", {})
    check(guards, "negative control unseen", "a control that is right on every validation window", set())


def test_a_negative_control_task_that_beats_chance(sound: Case) -> None:
    prepared = sound.candidate.shared
    unseen = replace(prepared, config=prepared.config.model_copy(update={"variant": "unseen"}))
    candidate = replace(sound.candidate, prepared=(unseen,))
    labels, clusters = sound.labels("test"), prepared.test.manifest.clusters()
    guards = post_test_guards(candidate, Predictions(sound.logits("test"), labels, clusters), PRODUCTION)
    check(
        guards,
        "negative control at chance",
        "all test windows of pseudo/unseen are right",
        set(),
        opened=True,
    )
    even = np.random.default_rng(0).standard_normal((len(labels), 2)).astype(np.float32)
    assert failed(post_test_guards(candidate, Predictions(even, labels, clusters), PRODUCTION)) == {}


# The exported file


def test_an_export_that_disagrees(sound: Case, tmp_path: Path) -> None:
    model = onnx.load(sound.model)
    name = next(node.input[2] for node in reversed(model.graph.node) if len(node.input) == 3)
    (bias,) = (one for one in model.graph.initializer if one.name == name)
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32([0, 0.001]), name))
    onnx.save(model, tmp_path / "model.onnx")
    guards = replace(sound, model=tmp_path / "model.onnx", parity=None).before(PRODUCTION)
    check(guards, "ONNX against torch", "one bias of the file raised by 0.001", set())


def test_no_export_at_all(sound: Case) -> None:
    outcome = {**sound.candidate.subject.outcome, "promotable": "no: the embedding network holds a Loop"}
    case = replace(
        sound, candidate=replace(sound.candidate, subject=replace(sound.candidate.subject, outcome=outcome))
    )
    check(case.before(PRODUCTION), "one ONNX file", "the worker could not export it", set())


def test_a_slow_file(sound: Case) -> None:
    case = replace(sound, policy={"latency": {"max_p99_ms": 0.001}})
    guards = case.before(PRODUCTION)
    check(guards, "latency P99, batch 1", "a bound of 0.001 ms", set())
    assert "50 times cheaper" in str(failed(guards)["latency P99, batch 1"])
    assert not isinstance(sound.latency, str)
    case = replace(
        case, latency=replace(sound.latency, p99_ms=130.0), policy={"latency": {"max_p99_ms": 10.0}}
    )
    guards = case.before(PRODUCTION, faster={"model.int8.onnx": replace(sound.latency, p99_ms=6.5)})
    assert "model.int8.onnx takes 6.5 ms" in str(failed(guards)["latency P99, batch 1"])


def test_another_provider_than_the_targets(sound: Case) -> None:
    latency = sound.latency
    try:
        open_session(sound.model, "cuda")
    except ProviderError as error:  # else there is a GPU, and the file was timed beside it
        latency = str(error)
    case = replace(sound, latency=latency, policy={"latency": {"device": "cuda"}})
    guards = case.before(PRODUCTION)
    # What was not timed on the target has no P99 there.
    check(guards, "serving provider", "target cuda, and no GPU was used", {"latency P99, batch 1"})
    assert failed(guards)["latency P99, batch 1"].measured == "not measured on cuda"


# The decision


def test_no_confirmation(sound: Case) -> None:
    guards = replace(sound, confirmed=False).before(PRODUCTION)
    check(guards, "confirmed on fresh seeds", "never retrained", set())
    assert "confirmed on fresh seeds" not in {guard.name for guard in sound.before(DEFAULT)}


def test_a_better_champion(sound: Case) -> None:
    clusters = sound.candidate.shared.test.manifest.clusters()
    champion = np.ones(len(clusters))
    challenger = np.array([index % 4 > 0 for index in range(len(clusters))], dtype=float)
    windows = ContestWindows(clusters)
    worse, better = (Contestant("champion 3", correct, 100) for correct in (challenger, champion))
    lost = compare_challenger(worse, better, windows, PRODUCTION.champion)
    check(
        [champion_guard(lost, is_champion=True, policy=PRODUCTION)],
        "against the champion",
        "3 of 4 windows right where the champion has all",
        set(),
        opened=True,
    )
    won = compare_challenger(better, worse, windows, PRODUCTION.champion)
    assert champion_guard(won, is_champion=True, policy=PRODUCTION).ok
