"""What a training learns and reports, which weights it keeps, what it is fed, and when it has diverged."""

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.config.trial.training_config import TrainingConfig
from harness.metrics.classification import binary_metrics
from harness.training.fit import DivergedError, EpochReport, Split, fit, learning_rate_at
from tests.harness.places.separable_training import (
    CONFIG,
    CPU,
    TRAIN,
    VAL,
    Tiny,
    model,
    numbers,
    run,
    same,
    same_weights,
    split,
)

METRICS = ("loss", "accuracy", "balanced_accuracy", "auc", "recall_0", "recall_1", "predicted_positive")


def test_it_learns_a_separable_problem() -> None:
    found = run(TrainingConfig(epochs=10, batch_size=16, learning_rate=2e-2))
    assert found.score >= 0.95
    assert found.reports[-1].metrics["train/loss"] < math.log(2) - 0.2


def test_it_learns_nothing_where_there_is_nothing() -> None:
    train, val = split(200, 0, shift=0), split(400, 1, shift=0)
    found = fit(model(), train, val, CONFIG, seed=0, device=CPU)
    # 400 independent windows: sigma = .025
    assert abs(found.score - 0.5) < 0.1


def test_a_seed_gives_the_same_numbers_bit_for_bit() -> None:
    left, right = model(), model()
    first = run(net=left)
    torch.rand(5)  # whatever the process drew before is no business of a training
    same(first, run(net=right))
    same_weights(left, right)
    assert numbers(run(seed=8).reports[-1]) != numbers(first.reports[-1])


def test_it_leaves_the_callers_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    run()
    assert torch.equal(torch.get_rng_state(), before)


def test_reports_hold_every_metric_and_agree_with_each_other() -> None:
    found = run()
    assert [report.epoch for report in found.reports] == list(range(6))
    wanted = {f"{side}/{name}" for side in ("train", "val") for name in METRICS}
    wanted |= {"train/running_loss", "gap", "learning_rate", "windows_per_s", "score", "smoothed"}
    for report in found.reports:
        assert set(report.metrics) == wanted
        assert all(type(value) is float and math.isfinite(value) for value in report.metrics.values())
        both = report.metrics["train/balanced_accuracy"] - report.metrics["val/balanced_accuracy"]
        assert report.metrics["gap"] == both
        assert report.metrics["windows_per_s"] > 0
    series = [report.metrics["val/balanced_accuracy"] for report in found.reports]
    assert found.reports[-1].metrics["smoothed"] == sorted(series[-3:])[1]
    assert found.reports[-1].metrics["score"] == found.score == series[found.best_epoch]
    # 90 // 16 = 5 steps an epoch, 30 in all
    rates = [learning_rate_at(5 * epoch + 4, 30, CONFIG) for epoch in range(6)]
    assert [report.metrics["learning_rate"] for report in found.reports] == rates


def test_the_best_state_is_the_weights_of_its_epoch() -> None:
    net, states = model(), []

    def remember(report: EpochReport) -> bool:
        states.append({name: tensor.clone() for name, tensor in net.state_dict().items()})
        return False

    found = run(net=net, on_epoch=remember)
    for name, tensor in states[found.best_epoch].items():
        assert torch.equal(tensor, found.best_state[name])
    # those weights give the logits and metrics recorded for the epoch, in evaluation mode
    again = model(2)
    again.load_state_dict(found.best_state)
    again.eval()
    with torch.no_grad():
        logits = again(VAL.features)
    assert torch.allclose(logits, found.val_logits, atol=1e-6)
    recorded = found.reports[found.best_epoch].metrics
    measured = binary_metrics(found.val_logits.numpy(), VAL.labels.numpy())
    assert {name: recorded[f"val/{name}"] for name in METRICS} == measured


