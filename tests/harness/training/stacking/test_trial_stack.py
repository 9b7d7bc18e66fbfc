"""A stack in a worker: each trial leaves what it leaves alone, and fails alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.config import DataConfig
from data.preparation.prepare import Prepared, prepare
from harness.config.trial.trial_config import TrialConfig
from harness.study.storage.trial_spool import CHECKPOINT, TrialSpool
from harness.study.trials import TrialSummary
from harness.tracking.run_verdict import verdict_of
from harness.training import learner
from harness.training.checkpoint import read_checkpoint
from harness.training.cuda_graph import CaptureError
from harness.training.fit import DivergedError
from harness.training.job import Job
from harness.training.stacking import trial_stack
from harness.training.stacking.trial_stack import run_stack
from harness.training.trial import NO_GRAPH, Trial, run_trial
from models.checkpoints import load_weights
from models.networks.stacked import StackError
from models.onnx_io.session import open_session, run_onnx

CPU = torch.device("cpu")
DATA = DataConfig(corpus="demo", train_windows=120, val_windows=96, test_windows=96)
HYPER = ((3e-4, 0.0), (1e-3, 0.05), (3e-3, 0.01), (1e-3, 0.2), (2e-3, 0.0))  # rate, weight decay
PRUNED, SICK = 2, 3
FULL = RuntimeError(
    "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
)
How = dict[str, Any] | Exception


@pytest.fixture(scope="module")
def prepared(demo_cache: Path) -> Prepared:
    return prepare(DATA, data_root=None, cache=demo_cache)


def config(number: int, **changes: Any) -> TrialConfig:
    rate, decay = HYPER[number]
    training = {"epochs": 3, "learning_rate": rate, "weight_decay": decay, "train_score_windows": 32}
    given = {
        "data": DATA.model_dump(),
        "feature": {"kind": "mfcc"},
        "model": {"width": 0.0625},
        "training": training,
    }
    return TrialConfig.model_validate({**given, "stack": 4, **changes})


def jobs(prepared: Prepared, folder: Path, count: int) -> list[Job]:
    made = []
    for number in range(count):
        spool = TrialSpool(folder / str(number))
        spool.folder.mkdir(parents=True, exist_ok=True)
        spool.write("trial", {"run_name": str(number)})
        plain = config(number).model_dump(mode="json")
        cache = str(prepared.folder.parents[1])
        specification = {"run_id": f"small/{number}", "versions": {}}
        made.append(Job(number, plain, str(prepared.folder), str(spool.folder), cache, 3, specification))
    return made


def goes_on(job: Job, epoch: int, metrics: dict[str, float]) -> bool:
    return job.number == PRUNED and epoch == 0


def all_end(job: Job, epoch: int, metrics: dict[str, float]) -> bool:
    return True  # pruned after an epoch, for they export nothing


def stacked(todo: Sequence[Job], on_epoch: Any = goes_on, should_stop: Any = lambda: False) -> dict[int, How]:
    ended: dict[int, How] = {}

    def on_end(job: Job, how: How) -> None:
        assert job.number not in ended
        ended[job.number] = how

    run_stack(todo, CPU, on_epoch, on_end, should_stop)
    return ended


def epochs(job: Job) -> list[int]:
    return [event["epoch"] for event in TrialSpool(Path(job.spool)).epochs()]


@pytest.fixture
def one_sick(monkeypatch: pytest.MonkeyPatch) -> None:
    build = Trial.build

    def sick(trial: Trial) -> Any:
        model = build(trial)
        if trial.job.number == SICK:
            with torch.no_grad():
                next(model.parameters()).fill_(math.inf)
        return model

    monkeypatch.setattr(Trial, "build", sick)


def test_each_leaves_what_it_leaves_alone(prepared: Prepared, tmp_path: Path, one_sick: None) -> None:
    left, right = jobs(prepared, tmp_path / "stacked", 4), jobs(prepared, tmp_path / "alone", 4)
    found = stacked(left)
    assert isinstance(found[SICK], DivergedError)
    with pytest.raises(DivergedError) as raised:
        run_trial(right[SICK], CPU, partial(goes_on, right[SICK]), lambda: False)
    assert str(found[SICK]) == str(raised.value)
    for number in (0, 1, PRUNED):
        ours, own = (
            found[number],
            run_trial(right[number], CPU, partial(goes_on, right[number]), lambda: False),
        )
        assert isinstance(ours, dict)
        assert (ours["state"], ours["stack"]) == ("pruned" if number == PRUNED else "complete", 4)
        assert ours.keys() - {"stack"} == own.keys()
        assert (ours["state"], ours["best_epoch"], ours["epochs"]) == (
            own["state"],
            own["best_epoch"],
            own["epochs"],
        )
        _same_events(left[number], right[number])
        _same_files(Path(left[number].spool), Path(right[number].spool), rate=HYPER[number][0])
    assert [epochs(job) for job in left] == [[0, 1, 2], [0, 1, 2], [0], []]


def _same_events(left: Job, right: Job) -> None:
    for one, other in zip(*(TrialSpool(Path(job.spool)).epochs() for job in (left, right)), strict=True):
        assert one["metrics"].keys() == other["metrics"].keys()
        assert one["metrics"]["windows_per_s"] > 0
        for name in one["metrics"].keys() - {
            "windows_per_s"
        }:  # a score may flip at a logit of 0, a loss may not
            assert one["metrics"][name] == pytest.approx(other["metrics"][name], rel=1e-3, abs=2e-2), name
        assert one["metrics"]["val/loss"] == pytest.approx(other["metrics"]["val/loss"], rel=1e-3)


def _same_files(left: Path, right: Path, *, rate: float) -> None:
    names = [sorted(path.relative_to(one).as_posix() for path in one.rglob("*.*")) for one in (left, right)]
    assert names[0] == names[1]
    models = [one / "outputs/artifacts/model/model.onnx" for one in (left, right)]
    if models[0].exists():
        waves = np.random.default_rng(0).normal(0, 0.1, (4, 48000)).astype(np.float32)
        one, other = (run_onnx(open_session(model), waves) for model in models)
        np.testing.assert_allclose(one, other, rtol=1e-2, atol=1e-2)
        mine, own = (load_weights(model.with_name("weights.pt")) for model in models)
        for name, tensor in mine.items():
            wanted = own[name].double()
            # AdamW steps by the rate however small a gradient is: one that is all rounding may go either way.
            half_a_step = 0.5 * rate * math.sqrt(wanted.numel())
            assert float((tensor.double() - wanted).norm()) <= 1e-2 * float(wanted.norm()) + half_a_step, name
    if (left / CHECKPOINT).exists():  # of different epochs: only a stack writes one after the last
        one, other = (read_checkpoint(folder / CHECKPOINT) for folder in (left, right))
        assert one["identity"] == other["identity"]


@pytest.mark.parametrize("error", [FULL, StackError("Odd (odd) cannot be stacked")])
def test_what_cannot_be_one_stack_trains_in_smaller_ones(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    fit_stack, sizes = trial_stack.fit_stack, []

    def fits_two(members: Any, *arguments: Any, **named: Any) -> Any:
        sizes.append(len(members))
        if len(members) > 2:
            raise error
        return fit_stack(members, *arguments, **named)

    monkeypatch.setattr(trial_stack, "fit_stack", fits_two)
    todo = jobs(prepared, tmp_path, 5)
    ended = stacked(todo, all_end)
    assert sizes == [5, 2, 3, 2]  # and one alone
    outcomes = [ended[number] for number in range(5)]
    assert [one["state"] for one in outcomes if isinstance(one, dict)] == ["pruned"] * 5
    assert [one.get("stack") for one in outcomes if isinstance(one, dict)] == [2, 2, None, 2, 2]
    for outcome in outcomes:
        assert isinstance(outcome, dict)
        assert str(error) in outcome["notes"][0]
    assert [epochs(job) for job in todo] == [[0]] * 5


def test_what_one_cannot_write_is_its_own_failure(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, error = Trial.finish, OSError(5, "Input/output error")

    def broken(trial: Trial, *arguments: Any, **named: Any) -> Any:
        if trial.job.number == 0:
            raise error
        return finish(trial, *arguments, **named)

    monkeypatch.setattr(Trial, "finish", broken)
    todo = jobs(prepared, tmp_path, 2)
    ended = stacked(todo, all_end)
    assert ended[0] is error
    assert isinstance(ended[1], dict)
    assert stacked(todo[1:], all_end) == {1: ended[1]}  # stored: told again, not trained again
    error = RuntimeError("CUDA error: an illegal memory access was encountered")  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="CUDA error"):  # nobody can go on in this process
        stacked(jobs(prepared, tmp_path / "again", 2), all_end)


def test_interrupted_each_goes_on_from_its_checkpoint(prepared: Prepared, tmp_path: Path) -> None:
    todo, heard = jobs(prepared, tmp_path, 2), []

    def on_epoch(job: Job, epoch: int, metrics: dict[str, float]) -> bool:
        heard.append((job.number, epoch))
        return epoch == 1

    stop = lambda: len(heard) == 2  # noqa: E731
    assert stacked(todo, on_epoch, stop) == {number: {"state": "interrupted"} for number in (0, 1)}
    ended = stacked(todo, on_epoch)
    assert heard == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert all(isinstance(how, dict) and how["state"] == "pruned" for how in ended.values())
    assert [epochs(job) for job in todo] == [[0, 1]] * 2


def test_the_run_says_how_many_it_was_trained_with() -> None:
    outcome = {
        "interval": dict.fromkeys(("low", "high", "clusters", "n_eff", "windows"), 1), "at_best": {"val/predicted_positive": 1.0},
        "score": 0.5, "best_epoch": 0, "device": "cpu", "sha256": {}, "stack": 3,
    }  # fmt: skip
    summary = TrialSummary(4, "complete", "4", 0.5, 2, "", {}, outcome, {}, "f")
    assert verdict_of(summary, {})["tags"]["harness.stack"] == "3"


def test_what_may_be_stacked_shares_all_but_rate_and_decay() -> None:
    assert len({config(number).stack_key() for number in range(5)}) == 1
    others = [
        config(0, feature={"kind": "log_mel"}), config(0, model={"width": 0.125}),
        config(0, augmentation={"freq_mask": 2}), config(0, training={"batch_size": 16}),
    ]  # fmt: skip
    assert len({one.stack_key() for one in (config(0), *others)}) == 5


def test_a_stack_of_one_is_no_stack() -> None:
    plain = config(0, stack=1)
    assert (
        plain.fingerprint() == TrialConfig.model_validate(plain.model_dump(exclude={"stack"})).fingerprint()
    )
    assert plain.fingerprint() != config(0).fingerprint()
    assert plain.flat() == {name: value for name, value in config(0).flat().items() if name != "stack"}


class Unrecordable:
    """In the place of a recorded step, where there is no GPU to record on."""

    def __init__(self, *parts: Any) -> None:
        del parts

    def __call__(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        raise CaptureError(RuntimeError("operation not permitted when stream is capturing"))


def test_a_trial_whose_steps_could_not_be_recorded_launches_them_when_it_is_tried_again(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner, "should_capture", lambda device, features: True)
    monkeypatch.setattr(learner, "GraphedStep", Unrecordable)
    (job,) = jobs(prepared, tmp_path, 1)
    with pytest.raises(CaptureError):
        run_trial(job, CPU, partial(all_end, job), lambda: False)
    assert run_trial(job, CPU, partial(all_end, job), lambda: False)["notes"] == [NO_GRAPH]
