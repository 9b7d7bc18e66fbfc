from typing import Any

import optuna
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from harness.study.ask import OOM_RETRY_OF, RETRY_BATCH_SIZE, TrialCounts, is_abandoned, is_queued

STATES = (TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING)


def trial(number: int, state: TrialState, attributes: dict[str, Any]) -> optuna.trial.FrozenTrial:
    value = 0.5 if state == TrialState.COMPLETE else None
    return optuna.trial.FrozenTrial(number, state, value, None, None, {}, {}, attributes, {}, {}, number)


@st.composite
def studies(draw: st.DrawFn) -> list[optuna.trial.FrozenTrial]:
    trials = []
    for number in range(draw(st.integers(0, 12))):
        attributes: dict[str, Any] = {}
        if draw(st.booleans()):
            attributes["fingerprint"] = "f"
        if draw(st.booleans()):
            attributes[RETRY_BATCH_SIZE] = 8
        if number and draw(st.booleans()):
            attributes[OOM_RETRY_OF] = draw(st.integers(0, number - 1))
        if draw(st.integers(0, 3)) == 0:
            attributes["state"] = "abandoned"
        trials.append(trial(number, draw(st.sampled_from(STATES)), attributes))
    return trials


@settings(max_examples=60, deadline=None)
@given(trials=studies(), seen=st.lists(st.integers(0, 12)))
def test_counting_what_has_ended_once_is_counting_everything_each_time(
    trials: list[optuna.trial.FrozenTrial], seen: list[int]
) -> None:
    """Whatever part of the study was there when it was counted before."""
    tally = TrialCounts()
    for length in sorted(seen):
        tally.skip_finished(trials[:length])
    asked = sum(not is_abandoned(one) for one in trials if not is_queued(one))
    begun = {one.user_attrs.get(OOM_RETRY_OF) for one in trials if not is_abandoned(one)}
    waiting = [one.number for one in trials if RETRY_BATCH_SIZE in one.user_attrs and one.number not in begun]
    assert tally.number_asked(trials) == asked
    assert tally.next_oom_retry(trials) == (waiting[0] if waiting else None)
    assert all(one.state.is_finished() for one in trials[: tally.counted])
