"""B1, B5 and B6 on a device: a bare loop, this project's trial and its stacks on the same windows."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch.amp.grad_scaler import GradScaler
from torch.nn import functional as F

from harness.config.trial.training_config import TrainingConfig
from harness.core.seeds import epoch_seed
from harness.training.fit import EpochReport, FitResult, Split, fit, learning_rate_at, mixed_precision
from harness.training.stacking.fit_stack import Member, fit_stack
from harness.training.window_split import scored_windows
from models.networks.cnn import FastDiarizationModel, build_network
from models.networks.config import CnnConfig
from tests.benchmarks.gpu_ceilings import Amount, Ceilings, floor_s, synchronise
from tests.benchmarks.result import Result, judged
from tests.benchmarks.rounds import Arm, Estimate, Reading, interleaved, measured, wall

SEED = 5
ACCURACY = "val/balanced_accuracy"
PART_S = 40.0  # of rounds; a part ends within twice as long and a round
AGREEMENT = 0.1  # of final accuracies, on windows that every arm learns


@dataclass(frozen=True)
class Case:
    """A network with windows to learn from: label 1 is louder in the first half of its frames."""

    name: str
    rows: int
    frames: int
    windows: int
    val_windows: int
    width: CnnConfig
    config: TrainingConfig

    def split(self, windows: int, seed: int, device: torch.device) -> Split:
        """Resident windows, both classes."""
        generator = torch.Generator(device).manual_seed(seed)
        labels = torch.arange(windows) % 2
        features = torch.randn(windows, self.rows, self.frames, generator=generator, device=device)
        features[1::2, :, : self.frames // 2] *= 2
        return Split(features, labels.to(device), [""] * windows)

    def model(self, seed: int = SEED) -> FastDiarizationModel:
        """Make a fresh network, the same for the same seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_network(self.width, self.rows, num_frames=self.frames)

    @property
    def amount(self) -> Amount:
        """Windows learned from and scored, an epoch."""
        scored = min(self.config.train_score_windows, self.windows)
        return Amount(self.windows, self.val_windows + scored)


def cases(*, tiny: bool) -> dict[str, Case]:
    """The notebooks' two networks, with their proportions of windows: 10,000 learned from, 1,000 and 512 scored."""
    if tiny:
        small, config = CnnConfig(width=0.0625), TrainingConfig(epochs=2, batch_size=4, train_score_windows=4)
        return {
            "raw": Case("raw", 1, 3_200, 8, 32, small, config),
            "MFCC": Case("MFCC", 80, 33, 16, 32, small, config),
        }
    raw = TrainingConfig(epochs=2, batch_size=32, train_score_windows=102)
    mfcc = TrainingConfig(epochs=3, batch_size=32, train_score_windows=512)
    return {
        "raw": Case("raw", 1, 48_000, 2_000, 200, CnnConfig(), raw),
        "MFCC": Case("MFCC", 80, 301, 10_000, 1_000, CnnConfig(), mfcc),
    }


def bare_loop(case: Case, train: Split, val: Split, device: torch.device) -> float:
    """Train as one does by hand, scores each epoch included, with the harness' draws; the final accuracy."""
    config, model = case.config, case.model().to(device)
    dtype = mixed_precision(device, config)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    scaler = GradScaler(device.type, enabled=dtype == torch.float16)
    steps = len(train) // config.batch_size
    scored = scored_windows(train.labels.cpu(), config.train_score_windows).to(device)
    accuracy = 0.0
    for epoch in range(config.epochs):
        torch.manual_seed(epoch_seed(SEED, epoch, "draws"))
        generator = torch.Generator().manual_seed(epoch_seed(SEED, epoch, "order"))
        order = torch.randperm(len(train), generator=generator).to(device)
        model.train()
        for step in range(steps):
            index = order[step * config.batch_size : (step + 1) * config.batch_size]
            optimizer.param_groups[0]["lr"] = learning_rate_at(
                epoch * steps + step, config.epochs * steps, config
            )
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                loss = F.cross_entropy(model(train.features[index]), train.labels[index])
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)
            scaler.update()
        evaluate(model, train.features[scored], train.labels[scored], config.batch_size)
        accuracy = evaluate(model, val.features, val.labels, config.batch_size)
    return accuracy


def evaluate(model: torch.nn.Module, features: torch.Tensor, labels: torch.Tensor, batch: int) -> float:
    """Balanced accuracy in fp32."""
    model.eval()
    with torch.inference_mode():
        guess = torch.cat([model(part) for part in torch.split(features, batch)]).argmax(dim=1)
        recalls = [(guess[labels == label] == label).double().mean() for label in (0, 1)]
    return float(sum(recalls)) / 2


def logged(file: IO[str]) -> Callable[[EpochReport], bool]:
    """Write each epoch's metrics out, as a trial does."""

    def report(epoch: EpochReport) -> bool:
        file.write(json.dumps({"epoch": epoch.epoch, **epoch.metrics}) + "\n")
        file.flush()
        return False

    return report


def trial(
    case: Case, train: Split, val: Split, device: torch.device, config: TrainingConfig, seed: int
) -> FitResult:
    """One training of the harness with its log and its checkpoints."""
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "epochs").open("w") as file:
        return fit(
            case.model(seed), train, val, config, seed=seed, device=device,
            on_epoch=logged(file), checkpoints=Path(folder),
        )  # fmt: skip


