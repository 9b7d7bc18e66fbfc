"""One trial in a worker: windows -> features -> fit -> ONNX, with everything the run will show."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from data.plugins import load_plugins
from data.preparation.prepare import Prepared, load_prepared
from harness.config.trial.augmentation_config import AugmentationConfig
from harness.config.trial.trial_config import TrialConfig
from harness.core.errors import UsageError
from harness.core.failpoints import failpoint
from harness.core.files import sync_tree
from harness.core.format import one_line
from harness.core.seeds import derived_seed
from harness.metrics.by_subset import scores_by_subset
from harness.metrics.chance_level import judge_against_chance
from harness.metrics.intervals import clustered_interval, lag1_correlation
from harness.study.storage.trial_spool import TrialSpool
from harness.training.cuda_graph import CaptureError
from harness.training.feature_cache import stored_features
from harness.training.fit import EpochReport, FitResult, Split, fit
from harness.training.job import Job
from harness.training.outputs.model_files import write_model
from harness.training.outputs.run_artifacts import write_outputs
from harness.training.state import of_last_epoch
from models.augmentation import Augmentation
from models.front_ends.build import build_front_end
from models.front_ends.config import FrontEnd
from models.networks.cnn import build_network

if TYPE_CHECKING:
    import numpy.typing as npt


Transform = Callable[[torch.Tensor], torch.Tensor]


class DeviceError(UsageError, RuntimeError):
    """The device cannot be used; never answered by a silent day on the CPU."""


INTERVAL_FIELDS = ("low", "high", "windows", "clusters", "icc", "n_eff")  # of an outcome
NO_GRAPH = "no CUDA graph could be recorded of its steps: they are launched one by one"


def open_device(name: str) -> torch.device:
    """The torch device of a worker, ready for deterministic work on one CPU thread.

    Raises
    ------
    DeviceError
        `cuda` was asked for (or a GPU is there) and torch cannot use it, with torch's reason.
    """
    load_plugins()
    torch.set_num_threads(1)
    if name == "cpu":
        return torch.device("cpu")
    try:
        torch.zeros(1, device="cuda")
    except Exception as error:
        raise DeviceError(
            f"the GPU cannot be used: {one_line(error)}. Use --device cpu, or mend it"
        ) from error
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    # On by default; 10 bits of mantissa are no fp32, in which scores are taken.
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda")


def run_trial(
    job: Job,
    device: torch.device,
    on_epoch: Callable[[int, dict[str, float]], bool],
    should_stop: Callable[[], bool],
    training: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> dict[str, Any]:
    """Train one configuration and write its outputs into the spool.

    Returns the outcome: `state` is complete, pruned or interrupted (the checkpoint stays, nothing else).
    `should_stop` is asked at every step of anything long; `training` is entered for what it can interrupt.
    """
    trial = Trial(job)
    stored = trial.spool.read("outcome")
    if stored is not None:  # trained in an earlier life, and never told
        return stored
    windows = load_training_data(job, trial.config, device, should_stop)
    model = trial.build()
    try:
        with training():
            result = fit(
                model,
                windows.train,
                windows.val,
                trial.config.training,
                seed=job.seed,
                device=device,
                transform=windows.transform,
                augmentation=windows.augmentation,
                on_epoch=lambda epoch: trial.report(epoch, on_epoch),
                checkpoints=trial.spool.folder,
                should_stop=should_stop,
                on_restart=trial.note,
                record=NO_GRAPH not in trial.spool.notes(),
            )
    except CaptureError:
        trial.note(NO_GRAPH)  # for the worker that tries it again: this one can use its GPU no more
        raise
    if result.stopped == "interrupted" or should_stop():  # the outputs are made from the last checkpoint
        return {"state": "interrupted"}
    return trial.finish(result, windows, model, device)


@dataclass(frozen=True)
class TrainingData:
    """What a training reads, and what is done to it; the trials of a stack have it in common.

    transform : stored batch on the device -> features, for windows that are stored as waveforms; None: stored features
    augmentation : of the training windows; None: none
    """

    prepared: Prepared
    train: Split
    val: Split
    transform: Transform | None
    augmentation: Augmentation | None


def load_training_data(
    job: Job, config: TrialConfig, device: torch.device, should_stop: Callable[[], bool]
) -> TrainingData:
    """Open what a job's training reads; `should_stop` is asked again and again while features are made."""
    prepared = load_prepared(Path(job.prepared))
    shape = config.feature.num_features, config.feature.num_frames()
    augmentation = build_augmentation(config.augmentation, *shape)
    raw = augmentation is not None and augmentation.on_waveforms
    cache = Path(job.cache)
    train, transform = load_split(
        prepared, "train", config.feature, cache, device, waveforms=raw, step=should_stop
    )
    val, _ = load_split(prepared, "val", config.feature, cache, device, step=should_stop)
    if config.control == "shuffled_labels":
        train = replace(train, labels=torch.from_numpy(permuted_labels(train.labels.numpy(), job.seed)))
    return TrainingData(prepared, train, val, transform, augmentation)


def build_augmentation(config: AugmentationConfig, num_features: int, num_frames: int) -> Augmentation | None:
    """Make what a training's draws come from, for features of this shape; None where everything is off."""
    ranges = config.model_dump()
    built = Augmentation(num_features, num_frames, share=ranges.pop("augment_share"), **ranges)
    return built if built.on_waveforms or built.on_features else None


