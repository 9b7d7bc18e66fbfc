"""Laws of weight averaging: the average is the stated recurrence, it is what is judged, a resume continues it."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from harness.config.trial.training_config import TrainingConfig
from harness.metrics.classification import binary_metrics
from harness.training.checkpoint import read_checkpoint
from harness.training.fit import CheckpointError, EpochReport, FitResult, Split, fit
from harness.training.learner import WeightAverage, decay_at

CPU = torch.device("cpu")
OFF = TrainingConfig(epochs=6, batch_size=16, learning_rate=5e-3, train_score_windows=40)
ON = OFF.model_copy(update={"ema_decay": 0.9})


class Tiny(nn.Module):
    """Everything that could break an average: batch norm's buffers, dropout's draws, weights."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(4, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(8, 2))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(features).mean(dim=2))
        return logits


def model(seed: int = 1) -> Tiny:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Tiny()


def split(windows: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(windows) % 2
    features = torch.randn(windows, 4, 12, generator=generator)
    features[:, 0] += labels[:, None]
    return Split(features, labels, [f"s{k % 6}" for k in range(windows)])


TRAIN, VAL = split(90, 0), split(40, 1)


def run(config: TrainingConfig, net: nn.Module | None = None, **named: object) -> FitResult:
    return fit(net or model(), TRAIN, VAL, config, seed=7, device=CPU, **named)  # type: ignore[arg-type]


def numbers(report: EpochReport) -> dict[str, float]:
    return {name: value for name, value in report.metrics.items() if name != "windows_per_s"}


def same(left: FitResult, right: FitResult) -> None:
    assert [numbers(one) for one in left.reports] == [numbers(one) for one in right.reports]
    assert (left.score, left.best_epoch) == (right.score, right.best_epoch)
    for name, tensor in left.best_state.items():
        assert torch.equal(tensor, right.best_state[name]), name
    assert torch.equal(left.val_logits, right.val_logits)
    assert torch.equal(left.train_logits, right.train_logits)


def same_weights(left: nn.Module, right: nn.Module) -> None:
    for name, tensor in left.state_dict().items():
        assert torch.equal(tensor, right.state_dict()[name]), name


@given(st.integers(0, 10**7), st.floats(0.01, 0.99999))
def test_the_decay_warms_up_to_its_value(step: int, decay: float) -> None:
    assert 0 < decay_at(step, decay) <= min(decay, decay_at(step + 1, decay))
    assert decay_at(10**9, decay) == decay


def test_the_average_by_hand_batch_norm_included() -> None:
    net = model()
    average = WeightAverage(net, 0.9)
    wanted: dict[str, torch.Tensor] = {}
    for step in range(20):
        net.train()
        net(torch.randn(8, 4, 12) + step).sum().backward()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter += torch.randn_like(parameter)
        average.update(net, step)
        decay = min(0.9, (1 + step) / (10 + step))
        state = {name: tensor.double() for name, tensor in net.state_dict().items() if "num_" not in name}
        wanted = {
            name: decay * wanted[name] + (1 - decay) * tensor if step else tensor.clone()
            for name, tensor in state.items()
        }
    assert {"body.1.running_mean", "body.1.running_var", "head.1.weight"} <= wanted.keys()
    found = average.module.state_dict()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name].double(), tensor, rtol=1e-5, atol=1e-5)
    assert not torch.equal(found["body.1.running_mean"], net.state_dict()["body.1.running_mean"])


def test_the_average_of_what_stands_still_is_itself() -> None:
    net = model()
    average = WeightAverage(net, 0.99)
    for step in range(5):
        average.update(net, step)
    same_weights(average.module, net)


def test_averaging_changes_nothing_of_the_training_itself() -> None:
    raw, averaged = model(), model()
    off, on = run(OFF, raw), run(ON, averaged)
    same_weights(raw, averaged)  # the raw weights go on
    losses = [[report.metrics["train/running_loss"] for report in found.reports] for found in (off, on)]
    assert losses[0] == losses[1]
    assert [numbers(one) for one in off.reports] != [numbers(one) for one in on.reports]


