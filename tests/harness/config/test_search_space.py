import json
import math
from itertools import islice
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.config import DataConfig
from harness.config.files.sweep_checks import problems_of, space_problems
from harness.config.files.yaml_file import YamlFile
from harness.config.parameters import Choice, Fixed, FloatRange, IntRange, Scalar
from harness.config.search_space import MAX_DATA_CONFIGS, SearchSpace, Values
from harness.config.sweep import Sweep
from harness.config.trial.trial_config import TrialConfig
from harness.tracking.run_header import run_name

optuna.logging.set_verbosity(optuna.logging.ERROR)


def space(parameters: dict[str, Any], **rest: Any) -> SearchSpace:
    return SearchSpace(Sweep.model_validate({"name": "x", "parameters": parameters, **rest}))


MIXED = {
    "feature": ["mfcc", "log_mel", "waveform"],
    "mfcc.n_mfcc": {"int": [10, 40], "step": 10},
    "mfcc.cmvn": {"choice": [True, False], "when": {"mfcc.top_db": [80.0]}},
    "mfcc.top_db": [80.0, None],
    "log_mel.n_mels": [40, 80],
    "learning_rate": {"float": [1e-4, 1e-2], "log": True},
    "dropout": {"float": [0.1, 0.4], "step": 0.1},
    "epochs": {"int": [1, 100], "log": True},
    "weight_decay": {"value": 0.1, "when": {"feature": ["mfcc", "log_mel"]}},
    "width": {"float": [0.5, 0.5]},
}
FINITE = {name: form for name, form in MIXED.items() if name not in ("learning_rate", "epochs")}


def belongs(values: Values, searched: SearchSpace) -> bool:
    """Written again from the docs, without the code under test: every active name, a value of its form."""
    for name, form in searched.parameters.items():
        kind = name.split(".")[0] if "." in name else None
        active = kind is None or values.get("feature", "mfcc") == kind
        for parent, wanted in form.when.items():
            active = (
                active
                and parent in values
                and values[parent] in (wanted if isinstance(wanted, list) else [wanted])
            )
        if active != (name in values):
            return False
        if active and not is_value(values[name], form):
            return False
    return set(values) <= set(searched.parameters)


def is_value(value: Scalar, form: Fixed | Choice | IntRange | FloatRange) -> bool:
    if isinstance(form, Fixed):
        return value == form.value
    if isinstance(form, Choice):
        return value in form.choice
    low, high = form.bounds
    assert isinstance(value, int | float)
    steps = (value - low) / form.step if form.step else 0.0
    whole = isinstance(form, FloatRange) or isinstance(value, int)
    return low <= value <= high and whole and abs(steps - round(steps)) < 1e-9


# Order and conditions


def test_parents_stand_before_what_depends_on_them() -> None:
    chain = {
        "dropout": {"choice": [0.1, 0.2], "when": {"width": 1}},
        "width": {"choice": [1, 2], "when": {"kernel_size": 3}},
        "kernel_size": {"choice": [3, 5], "when": {"epochs": 4}},
        "epochs": [4, 5],
        "mfcc.n_mfcc": [20, 40],
        "feature": {"choice": ["mfcc", "log_mel"], "when": {"dropout": 0.1}},
    }
    order = list(space(chain).parameters)
    assert sorted(order) == sorted(chain)
    for child, parent in [
        ("dropout", "width"),
        ("width", "kernel_size"),
        ("kernel_size", "epochs"),
        ("feature", "dropout"),
        ("mfcc.n_mfcc", "feature"),
    ]:
        assert order.index(parent) < order.index(child)


@given(st.permutations(list(MIXED)))
def test_the_order_of_the_file_does_not_matter(order: list[str]) -> None:
    shuffled = space({name: MIXED[name] for name in order})
    assert list(shuffled.parameters) == list(space(MIXED).parameters)


def test_conditions_in_a_circle_are_refused() -> None:
    with pytest.raises(ValueError, match=r"width, dropout depend on each other in a circle"):
        space(
            {
                "width": {"choice": [1, 2], "when": {"dropout": 0.1}},
                "dropout": {"choice": [0.1, 0.2], "when": {"width": 1}},
            }
        )


def test_a_front_end_that_decides_itself_is_a_circle() -> None:
    with pytest.raises(ValueError, match="circle"):
        space({"feature": {"choice": ["mfcc"], "when": {"mfcc.n_mfcc": 20}}, "mfcc.n_mfcc": [20, 40]})


