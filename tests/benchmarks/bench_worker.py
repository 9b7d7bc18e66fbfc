"""The product's worker with a clock in it: `python -m tests.benchmarks.bench_worker FD cpu`.

Every trial is served by `harness.execution.executors.worker` as ever. Variables of the environment say what differs:

    BENCH_STAGES        file that gets one JSON line a trial: {stage: [CPU seconds, wall seconds]}
    BENCH_THREADS       threads of arithmetic, where it is not the one thread of a worker (the naive packing)
    BENCH_ZERO_STEPS    leave the network's arithmetic out: no step is taken, and logits come from a generator
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.stages import Stages

STAGES, THREADS, ZERO_STEPS = "BENCH_STAGES", "BENCH_THREADS", "BENCH_ZERO_STEPS"
FIGURES = "figures"


def fixed_logits(windows: int) -> Any:
    """Logits (window, 2) that nobody computed: the same for every caller, in every process."""
    import torch

    return torch.randn(windows, 2, generator=torch.Generator().manual_seed(windows))


def _take_no_steps() -> None:
    """One epoch that ends as ever (scores, snapshot, event, checkpoint), without a forward or backward pass."""
    from harness.training import fit

    def steps_of(self: Any, place: Any, augmented: Any) -> Iterator[None]:
        del self, augmented
        place.seconds = 1.0  # the rate, windows_per_s, is nobody's here
        yield from ()

    def logits(self: Any, split: Any, index: Any, epoch: int) -> Any:
        del self, split, epoch
        return fixed_logits(len(index))

    fit.Training.steps_of = steps_of  # type: ignore[method-assign]
    fit.Training.logits = logits  # type: ignore[method-assign]


def watch_worker(stages: Stages) -> None:
    """Count a trial's parts in this process."""
    from PIL import Image

    from harness.study.storage import trial_spool
    from harness.training import checkpoint, fit, learner, trial
    from harness.training.outputs import model_files, run_artifacts

    for name, owner, attributes in (
        ("manifests, digests", trial, ("load_prepared",)),
        ("features opened", trial, ("load_split",)),
        ("statistics", trial, ("summarise",)),
        ("model made", trial.Trial, ("build",)),
        ("weights.pt", model_files, ("save_weights",)),
        ("ONNX by template", model_files, ("export_onnx",)),
        (FIGURES, run_artifacts, ("label_histogram_image", "roc_figure", "confusion_figure")),
        (FIGURES, Image.Image, ("save",)),
        ("histograms, predictions", run_artifacts, ("write_evidence",)),
        ("sha256 of outputs", run_artifacts, ("sha256_of",)),
        ("outputs synced", trial, ("sync_tree",)),
        ("fit, around the steps", trial, ("fit",)),
        ("steps", learner.Learner, ("step",)),
        ("evaluation", fit.Training, ("logits",)),
        ("metrics", fit, ("binary_metrics",)),
        ("snapshot of weights", fit, ("copy_state",)),
        ("optimizer made", learner.Learner, ("__init__",)),
        ("checkpoint", checkpoint.Checkpoints, ("write",)),
        ("epoch spooled", trial_spool.TrialSpool, ("append_epoch",)),
        ("json, spooled", trial_spool.TrialSpool, ("write",)),
        ("trial, around all", trial, ("run_trial",)),
    ):
        for attribute in attributes:
            stages.watch(name, owner, attribute)


def _report_each(stages: Stages, path: Path) -> None:
    """Write the stages of each trial to a file once it ended."""
    from harness.training import trial

    run = trial.run_trial

    def run_trial(*arguments: Any, **named: Any) -> Any:
        stages.taken()
        try:
            return run(*arguments, **named)
        finally:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(stages.taken()) + "\n")

    trial.run_trial = run_trial


def _use_threads(count: int) -> None:
    import torch

    from harness.training import trial

    open_device: Callable[[str], Any] = trial.open_device

    def opened(name: str) -> Any:
        device = open_device(name)
        torch.set_num_threads(count)
        return device

    trial.open_device = opened


def main() -> None:
    """Serve jobs until the coordinator closes the socket."""
    if os.environ.get(THREADS):
        _use_threads(int(os.environ[THREADS]))
    if os.environ.get(ZERO_STEPS):
        _take_no_steps()
    if os.environ.get(STAGES):
        stages = Stages()
        watch_worker(stages)
        _report_each(stages, Path(os.environ[STAGES]))
    from harness.execution.executors import worker

    worker.main()


if __name__ == "__main__":
    from harness.core.files import private_files
    from harness.core.redaction import redact_output

    redact_output()
    with private_files():
        main()
