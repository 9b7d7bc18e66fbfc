"""What a worker was given: a trial alone, or several as one network.

    windows, once -> fit_stack -> each, as it ends: ONNX, figures, outcome
                        '-- too large for the memory, or no stack at all: one half of them, then the other

Each leaves what it leaves alone, in a spool of its own.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch

from harness.training.failures import failure_kind, is_fatal_cuda_error
from harness.training.fit import FitResult
from harness.training.job import Job
from harness.training.stacking.fit_stack import Member, Outcome, fit_stack
from harness.training.trial import TrainingData, Trial, load_training_data, run_trial
from harness.training.window_split import gpu_cache
from models.networks.stacked import StackError

OnEpoch = Callable[[Job, int, dict[str, float]], bool]
OnEnd = Callable[[Job, dict[str, Any] | Exception], None]


def run_stack(
    jobs: Sequence[Job],
    device: torch.device,
    on_epoch: OnEpoch,
    on_end: OnEnd,
    should_stop: Callable[[], bool],
    training: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Train configurations of one `TrialConfig.stack_key` at once; parameters as those of `run_trial`.

    `on_end` hears of each job once, as soon as it ended: its outcome, or what it failed of. What is raised failed all
    the jobs that it has not heard of.
    """
    left = {job.number: job for job in jobs}

    def ended(job: Job, how: dict[str, Any] | Exception) -> None:
        if isinstance(how, Exception) and is_fatal_cuda_error(how):
            raise how  # nobody else can use this process either
        del left[job.number]
        on_end(job, how)

    for job in jobs:
        stored = Trial(job).spool.read("outcome")
        if stored is not None:  # trained in an earlier life, and never told
            ended(job, stored)
    if len(left) > 1:
        try:
            _train(list(left.values()), device, on_epoch, ended, should_stop, training)
        except Exception as error:
            if not (isinstance(error, StackError) or failure_kind(error) == "out_of_memory"):
                raise
            for job in left.values():
                Trial(job).note(f"a stack of {len(jobs)} was given up ({error}); it trains in a smaller one")
    elif left:
        (job,) = left.values()
        try:
            told = run_trial(job, device, partial(on_epoch, job), should_stop, training)
        except Exception as error:
            ended(job, error)
        else:
            ended(job, told)
    rest = list(left.values())
    if rest:
        _give_memory_back(device)  # outside of the handler: its error holds the whole stack
    for part in (rest[: len(rest) // 2], rest[len(rest) // 2 :]):
        if part:
            run_stack(part, device, on_epoch, ended, should_stop, training)


def _train(
    jobs: Sequence[Job],
    device: torch.device,
    on_epoch: OnEpoch,
    ended: OnEnd,
    should_stop: Callable[[], bool],
    training: Callable[[], AbstractContextManager[None]],
) -> None:
    trials = [Trial(job) for job in jobs]
    windows = load_training_data(jobs[0], trials[0].config, device, should_stop)

    def member(trial: Trial) -> Member:
        model = trial.build()

        def end(outcome: Outcome) -> None:
            try:
                told = _outputs(trial, outcome, windows, model, device, len(jobs), should_stop)
            except Exception as error:  # its own failure: the others go on
                ended(trial.job, error)
            else:
                ended(trial.job, told)

        return Member(
            model,
            trial.config.training,
            trial.job.seed,
            on_epoch=lambda epoch: trial.report(epoch, partial(on_epoch, trial.job)),
            checkpoints=trial.spool.folder,
            on_restart=trial.note,
            on_end=end,
        )

    with training():
        fit_stack(
            [member(trial) for trial in trials],
            windows.train,
            windows.val,
            device=device,
            transform=windows.transform,
            augmentation=windows.augmentation,
            should_stop=should_stop,
        )


def _outputs(
    trial: Trial,
    outcome: Outcome,
    windows: TrainingData,
    model: Any,
    device: torch.device,
    members: int,
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    if not isinstance(outcome, FitResult):
        raise outcome
    if outcome.stopped == "interrupted" or should_stop():  # the outputs are made from the last checkpoint
        return {"state": "interrupted"}
    return trial.finish(outcome, windows, model, device, stack=members)


def _give_memory_back(device: torch.device) -> None:
    gpu_cache.forget()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