def test_a_parameter_of_an_absent_parent_is_absent() -> None:
    chained = space({
        "epochs": [1, 2],
        "width": {"choice": [1, 2], "when": {"epochs": 1}},
        "dropout": {"choice": [0.1, 0.2], "when": {"width": [1]}},
    })  # fmt: skip
    assert list(chained.combinations() or ()) == [
        {"width": 1, "dropout": 0.1, "epochs": 1},
        {"width": 1, "dropout": 0.2, "epochs": 1},
        {"width": 2, "epochs": 1},
        {"epochs": 2},
    ]


def test_null_is_a_value_and_absence_is_none() -> None:
    searched = space({
        "feature": ["mfcc", "log_mel"],
        "mfcc.top_db": [80, None],
        "width": {"choice": [1, 2], "when": {"mfcc.top_db": None}},
    })  # fmt: skip
    found = list(searched.combinations() or ())
    assert {"feature": "log_mel"} in found
    assert {"feature": "mfcc", "mfcc.top_db": None, "width": 2} in found
    assert len(found) == 4


# What a real study suggests, and the grid


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_study_suggests_only_what_the_space_holds(sampler: str) -> None:
    searched = space(MIXED)
    chosen = (
        optuna.samplers.TPESampler(seed=1, n_startup_trials=8)
        if sampler == "tpe"
        else optuna.samplers.RandomSampler(seed=1)
    )
    study = optuna.create_study(sampler=chosen)
    for number in range(40):
        trial = study.ask()
        values = searched.suggest(trial)
        assert belongs(values, searched)
        searched.config(values)
        study.tell(trial, math.sin(number))


def test_the_random_draws_lie_in_the_space_and_repeat_themselves() -> None:
    searched = space(MIXED)
    assert all(belongs(values, searched) for values in searched.random_values(200))
    assert list(searched.random_values(5)) == list(space(MIXED).random_values(5))
    assert searched.random_configs(5) == [searched.config(values) for values in searched.random_values(5)]
    assert {values["feature"] for values in searched.random_values(200)} == {"mfcc", "log_mel", "waveform"}


def test_combinations_are_the_distinct_active_sets() -> None:
    searched = space(FINITE)
    found = list(searched.combinations() or ())
    assert all(belongs(values, searched) for values in found)
    keys = {json.dumps(values, sort_keys=True) for values in found}
    # mfcc: 4 n_mfcc x (80 dB x 2 cmvn + null) = 12, log_mel: 2, waveform: 1; each with 4 dropouts
    assert len(keys) == len(found) == 4 * (12 + 2 + 1)
    assert len({searched.config(values).fingerprint() for values in found}) == len(found)


def test_every_draw_of_a_finite_space_is_one_of_its_combinations() -> None:
    searched = space(FINITE)
    known = {searched.config(values).fingerprint() for values in searched.combinations() or ()}
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=5))
    for number in range(60):
        trial = study.ask()
        assert searched.config(searched.suggest(trial)).fingerprint() in known
        study.tell(trial, number % 7)


def test_a_queued_combination_comes_back_unchanged() -> None:
    searched = space(FINITE)
    study = optuna.create_study()
    for values in searched.combinations() or ():
        study.enqueue_trial({name: value for name, value in values.items() if name in searched.searched})
        assert searched.suggest(study.ask()) == values


@given(
    low=st.integers(-50, 50).map(lambda n: n / 100),
    step=st.integers(1, 30).map(lambda n: n / 100),
    count=st.integers(1, 20),
)
@settings(max_examples=50)
def test_a_stepped_range_holds_both_ends_and_one_value_a_step(low: float, step: float, count: int) -> None:
    high = round(low + step * count, 6)
    form = FloatRange.model_validate({"float": [low, high], "step": step})
    grid = form.grid()
    assert len(grid) == form.size == count + 1
    assert grid[0] == low
    assert grid[-1] == pytest.approx(high)
    assert all(form.on_grid(value) == value for value in grid)
    assert all(form.on_grid(value + step * 1e-9) == value for value in grid)


def test_only_a_countable_space_has_combinations() -> None:
    assert space({"learning_rate": {"float": [1e-4, 1e-2]}}).combinations() is None
    assert space({"checkpoint_every": {"int": [1, 10**12]}}).combinations() is None
    assert list(space({}).combinations() or ()) == [{}]
    assert list(space({"width": {"float": [0.5, 0.5]}}).combinations() or ()) == [{"width": 0.5}]


def test_what_is_fixed_is_not_searched() -> None:
    searched = space(
        {
            "epochs": 3,
            "width": [0.5],
            "dropout": {"float": [0.2, 0.2]},
            "kernel_size": {"int": [3, 5], "step": 2},
        }
    )
    assert searched.searched == ("kernel_size",)


# Data