def test_everything_judged_and_kept_is_the_averages() -> None:
    raw = model()
    found = run(ON, raw)
    kept = model(5)
    kept.load_state_dict(found.best_state)
    kept.eval()
    with torch.no_grad():
        val, train = kept(VAL.features), kept(TRAIN.features[found.train_index])
    torch.testing.assert_close(val, found.val_logits)
    torch.testing.assert_close(train, found.train_logits)
    at_best = found.reports[found.best_epoch].metrics
    measured = binary_metrics(found.val_logits.numpy(), VAL.labels.numpy())
    assert at_best["val/balanced_accuracy"] == measured["balanced_accuracy"]
    assert not torch.equal(found.best_state["head.1.weight"], raw.state_dict()["head.1.weight"])


class KilledError(Exception):
    pass


def killed_after(epoch: int):
    def on_epoch(report: EpochReport) -> bool:
        if report.epoch == epoch + 1:
            raise KilledError
        return False

    return on_epoch


@pytest.mark.parametrize("epoch", range(ON.epochs - 1))
def test_resumed_is_uninterrupted_bit_for_bit(tmp_path: Path, epoch: int) -> None:
    whole, resumed = model(), model(5)
    expected = run(ON, whole)
    with pytest.raises(KilledError):
        run(ON, checkpoints=tmp_path, on_epoch=killed_after(epoch))
    same(run(ON, resumed, checkpoints=tmp_path), expected)
    same_weights(whole, resumed)


def test_checkpoints_hold_both_and_none_twice(tmp_path: Path) -> None:
    raw = model()
    run(ON, raw, checkpoints=tmp_path / "on", checkpoint_s=0)
    run(OFF, checkpoints=tmp_path / "off", checkpoint_s=0)
    on, off = (read_checkpoint(tmp_path / name / "last.pt") for name in ("on", "off"))
    assert torch.equal(on["weights"]["head.1.weight"], raw.state_dict()["head.1.weight"])
    assert off["average"] is None
    for kept, twice in ((on["average"], on), (off["weights"], off)):
        last = twice["recent"][-1]["state"]["head.1.weight"]
        assert kept["head.1.weight"].data_ptr() == last.data_ptr()
    assert not torch.equal(on["weights"]["head.1.weight"], on["average"]["head.1.weight"])


def test_a_checkpoint_without_the_average_is_another_training(tmp_path: Path) -> None:
    run(OFF, checkpoints=tmp_path)
    with pytest.raises(CheckpointError, match="ema_decay"):
        run(ON, checkpoints=tmp_path)


def test_an_average_is_steadier_than_the_weights() -> None:
    # labels that say nothing, at a rate that never settles: the raw weights jump about, their average less
    features = torch.randn(96, 4, 12, generator=torch.Generator().manual_seed(3))
    noise = Split(features, torch.arange(96) % 2, ["s"] * 96)
    config = TrainingConfig(epochs=8, batch_size=8, learning_rate=3e-2, warmup_share=0)

    def roughness(ema_decay: float | None) -> float:
        found = fit(
            model(), noise, VAL, config.model_copy(update={"ema_decay": ema_decay}), seed=0, device=CPU
        )
        losses = [report.metrics["val/loss"] for report in found.reports]
        return max(abs(after - before) for before, after in itertools.pairwise(losses[1:]))

    assert roughness(0.97) < roughness(None)


@pytest.mark.parametrize("decay", [0, 1, 1.5, -0.1, float("nan"), "0.9x"])
def test_a_decay_outside_of_zero_and_one_is_refused(decay: object) -> None:
    with pytest.raises(ValidationError, match="ema_decay"):
        TrainingConfig.model_validate({"ema_decay": decay})


def test_null_is_off_and_the_model_is_not_copied() -> None:
    net = model()
    twin = copy.deepcopy(net)
    same(run(OFF, net), run(TrainingConfig(**{**OFF.model_dump(), "ema_decay": None}), twin))