def test_train_is_scored_in_evaluation_mode_on_a_fixed_balanced_subset() -> None:
    found, other = run(), run(seed=9)
    assert torch.equal(found.train_index, other.train_index)
    assert torch.bincount(TRAIN.labels[found.train_index]).tolist() == [20, 20]
    net = model()
    net.load_state_dict(found.best_state)
    net.eval()
    with torch.no_grad():
        logits = net(TRAIN.features[found.train_index])
    assert torch.allclose(logits, found.train_logits, atol=1e-6)
    recorded = found.reports[found.best_epoch].metrics
    measured = binary_metrics(found.train_logits.numpy(), TRAIN.labels[found.train_index].numpy())
    assert recorded["train/balanced_accuracy"] == measured["balanced_accuracy"]
    assert recorded["train/loss"] == measured["loss"] != recorded["train/running_loss"]
    assert len(run(TrainingConfig(epochs=1)).train_index) == len(TRAIN)  # all where there are fewer


class Explodes(Tiny):
    """Gives logits of `value` in its n-th pass in training mode."""

    def __init__(self, at: int, value: float, training: bool = True) -> None:
        super().__init__()
        self.at, self.value, self.when, self.passes = at, value, training, -1

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        logits = super().forward(features)
        self.passes += self.training == self.when
        return logits * self.value if self.passes == self.at and self.training == self.when else logits


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_divergence_names_epoch_and_step(value: float) -> None:
    with pytest.raises(DivergedError, match="learning_rate") as caught:
        run(net=Explodes(7, value))
    assert (caught.value.epoch, caught.value.step) == (1, 2)  # pass 7 of 5 an epoch
    assert not math.isfinite(caught.value.value)
    again = pickle.loads(pickle.dumps(caught.value))  # it leaves a worker whole
    assert (str(again), again.epoch) == (str(caught.value), 1)


def test_weights_that_score_nan_have_diverged() -> None:
    with pytest.raises(DivergedError, match="epoch 0, step 4"):
        run(net=Explodes(0, math.nan, training=False))


def test_an_absurd_rate_diverges_or_ends_with_finite_numbers() -> None:
    config = TrainingConfig(epochs=3, batch_size=16, learning_rate=1.0)
    found = run(config)
    assert all(math.isfinite(value) for report in found.reports for value in report.metrics.values())


def test_waveforms_reach_the_transform_scaled(tmp_path: Path) -> None:
    # memory-mapped int16, as the store has them; the transform is a stand-in for a front end
    generator = np.random.default_rng(0)
    labels = np.arange(64) % 2
    waves = (generator.normal(size=(64, 48)) * (1000 + 3000 * labels[:, None])).astype(np.int16)
    np.save(tmp_path / "windows.npy", waves)
    stored = torch.from_numpy(np.load(tmp_path / "windows.npy", mmap_mode="c"))
    windows = Split(stored, torch.from_numpy(labels), ["s"] * 64)
    seen: list[torch.Tensor] = []

    def transform(batch: torch.Tensor) -> torch.Tensor:
        seen.append(batch)
        return 10 * batch.unflatten(1, (4, 12))

    config = TrainingConfig(epochs=12, batch_size=8, learning_rate=2e-2)
    found = fit(model(), windows, windows, config, seed=0, device=CPU, transform=transform)
    assert {(batch.dtype, batch.shape[1]) for batch in seen} == {(torch.float32, 48)}
    assert 0.1 < max(float(batch.abs().max()) for batch in seen) < 1
    assert found.score > 0.8


def test_fewer_windows_than_a_batch_are_one_batch() -> None:
    found = fit(model(), split(10, 0), VAL, TrainingConfig(epochs=2), seed=0, device=CPU)
    assert len(found.reports) == 2


def test_every_window_is_met_once_an_epoch_in_an_order_of_its_own() -> None:
    orders: list[list[float]] = []
    features = torch.arange(64.0).repeat(4, 12, 1).permute(2, 0, 1).contiguous()
    windows = Split(features, torch.arange(64) % 2, ["s"] * 64)

    def note(batch: torch.Tensor) -> torch.Tensor:
        orders.append(batch[:, 0, 0].tolist())
        return batch / 64

    config = TrainingConfig(epochs=2, batch_size=16, train_score_windows=2)
    fit(model(), windows, VAL, config, seed=0, device=CPU, transform=note)
    batches = [batch for batch in orders if len(batch) == 16 and max(batch) > 8]
    first, second = [x for b in batches[:4] for x in b], [x for b in batches[4:8] for x in b]
    assert sorted(first) == sorted(second) == list(range(64))
    assert first != second