def test_arms_on_different_subsets_are_judged_on_all_of_them() -> None:
    searched = space({"subset": ["other", "clean"]})
    configs = [searched.config(values) for values in searched.combinations() or ()]
    assert {config.data.subset for config in configs} == {"clean", "other"}
    assert {config.data.evaluate_on for config in configs} == {("clean", "other")}


def test_evaluate_on_of_the_file_is_kept() -> None:
    searched = space({"subset": ["other", "clean"]}, data={"evaluate_on": ["clean"]})
    assert {config.data.evaluate_on for config in searched.random_configs(8)} == {("clean",)}


def test_a_subset_searched_under_a_condition_is_judged_with_the_one_it_replaces() -> None:
    searched = space(
        {"feature": ["mfcc", "log_mel"], "subset": {"choice": ["other"], "when": {"feature": "mfcc"}}}
    )
    assert {config.data.evaluate_on for config in searched.random_configs(8)} == {("clean", "other")}


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"subset": ["clean", "other"], "train_windows": {"int": [100, 300], "step": 100}},
        {"feature": ["mfcc", "log_mel"], "subset": {"choice": ["other"], "when": {"feature": "mfcc"}}},
        {"subset": ["clean", "other"], "train_windows": {"choice": [100, 200], "when": {"subset": "other"}}},
    ],
)
def test_every_trial_asks_for_data_that_the_gate_has_seen(parameters: dict[str, Any]) -> None:
    searched = space(parameters)
    seen = [config.digest() for config in searched.data_configs()]
    asked = {searched.config(values).data.digest() for values in searched.combinations() or ()}
    assert set(seen) == asked
    assert len(seen) == len(set(seen))


def test_too_many_sets_of_data_are_refused() -> None:
    with pytest.raises(ValueError, match=f"train_windows give more than {MAX_DATA_CONFIGS} sets of data"):
        space({"train_windows": {"int": [2, 10**9]}}).data_configs()


# Corners


def test_the_corners_hold_every_end_of_the_front_ends() -> None:
    searched = space(
        {
            "feature": ["mfcc", "log_mel"],
            "mfcc.n_mfcc": {"int": [10, 40]},
            "mfcc.n_mels": [40, 80, 60],
            "epochs": {"int": [1, 9]},
        }
    )
    found = list(searched.corners())
    assert len(found) == 2 * 3 + 1
    assert all("epochs" not in values for values in found)


RANGES = st.tuples(st.integers(4, 256), st.integers(4, 256)).map(sorted)


@settings(max_examples=40, deadline=None)
@given(RANGES, st.sampled_from([64, 128, 256, 512, 1024, 2048]), RANGES)
def test_a_sweep_that_is_accepted_never_fails_on_its_own_definition(
    mfcc: list[int], n_fft: int, win: list[int]
) -> None:
    parameters = {
        "mfcc.n_mfcc": {"int": mfcc},
        "mfcc.n_fft": n_fft,
        "mfcc.n_mels": 40,
        "mfcc.win_length": {"int": win},
        "mfcc.hop_length": 40,
    }
    file = YamlFile("s.yaml", {"name": "x", "parameters": parameters})
    if problems_of(file):
        return
    sweep = Sweep.model_validate(file.values)
    if space_problems(file, sweep):
        return
    searched = SearchSpace(sweep)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(10):
        searched.config(searched.suggest(study.ask()))


# Names


@pytest.mark.parametrize(
    ("values", "searched", "name"),
    [
        (
            {"feature": "mfcc", "learning_rate": 0.0012345},
            ("feature", "learning_rate"),
            "007 mfcc learning_rate=0.00123",
        ),
        ({"feature": "mfcc", "mfcc.n_mfcc": 20}, ("feature", "mfcc.n_mfcc"), "007 mfcc n_mfcc=20"),
        ({"feature": "log_mel", "epochs": 8}, ("feature", "mfcc.n_mfcc", "epochs"), "007 log_mel epochs=8"),
        ({"subset": "other", "feature": "mfcc"}, ("subset",), "007 other"),
        ({"epochs": 8}, (), "007 mfcc"),
        ({"feature": "log_mel"}, (), "007 log_mel"),
        ({"mfcc.top_db": None}, ("mfcc.top_db",), "007 top_db=None"),
    ],
)
def test_a_run_is_named_by_what_differs(values: Values, searched: tuple[str, ...], name: str) -> None:
    assert run_name(7, values, searched) == name


def test_the_defaults_are_a_configuration_of_the_empty_space() -> None:
    assert space({}).config({}) == TrialConfig()
    assert space({}).data_configs() == [DataConfig()]
    assert list(islice(space({}).corners(), 2)) == [{}]