class Trial:
    """What of a training is its own, alone or in a stack: its spool, its first weights, its outputs."""

    def __init__(self, job: Job) -> None:
        self.job, self.spool = job, TrialSpool(Path(job.spool))
        self.config = TrialConfig.model_validate(job.config)

    def build(self) -> Any:
        """Make the model, (batch, feature, frame) -> logits (batch, 2), with first weights that are the seed's."""
        torch.manual_seed(self.job.seed)
        feature = self.config.feature
        return build_network(self.config.model, feature.num_features, num_frames=feature.num_frames())

    def report(self, epoch: EpochReport, on_epoch: Callable[[int, dict[str, float]], bool]) -> bool:
        """Store an epoch durably in the spool, then tell of it: who hears of it may rely on it. Whether to end."""
        self.spool.append_epoch(epoch.epoch, epoch.metrics)
        failpoint("worker.spooled")
        return on_epoch(epoch.epoch, epoch.metrics)

    def note(self, text: str) -> None:
        """Keep what the run must say of its training; the worker's log says it too."""
        print(f"trial {self.job.number}: {text}", file=sys.stderr, flush=True)
        self.spool.note(text)

    def finish(
        self, result: FitResult, windows: TrainingData, model: Any, device: torch.device, **more: Any
    ) -> dict[str, Any]:
        """Write the outputs of an ended training, and its outcome, which has `more` too."""
        spool, config, prepared = self.spool, self.config, windows.prepared
        result = of_last_epoch(result) if config.control else result
        outcome = {**summarise(result, prepared, device), **more}
        if config.control:
            right = result.val_logits.argmax(dim=1) == windows.val.labels
            outcome["control"] = asdict(judge_against_chance(right.numpy(), windows.val.clusters))
        model.load_state_dict(result.best_state)
        if result.stopped != "pruned" and not config.control:  # nobody ever wants a control's model
            outcome["promotable"] = write_model(spool, self.job, config, prepared, result, model)
        outcome["sha256"] = write_outputs(spool, config, prepared, result, windows.train.labels)
        outcome["notes"] = spool.notes()
        sync_tree(spool.outputs)  # the outcome speaks of them
        failpoint("worker.outputs")
        spool.write("outcome", outcome)
        failpoint("worker.outcome")
        return outcome


def load_split(
    prepared: Prepared,
    split: Any,
    front_end: FrontEnd,
    cache: Path,
    device: torch.device,
    *,
    waveforms: bool = False,
    step: Callable[[], object] = lambda: None,
) -> tuple[Split, Transform | None]:
    """A split's stored features; for waveforms the int16 windows (window, sample), and the front end that reads them.

    `waveforms` asks for them, as an augmentation of waveforms needs them; the front end `waveform` always does.
    `step` is called again and again while they are made, here or by another process.
    """
    part = prepared.splits[split]
    labels = torch.from_numpy(part.manifest.labels())
    clusters = part.manifest.clusters()
    if waveforms or front_end.kind == "waveform":
        module = build_front_end(front_end).to(device).eval()
        return Split(torch.from_numpy(part.windows()), labels, clusters, f"{part.folder}"), module
    stored = stored_features(part, front_end, cache, step)
    key = f"{part.folder} {front_end.digest()}"
    return Split(torch.from_numpy(stored), labels, clusters, key), None


def summarise(result: FitResult, prepared: Prepared, device: torch.device) -> dict[str, Any]:
    """What a trial is told and judged by, all of the epoch that holds the score: the content of its outcome.json.

    ``score`` is in [0, 1]; ``interval`` is that of the validation accuracy (`clustered_interval`), ``lag1`` the
    correlation of its epochs, from which the luck in the best one is told; ``val_accuracy`` and ``curves`` have all
    epochs.
    """
    val = prepared.splits["val"].manifest
    logits, labels = result.val_logits.numpy(), val.labels()
    interval = clustered_interval(logits.argmax(axis=1) == labels, val.clusters())
    at_best = result.reports[result.best_epoch].metrics
    series = [report.metrics["val/balanced_accuracy"] for report in result.reports]
    return {
        "state": "pruned" if result.stopped == "pruned" else "complete",
        "score": result.score,
        "best_epoch": result.best_epoch,
        "epochs": len(result.reports),
        "at_best": at_best,
        "interval": {name: getattr(interval, name) for name in INTERVAL_FIELDS},
        "by_subset": scores_by_subset(logits.argmax(axis=1) == labels, val),
        "label_map": prepared.label_map.digest,
        "lag1": lag1_correlation(series),
        "val_accuracy": [report.metrics["val/accuracy"] for report in result.reports],
        "curves": {
            split: [report.metrics[f"{split}/balanced_accuracy"] for report in result.reports]
            for split in ("train", "val")
        },
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "windows_per_s": float(np.median([report.metrics["windows_per_s"] for report in result.reports])),
    }


def permuted_labels(labels: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """The labels (window,) in another order: both classes keep their counts, no window keeps its meaning."""
    generator = np.random.Generator(np.random.Philox(derived_seed("shuffled_labels", seed)))
    return labels[generator.permutation(len(labels))]
