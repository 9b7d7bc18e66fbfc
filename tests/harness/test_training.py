import math
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from harness.metrics import binary_metrics
from harness.training import (
    CheckpointError,
    DivergedError,
    EpochReport,
    FitResult,
    Split,
    SplitError,
    fit,
    learning_rate_at,
    mixed_precision,
)
from harness.training_checkpoint import Checkpoints, due_after, read_checkpoint
from harness.training_config import TrainingConfig

CPU = torch.device("cpu")
CONFIG = TrainingConfig(
    epochs=6, batch_size=16, learning_rate=5e-3, train_score_windows=40, checkpoint_every=1
)
METRICS = ("loss", "accuracy", "balanced_accuracy", "auc", "recall_0", "recall_1", "predicted_positive")


class Tiny(nn.Module):
    """Everything that could break a resume: batch norm's buffers, dropout's draws, weights."""

    def __init__(self, inputs: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(inputs, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(8, 2))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(features).mean(dim=2))
        return logits


def model(seed: int = 1) -> Tiny:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Tiny()


def split(windows: int, seed: int, shift: float = 1.0) -> Split:
    """Class 1 lies higher in row 0; `shift` 0 makes the classes equal."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(windows) % 2
    features = torch.randn(windows, 4, 12, generator=generator)
    features[:, 0] += shift * labels[:, None]
    return Split(features, labels, [f"s{k % 6}" for k in range(windows)])


TRAIN, VAL = split(90, 0), split(40, 1)


def run(
    config: TrainingConfig = CONFIG, seed: int = 7, net: nn.Module | None = None, **named: object
) -> FitResult:
    return fit(net or model(), TRAIN, VAL, config, seed=seed, device=CPU, **named)  # type: ignore[arg-type]


def numbers(report: EpochReport) -> dict[str, float]:
    """Everything but the clock."""
    return {name: value for name, value in report.metrics.items() if name != "windows_per_s"}


def same(left: FitResult, right: FitResult) -> None:
    assert [numbers(one) for one in left.reports] == [numbers(one) for one in right.reports]
    assert [one.epoch for one in left.reports] == [one.epoch for one in right.reports]
    assert (left.score, left.best_epoch, left.stopped) == (right.score, right.best_epoch, right.stopped)
    assert left.best_state.keys() == right.best_state.keys()
    for name, tensor in left.best_state.items():
        assert torch.equal(tensor, right.best_state[name]), name
    assert torch.equal(left.val_logits, right.val_logits)
    assert torch.equal(left.train_logits, right.train_logits)
    assert torch.equal(left.train_index, right.train_index)


def same_weights(left: nn.Module, right: nn.Module) -> None:
    for name, tensor in left.state_dict().items():
        assert torch.equal(tensor, right.state_dict()[name]), name


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


class KilledError(Exception):
    pass


def killed_after(epoch: int) -> Callable[[EpochReport], bool]:
    """Die once the checkpoint of `epoch` is written, as a kill would."""

    def on_epoch(report: EpochReport) -> bool:
        if report.epoch == epoch + 1:
            raise KilledError
        return False

    return on_epoch


@pytest.mark.parametrize("epoch", range(CONFIG.epochs - 1))
def test_resumed_is_uninterrupted_bit_for_bit(tmp_path: Path, epoch: int) -> None:
    whole, resumed = model(), model(5)  # the resumed one starts from other weights: they come from the file
    expected = run(net=whole)
    with pytest.raises(KilledError):
        run(checkpoints=tmp_path, on_epoch=killed_after(epoch))
    heard: list[int] = []
    found = run(
        net=resumed, checkpoints=tmp_path, on_epoch=lambda report: heard.append(report.epoch) or False
    )
    same(found, expected)
    same_weights(whole, resumed)
    assert heard == list(range(epoch + 1, CONFIG.epochs))
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_a_finished_training_is_read_back_without_training(tmp_path: Path) -> None:
    expected = run(checkpoints=tmp_path, checkpoint_s=0)
    found = run(net=model(5), checkpoints=tmp_path, on_epoch=lambda report: pytest.fail("trained again"))
    same(found, expected)
    assert found.reports == expected.reports  # the clock's readings too


def test_the_end_of_a_training_is_kept_only_where_nobody_has_the_time_to_use_it(tmp_path: Path) -> None:
    config, ended, last = (
        CONFIG.model_copy(update={"checkpoint_every": 100}),
        threading.Event(),
        tmp_path / "last.pt",
    )
    run(config, checkpoints=tmp_path)
    assert not last.exists()

    def on_epoch(report: EpochReport) -> bool:
        if report.epoch + 1 == config.epochs:
            ended.set()
        return False

    found = run(config, checkpoints=tmp_path, on_epoch=on_epoch, should_stop=ended.is_set)
    assert found.stopped == ""
    assert len(read_checkpoint(last)["reports"]) == config.epochs


def test_checkpoints_come_every_n_epochs(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"checkpoint_every": 4})
    last, written = tmp_path / "last.pt", []

    def look(report: EpochReport) -> bool:  # what is on disk after the epoch before this one
        written.append(len(read_checkpoint(last)["reports"]) if last.exists() else 0)
        return False

    found = run(config, checkpoints=tmp_path, on_epoch=look)
    assert written == [0, 0, 0, 0, 4, 4]
    assert len(read_checkpoint(last)["reports"]) == 4
    # how often it is written changes no number, not even for a resume under another interval
    same(found, run())
    same(run(checkpoints=tmp_path), found)


def test_checkpoints_that_take_long_come_less_often(tmp_path: Path) -> None:
    quick, slow = Checkpoints(tmp_path, 300.0), Checkpoints(tmp_path, 300.0)
    slow.took_s = 10.0  # written a moment ago
    assert due_after(0, None, [quick])
    assert not due_after(0, None, [slow])
    assert not due_after(0, None, [quick, slow])
    assert due_after(0, 1, [slow])  # asked for
    assert due_after(0, None, [Checkpoints(tmp_path, 0.0), slow])  # too old


def test_the_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    run(checkpoints=tmp_path)
    with pytest.raises(CheckpointError, match=r"seed 7 there, 8 here.*remove it"):
        run(seed=8, checkpoints=tmp_path)
    with pytest.raises(CheckpointError, match=r"0\.005"):
        run(CONFIG.model_copy(update={"learning_rate": 1e-3}), checkpoints=tmp_path)


def test_pruning_ends_after_the_epoch() -> None:
    found = run(on_epoch=lambda report: report.epoch == 3)
    assert (found.stopped, len(found.reports)) == ("pruned", 4)
    assert found.score == run(CONFIG).reports[3].metrics["score"]
    # the last epoch has nothing left to save: the training is complete
    assert run(on_epoch=lambda report: report.epoch == 5).stopped == ""


def test_an_interruption_ends_at_the_next_step_and_can_be_resumed(tmp_path: Path) -> None:
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 40

    found = run(should_stop=should_stop, checkpoints=tmp_path)
    assert found.stopped == "interrupted"
    assert 0 < len(found.reports) < CONFIG.epochs
    assert asked == 41
    same(run(checkpoints=tmp_path), run())


def test_an_interruption_in_the_first_epoch_leaves_nothing(tmp_path: Path) -> None:
    found = run(should_stop=lambda: True, checkpoints=tmp_path)
    assert (found.stopped, found.reports, found.best_epoch, found.best_state) == ("interrupted", (), -1, {})
    assert math.isnan(found.score)
    assert not list(tmp_path.iterdir())


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


def test_the_rate_by_hand() -> None:
    # 20 steps, 4 of warm-up: 1/4, 2/4, 3/4, 1; then (1 + cos(pi k/16))/2 for k = 0..15
    config = TrainingConfig(learning_rate=0.4, warmup_share=0.2)
    rates = [learning_rate_at(step, 20, config) for step in range(20)]
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert rates[12] == pytest.approx(0.2)  # k = 8: half way down
    assert rates[19] == pytest.approx(0.2 * (1 + math.cos(math.pi * 15 / 16)))
    assert learning_rate_at(0, 20, TrainingConfig(learning_rate=0.4, warmup_share=0)) == 0.4


def test_a_cpu_trains_in_fp32() -> None:
    assert mixed_precision(CPU, TrainingConfig()) is None
    assert mixed_precision(torch.device("cuda"), TrainingConfig(precision="fp32")) is None


@pytest.mark.parametrize(
    ("features", "labels", "clusters", "says"),
    [
        (torch.zeros(4, 2, 2), torch.tensor([0, 1, 0]), ["a"] * 4, "4, 3, 4"),
        (torch.zeros(2, 2, 2), torch.tensor([1, 1]), ["a"] * 2, r"hold \[1\]"),
        (torch.zeros(2, 2, 2), torch.tensor([1, 2]), ["a"] * 2, r"hold \[1, 2\]"),
        (torch.zeros(2, 2, dtype=torch.int64), torch.tensor([0, 1]), ["a"] * 2, "int64"),
    ],
)
def test_a_bad_split_is_named(
    features: torch.Tensor, labels: torch.Tensor, clusters: list[str], says: str
) -> None:
    with pytest.raises(SplitError, match=says):
        Split(features, labels, clusters)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 1},
        {"learning_rate": 0},
        {"learning_rate": math.nan},
        {"learning_rate": math.inf},
        {"weight_decay": -1},
        {"warmup_share": 1},
        {"precision": "fp8"},
        {"checkpoint_every": 0},
        {"train_score_windows": 1},
        {"epoch": 3},
    ],
)
def test_a_bad_config_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        TrainingConfig.model_validate(wrong)


def test_the_config_is_described_and_light() -> None:
    assert all(field.description for field in TrainingConfig.model_fields.values())
    code = "import sys, harness.training_config; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
