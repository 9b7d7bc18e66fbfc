"""A long study's sampler sees few trials: the best, an even sample of the others, all that run."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from harness.study.sampling import bounded_tpe
from harness.study.sampling.bounded_tpe import BEST, BoundedTPE, subsample_trials

SPACE: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-4, 1e-1, log=True),
    "feature": CategoricalDistribution(("mfcc", "log_mel")),
}
STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING)


def trial(number: int, state: TrialState, score: float) -> FrozenTrial:
    made = create_trial(
        state=state,
        value=score if state == TrialState.COMPLETE else None,
        params={"rate": 1e-4 + 0.09 * score, "feature": "mfcc" if score < 0.5 else "log_mel"},
        distributions=SPACE,
        intermediate_values={0: score, number % 7: score} if state == TrialState.PRUNED else {},
    )
    made.number = number
    return made


def asked(kind: type[TPESampler], told: dict[str, Any], trials: list[FrozenTrial]) -> dict[str, object]:
    storage = InMemoryStorage()
    sampler = BoundedTPE(storage, **told) if kind is BoundedTPE else kind(**told)
    study = optuna.create_study(direction="maximize", sampler=sampler, storage=storage)
    study.add_trials(trials)
    one = study.ask()
    return {name: one._suggest(name, space) for name, space in SPACE.items()}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("liar", [False, True])
def test_of_a_short_study_it_is_optunas_to_the_last_bit(liar: bool) -> None:
    trials = [trial(number, STATES[number % 3], (number * 37 % 101) / 101) for number in range(60)]
    told = {"seed": 3, "n_startup_trials": 5, "multivariate": True, "group": True, "constant_liar": liar}
    assert asked(BoundedTPE, told, trials) == asked(TPESampler, told, trials)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("liar", [False, True])
def test_of_a_long_study_it_is_optunas_of_the_few(monkeypatch: pytest.MonkeyPatch, liar: bool) -> None:
    monkeypatch.setattr(bounded_tpe, "SHOWN", 40)
    trials = [trial(number, STATES[number % 3], (number * 37 % 101) / 101) for number in range(300)]
    told = {"seed": 3, "n_startup_trials": 5, "multivariate": True, "group": True, "constant_liar": liar}
    shown = subsample_trials(trials, maximize=True)
    assert asked(BoundedTPE, told, trials) == asked(TPESampler, told, shown)
    assert asked(BoundedTPE, told, trials) != asked(TPESampler, told, trials)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STATES), st.floats(0, 1)), max_size=150), st.booleans())
def test_the_best_and_the_running_are_among_them_and_the_others_lie_evenly(
    given_: list[tuple[TrialState, float]], maximize: bool
) -> None:
    trials = [trial(number, state, score) for number, (state, score) in enumerate(given_)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounded_tpe, "SHOWN", 50)
        shown = subsample_trials(trials, maximize=maximize)
    ended = [one for one in trials if one.state in STATES[:2]]
    if len(ended) <= 50:
        assert shown == trials
        return
    numbers = [one.number for one in shown]
    assert numbers == sorted(set(numbers))
    kept = [one for one in shown if one.state in STATES[:2]]
    assert len(kept) == 50
    assert [one for one in shown if one.state == TrialState.RUNNING] == [
        one for one in trials if one.state == TrialState.RUNNING
    ]
    scores = sorted(
        (one.values[0] for one in ended if one.values and one.state == TrialState.COMPLETE), reverse=maximize
    )
    among = sorted(
        (one.values[0] for one in kept if one.values and one.state == TrialState.COMPLETE), reverse=maximize
    )
    assert among[: min(BEST, len(scores))] == scores[:BEST]
    longest = max(
        sum(one not in kept for one in ended[start : start + 4 * len(ended) // 25])
        for start in range(len(ended) - 4 * len(ended) // 25 + 1)
    )
    assert longest < 4 * len(ended) // 25  # no long stretch of the study is left out
