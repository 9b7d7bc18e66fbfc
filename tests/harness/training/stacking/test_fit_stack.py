"""Trained stacked is trained alone: metrics, weights, checkpoints, ends. In float64, where rounding leaves no doubt."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.config.trial.training_config import TrainingConfig
from harness.training.checkpoint import read_checkpoint
from harness.training.fit import CheckpointError, DivergedError, EpochReport, FitResult, Split, fit
from harness.training.stacking.fit_stack import Member, Outcome, fit_stack
from models.augmentation import Augmentation
from models.networks.cnn import build_network
from models.networks.config import CnnConfig
from models.networks.stacked import StackError

CPU = torch.device("cpu")
NET = CnnConfig(width=0.0625, dropout=0.4)
CONFIG = TrainingConfig(epochs=3, batch_size=8, learning_rate=5e-3, train_score_windows=16)
HYPER = ((5e-3, 0.01), (2e-2, 0.0), (1e-3, 0.5))  # rate, weight decay
# One seed as in a sweep, two, and one each as in replicates.
SEEDS = ([7, 7, 7], [7, 8, 7], [1, 2, 3])
MASKS = Augmentation(4, 6, 0.7, freq_mask=1, time_mask=2)
# Of numbers near 1 in float64 after 9 steps; losses and logits are kept in float32.
WEIGHTS, NUMBERS = {"rtol": 1e-7, "atol": 1e-9}, {"rtol": 1e-6, "atol": 1e-6}


def net(seed: int, dtype: torch.dtype = torch.float64) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_network(NET, 4, num_frames=6).to(dtype)


def split(windows: int, seed: int, dtype: torch.dtype = torch.float64) -> Split:
    """Class 1 lies higher in row 0."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(windows) % 2
    features = torch.randn(windows, 4, 6, generator=generator, dtype=dtype)
    features[:, 0] += labels[:, None]
    return Split(features, labels, [f"s{k % 6}" for k in range(windows)])


TRAIN, VAL = split(26, 0), split(20, 1)  # 3 steps an epoch, 2 windows left over


def members(seeds: Sequence[int], config: TrainingConfig = CONFIG) -> list[Member]:
    return [
        Member(net(seed), config.model_copy(update={"learning_rate": rate, "weight_decay": decay}), seed)
        for seed, (rate, decay) in zip(seeds, HYPER, strict=True)
    ]


def alone(one: Member, checkpoint_s: float = 0, **named: object) -> FitResult:
    return fit(
        one.model, TRAIN, VAL, one.config, seed=one.seed, device=CPU,
        on_epoch=one.on_epoch, checkpoints=one.checkpoints, checkpoint_s=checkpoint_s, **named,
    )  # type: ignore[arg-type]  # fmt: skip


def stacked(all_of_them: Sequence[Member], **named: object) -> list[Outcome]:
    return fit_stack(all_of_them, TRAIN, VAL, device=CPU, **named)  # type: ignore[arg-type]


def same_numbers(left: FitResult, right: FitResult) -> None:
    assert (left.best_epoch, left.stopped) == (right.best_epoch, right.stopped)
    assert [one.epoch for one in left.reports] == [one.epoch for one in right.reports]
    for one, other in zip(left.reports, right.reports, strict=True):
        assert one.metrics.keys() == other.metrics.keys()
        for name in one.metrics.keys() - {"windows_per_s"}:
            assert one.metrics[name] == pytest.approx(other.metrics[name], rel=1e-6, abs=1e-6), name
    torch.testing.assert_close(left.val_logits, right.val_logits, **NUMBERS)
    torch.testing.assert_close(left.train_logits, right.train_logits, **NUMBERS)
    assert torch.equal(left.train_index, right.train_index)
    same_state(left.best_state, right.best_state)