def run_case(case: Case, known: Ceilings, device: torch.device, rounds: int) -> list[Result]:
    """B1 and B6 of one network, from the same readings."""
    train, val = case.split(case.windows, 0, device), case.split(case.val_windows, 1, device)

    def bare() -> Mapping[str, float]:
        accuracy = bare_loop(case, train, val, device)
        synchronise(device)
        return {"accuracy": accuracy}

    def harness() -> Mapping[str, float]:
        result = trial(case, train, val, device, case.config, SEED)
        synchronise(device)
        return {"accuracy": result.reports[-1].metrics[ACCURACY]}

    arms: dict[str, Arm] = {"bare": lambda: measured(bare), "harness": lambda: measured(harness)}
    found = interleaved(arms, rounds, limit_s=PART_S)
    accuracy = {name: found.median(name, lambda one: one.details["accuracy"]) for name in arms}
    _agree(accuracy)
    floor = floor_s(case.model().to(device), (case.rows, case.frames), case.amount, case.config, known)
    steps = case.config.epochs * (case.windows // case.config.batch_size)
    wall_ms = {name: 1000 * found.median(name) / steps for name in arms}
    details = {"accuracy": accuracy, "step_ms": wall_ms, "floor_s": floor, "steps": steps}
    note = (
        f"{case.name}: {wall_ms['harness']:.3g} ms a step, scores included; bare loop {wall_ms['bare']:.3g} ms; "
        f"floor {1000 * floor / steps:.3g} ms"
    )
    target, beyond = {"raw": (">= 0.40", "0.60"), "MFCC": (">= 0.25", "0.50")}[case.name]
    return [
        judged(
            f"B1 GPU {case.name}", f"bare loop / fit() with its log and checkpoints on the GPU, {case.name}", found.ratio("bare", "harness"),
            unit="x", target=">= 0.95", beyond="0.99", notes=(note, *found.notes), details=details,
        ),
        judged(
            f"B6 {case.name}", f"floor / measured, {case.name}",
            found.estimate("harness", lambda one: floor / one.wall_s),
            unit="", target=target, beyond=beyond, notes=(note, *found.notes), details=details,
        ),
    ]  # fmt: skip


def run_packing(case: Case, device: torch.device, rounds: int, members: int, alone: int) -> Result:
    """B5: trials an hour in a stack of `members`, over trials one after the other (`alone` of the same)."""
    train, val = case.split(case.windows, 0, device), case.split(case.val_windows, 1, device)
    configs = [case.config.model_copy(update={"learning_rate": 1e-3 / (1 + i % 4)}) for i in range(members)]
    seeds = [SEED + i // 4 for i in range(members)]

    def serial() -> Mapping[str, float]:
        done = [trial(case, train, val, device, *one) for one in zip(configs[:alone], seeds, strict=False)]
        return {"trials": alone, "accuracy": _median_accuracy(done)}

    def stacked() -> Mapping[str, float]:
        with tempfile.TemporaryDirectory() as place:
            folders = [Path(place) / str(i) for i in range(members)]
            for folder in folders:
                folder.mkdir()
            files = [(folder / "epochs").open("w") for folder in folders]
            stack = [
                Member(case.model(seed), config, seed, logged(file), folder)
                for config, seed, file, folder in zip(configs, seeds, files, folders, strict=True)
            ]
            done = fit_stack(stack, train, val, device=device)
            for file in files:
                file.close()
        failed = [one for one in done if not isinstance(one, FitResult)]
        if failed:
            raise RuntimeError(f"{len(failed)} of {members} trainings of the stack failed: {failed[0]}")
        finished = [one for one in done[:alone] if isinstance(one, FitResult)]
        return {"trials": members, "accuracy": _median_accuracy(finished)}

    def each(one: Reading) -> float:
        return one.wall_s / one.details["trials"]

    found = interleaved(
        {"serial": lambda: measured(serial), "stacked": lambda: measured(stacked)}, rounds, limit_s=PART_S
    )
    accuracy = {name: found.median(name, lambda one: one.details["accuracy"]) for name in found.readings}
    _agree(accuracy)
    ratio: Estimate = found.ratio("serial", "stacked", each)
    seconds = {name: found.median(name, each) for name in found.readings}
    return judged(
        f"B5 GPU {case.name}", f"trainings an hour on the GPU, {members} stacked / one after the other, {case.name}",
        ratio, unit="x", beyond="12 at K = 32",
        notes=(f"{seconds['stacked']:.3g} s a trial against {seconds['serial']:.3g} s", *found.notes),
        details={"members": members, "accuracy": accuracy, "seconds_a_trial": seconds, "wall_s": found.median("stacked", wall)},
    )  # fmt: skip


def _median_accuracy(results: list[FitResult]) -> float:
    return float(torch.tensor([one.reports[-1].metrics[ACCURACY] for one in results]).median())


def _agree(accuracy: Mapping[str, float]) -> None:
    if max(accuracy.values()) - min(accuracy.values()) > AGREEMENT:
        raise RuntimeError(f"the arms end at different accuracies: {dict(accuracy)}")
