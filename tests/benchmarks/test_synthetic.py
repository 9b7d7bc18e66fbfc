from pathlib import Path
from typing import Any, cast

import pytest

from harness.execution.executors.protocol import EpochDone, TrialDone
from harness.training.job import Job
from tests.benchmarks.b10_scale import _timed, _with
from tests.benchmarks.synthetic import SyntheticExecutor, accuracy, sweep_of


def job(number: int, rate: float = 0.003, epochs: int = 5) -> Job:
    config = {"training": {"learning_rate": rate, "epochs": epochs}}
    return Job(number, config, "", "", "", 0, {})


def lived(executor: SyntheticExecutor, one: Job, stop_after: int) -> list[Any]:
    """The events of a trial that is told to stop after so many epochs."""
    executor.submit(one)
    seen: list[Any] = []
    while not executor.idle or not seen:
        for event in executor.poll(0.0):
            seen.append(event)
            if isinstance(event, EpochDone):
                executor.reply(one.number, stop=event.epoch + 1 == stop_after)
    return [*seen, *executor.poll(0.0)]


@pytest.mark.parametrize(("stop_after", "state", "epochs"), [(99, "complete", 5), (2, "pruned", 2)])
def test_a_synthetic_trial_lives_as_a_real_one(stop_after: int, state: str, epochs: int) -> None:
    *reports, done = lived(SyntheticExecutor(), job(3), stop_after)
    assert [event.epoch for event in reports] == list(range(epochs))
    outcome = cast(TrialDone, done).outcome
    assert (outcome["state"], outcome["epochs"], len(outcome["curves"]["val"])) == (state, epochs, epochs)
    assert outcome["score"] == max(outcome["curves"]["val"])


def test_the_objective_repeats_itself_and_has_a_best_rate() -> None:
    config = {"training": {"learning_rate": 0.003}}
    assert accuracy(config, 3) == accuracy(config, 3)
    assert accuracy(config, 20) > accuracy({"training": {"learning_rate": 0.1}}, 20) + 0.05


def test_a_study_grows_by_another_sampler_and_stays_the_same_study(tmp_path: Path) -> None:
    sweep = sweep_of(10)
    grown = _with(sweep, 20, "random")
    assert (grown.budget.trials, grown.sampler.type, sweep.sampler.type) == (20, "random", "tpe")


def test_calls_are_timed_whatever_they_do() -> None:
    class Owner:
        def act(self, fail: bool) -> str:
            if fail:
                raise ValueError
            return "done"

    owner = Owner()
    seconds = _timed(owner, "act")
    assert owner.act(False) == "done"
    with pytest.raises(ValueError):  # noqa: PT011 - its own
        owner.act(True)
    assert len(seconds) == 2