def same_state(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert list(left) == list(right)
    for name, tensor in left.items():
        assert tensor.shape == right[name].shape
        torch.testing.assert_close(tensor, right[name], **WEIGHTS, msg=name)


def same_checkpoint(left: Path, right: Path) -> None:
    """Their contents: equal names, types and numbers."""
    assert left.stat().st_size < 1.2 * right.stat().st_size  # nobody else's tensors hang on it
    _same_content(read_checkpoint(left), read_checkpoint(right), "")


def _same_content(left: object, right: object, name: str) -> None:
    assert type(left) is type(right), name
    if isinstance(left, dict) and isinstance(right, dict):
        assert list(left) == list(right), name
        for key in left.keys() - {"windows_per_s", "seconds"}:
            _same_content(left[key], right[key], f"{name}/{key}")
    elif isinstance(left, list | tuple) and isinstance(right, list | tuple):
        assert len(left) == len(right), name
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            _same_content(one, other, f"{name}/{index}")
    elif isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        close = NUMBERS if left.dtype == torch.float32 else WEIGHTS
        torch.testing.assert_close(left, right, **close, msg=name)
    else:
        assert left == pytest.approx(right, rel=1e-6, abs=1e-6) if isinstance(left, float) else left == right


def pruned_after(epoch: int) -> Callable[[EpochReport], bool]:
    return lambda report: report.epoch == epoch


@pytest.mark.parametrize(("seeds", "ema"), [(SEEDS[0], None), (SEEDS[1], 0.9), (SEEDS[2], None)])
def test_metrics_weights_and_checkpoints_are_those_of_each_alone(
    tmp_path: Path, seeds: list[int], ema: float | None
) -> None:
    config = CONFIG.model_copy(update={"ema_decay": ema})
    ends = (lambda report: False, pruned_after(0), pruned_after(2))  # the last epoch cannot be pruned
    left, right = (
        [
            replace(one, on_epoch=end, checkpoints=tmp_path / side / str(number))
            for number, (one, end) in enumerate(zip(members(seeds, config), ends, strict=True))
        ]
        for side in ("stacked", "alone")
    )
    for one in (*left, *right):
        assert one.checkpoints is not None
        one.checkpoints.mkdir(parents=True)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    found = stacked(left, augmentation=MASKS)
    assert torch.equal(torch.get_rng_state(), before)
    for outcome, mine, own in zip(found, left, right, strict=True):
        assert isinstance(outcome, FitResult)
        same_numbers(outcome, alone(own, augmentation=MASKS))
        same_state(mine.model.state_dict(), own.model.state_dict())  # the raw ones, after the last step
        assert mine.checkpoints is not None
        assert own.checkpoints is not None
        if outcome.stopped == "pruned":
            assert list(mine.checkpoints.iterdir()) == []
        else:
            same_checkpoint(mine.checkpoints / "last.pt", own.checkpoints / "last.pt")
    assert [one.stopped for one in found if isinstance(one, FitResult)] == ["", "pruned", ""]


def test_in_float32_they_differ_by_its_rounding() -> None:
    """AdamW divides by the size of the gradient: where that is all rounding, so is the step. Means are compared."""
    train, val = split(26, 0, torch.float32), split(20, 1, torch.float32)
    ours, own = members([7, 7, 9]), members([7, 7, 9])
    for one in (*ours, *own):
        one.model.float()
    found = fit_stack(ours, train, val, device=CPU)
    for outcome, mine, other in zip(found, ours, own, strict=True):
        assert isinstance(outcome, FitResult)
        wanted = fit(other.model, train, val, other.config, seed=other.seed, device=CPU)
        for one, report in zip(outcome.reports, wanted.reports, strict=True):
            assert one.metrics["train/running_loss"] == pytest.approx(
                report.metrics["train/running_loss"], rel=1e-4
            )
            assert one.metrics["val/loss"] == pytest.approx(report.metrics["val/loss"], rel=1e-4)
        for name, tensor in mine.model.state_dict().items():
            right = other.model.state_dict()[name]
            assert float((tensor - right).double().norm()) <= 1e-3 * float(right.double().norm()) + 1e-6, name


class Dithered(nn.Module):
    """A front end that draws: waveforms (window, 24) -> features (window, 4, 6)."""

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        noisy = waveforms + 0.1 * torch.randn(waveforms.shape)
        return noisy.view(len(noisy), 4, 6).double()


def test_what_the_front_end_and_the_augmentation_draw_is_each_members_own() -> None:
    generator = torch.Generator().manual_seed(5)
    train, val = (
        replace(one, features=torch.randint(-9000, 9000, (len(one), 24), generator=generator).to(torch.int16))
        for one in (TRAIN, VAL)
    )
    noise = Augmentation(4, 6, 0.7, noise_snr_db=0.0, gain_db=6.0, freq_mask=1)
    named = {"device": CPU, "transform": Dithered(), "augmentation": noise}
    found = fit_stack(members([7, 8, 7]), train, val, **named)  # type: ignore[arg-type]
    for outcome, own in zip(found, members([7, 8, 7]), strict=True):
        assert isinstance(outcome, FitResult)
        wanted = fit(own.model, train, val, own.config, seed=own.seed, **named)  # type: ignore[arg-type]
        same_numbers(outcome, wanted)


@pytest.mark.parametrize("place", ["weights", "logits"])
def test_a_member_that_diverges_leaves_the_others_as_they_are(place: str) -> None:
    ours, own = members(SEEDS[1]), members(SEEDS[1])
    for one in (ours[1], own[1]):
        if place == "weights":
            with torch.no_grad():
                next(one.model.parameters()).fill_(math.inf)
        else:  # no loss sees it, the first evaluation does
            one.model.get_buffer("encoder.blocks.0.first.norm.running_mean").fill_(math.nan)
    found = stacked(ours)
    with pytest.raises(DivergedError) as raised:
        alone(own[1])
    assert isinstance(found[1], DivergedError)
    assert str(found[1]) == str(raised.value)
    for number in (0, 2):
        outcome = found[number]
        assert isinstance(outcome, FitResult)
        same_numbers(outcome, alone(own[number]))


def test_all_may_diverge() -> None:
    ours = members(SEEDS[0])
    for one in ours:
        with torch.no_grad():
            next(one.model.parameters()).fill_(math.nan)
    assert all(isinstance(one, DivergedError) for one in stacked(ours))


def asked(times: int) -> Callable[[], bool]:
    """Stop at this question."""
    left = iter(range(times))
    return lambda: next(left, None) is None


@functools.cache
def uninterrupted(config: TrainingConfig) -> list[FitResult]:
    return [alone(one, augmentation=MASKS) for one in members(SEEDS[1], config)]


def placed(all_of_them: Sequence[Member], folder: Path) -> list[Member]:
    placed = [
        replace(
            one, checkpoints=folder / str(number), model=net(50 + number) if folder.exists() else one.model
        )
        for number, one in enumerate(all_of_them)
    ]
    for one in placed:
        assert one.checkpoints is not None
        one.checkpoints.mkdir(parents=True, exist_ok=True)
    return placed


# An epoch asks 3 steps, 2 batches of the scored training windows and 3 of the validation windows.
@pytest.mark.parametrize(("times", "then"), [(1, "stacked"), (6, "alone"), (12, "stacked"), (12, "alone")])
def test_interrupted_anywhere_it_goes_on_stacked_or_alone(tmp_path: Path, times: int, then: str) -> None:
    config, folder = CONFIG.model_copy(update={"ema_decay": 0.9}), tmp_path / "kept"
    first = stacked(placed(members(SEEDS[1], config), folder), augmentation=MASKS, should_stop=asked(times))
    assert all(isinstance(one, FitResult) and one.stopped == "interrupted" for one in first)
    again = placed(members(SEEDS[1], config), folder)  # other weights: they come from the files
    found: Sequence[Outcome] = (
        stacked(again, augmentation=MASKS)
        if then == "stacked"
        else [alone(one, augmentation=MASKS) for one in again]
    )
    for outcome, right in zip(found, uninterrupted(config), strict=True):
        assert isinstance(outcome, FitResult)
        same_numbers(outcome, right)


def test_trained_alone_until_different_places_they_go_on_stacked(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    for one, times in zip(placed(members(SEEDS[0]), folder), (2, 2, 12), strict=True):
        assert alone(one, should_stop=asked(times)).stopped == "interrupted"
    found = stacked(placed(members(SEEDS[0]), folder))
    for outcome, right in zip(found, members(SEEDS[0]), strict=True):
        assert isinstance(outcome, FitResult)
        same_numbers(outcome, alone(right))
    again = stacked(placed(members(SEEDS[0]), folder))  # read back, nothing trains
    assert [one.reports for one in again if isinstance(one, FitResult)] == [
        one.reports for one in found if isinstance(one, FitResult)
    ]


def test_a_checkpoint_is_written_within_an_epoch_when_it_is_due(tmp_path: Path) -> None:
    ours, steps = placed(members(SEEDS[0]), tmp_path / "kept"), []

    def stop() -> bool:
        steps.append(0)
        if len(steps) == 3:
            raise KeyboardInterrupt  # a kill: nothing is written any more
        return False

    with pytest.raises(KeyboardInterrupt):
        stacked(ours, checkpoint_s=0, should_stop=stop)
    for one in ours:
        assert one.checkpoints is not None
        assert read_checkpoint(one.checkpoints / "last.pt")["place"]["step"] == 1


def test_anothers_checkpoint_is_one_members_failure(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    (stranger, *_) = placed(members([99, 1, 2]), folder)
    alone(stranger)
    found = stacked(placed(members(SEEDS[0]), folder))
    assert isinstance(found[0], CheckpointError)
    assert all(isinstance(one, FitResult) for one in found[1:])


def test_what_differs_in_more_is_refused() -> None:
    ours = members(SEEDS[0])
    longer = replace(ours[1], config=ours[1].config.model_copy(update={"epochs": 4, "batch_size": 16}))
    with pytest.raises(StackError, match="batch_size, epochs"):
        stacked([ours[0], longer])
    with pytest.raises(StackError, match="shapes"):
        stacked([ours[0], replace(ours[1], model=build_network(CnnConfig(width=0.2), 4).double())])
