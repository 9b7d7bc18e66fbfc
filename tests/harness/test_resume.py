"""A training that is stopped anywhere, however often, ends with the bits of one that was not.

Small, with everything that could break it: batch norm's buffers, dropout, the average of the weights, reverb, noise and
masks, a front end that draws random numbers, an optimizer with moments.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import math
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from data.config import DataConfig
from data.preparation.prepare import prepare
from harness import training_checkpoint
from harness.executors.protocol import Job
from harness.run_page import verdict_of
from harness.spool import CHECKPOINT, TrialSpool
from harness.study import TrialSummary
from harness.training import CheckpointError, EpochReport, FitResult, Split, fit
from harness.training_checkpoint import DamagedCheckpointError, read_checkpoint
from harness.training_config import TrainingConfig
from harness.trial import run_trial
from harness.trial_config import TrialConfig
from models.augmentation import Augmentation

CPU = torch.device("cpu")
CONFIG = TrainingConfig(
    epochs=3, batch_size=8, learning_rate=5e-3, train_score_windows=16, ema_decay=0.9, checkpoint_every=2
)
AUGMENTATION = Augmentation(
    4, 12, 0.7, noise_snr_db=0.0, gain_db=6.0, reverb_rt60_s=0.1, freq_mask=1, time_mask=4
)


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(4, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(8, 2))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(features).mean(dim=2))
        return logits


def model(seed: int) -> Tiny:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Tiny()


def dithered(batch: torch.Tensor) -> torch.Tensor:
    """A front end that draws, in evaluations too."""
    return 10 * (batch + 1e-3 * torch.randn_like(batch)).unflatten(1, (4, 12))


def waves(windows: int, seed: int) -> Split:
    """Class 1 is louder; (window, 48) int16."""
    labels = torch.arange(windows) % 2
    noise = torch.randn(windows, 48, generator=torch.Generator().manual_seed(seed))
    return Split((noise * (1000 + 3000 * labels[:, None])).to(torch.int16), labels, ["s"] * windows)


TRAIN, VAL = waves(37, 0), waves(24, 1)  # 4 steps, 2 + 3 batches of evaluation
STEPS, BATCHES = 4, 5
ASKED = CONFIG.epochs * (STEPS + BATCHES)  # times that `should_stop` is asked in a whole training


class KilledError(BaseException):
    """Nothing is closed and nothing written any more."""


@dataclass
class Stop:
    """What `should_stop` says when it is asked for the n-th time: stop, or nothing because the process is dead."""

    at: float = math.inf
    kill: bool = False
    asked: int = 0

    def __call__(self) -> bool:
        self.asked += 1
        if self.asked > self.at and self.kill:
            raise KilledError
        return self.asked > self.at


def run(
    folder: Path | None = None, stop: Callable[[], bool] = lambda: False, *, net: Tiny | None = None,
    device: torch.device = CPU, config: TrainingConfig = CONFIG, checkpoint_s: float = 0, **named: Any,
) -> FitResult:  # fmt: skip
    return fit(
        net or model(1), TRAIN, VAL, config, seed=7, device=device, transform=dithered, augmentation=AUGMENTATION,
        checkpoints=folder, should_stop=stop, checkpoint_s=checkpoint_s, **named,
    )  # fmt: skip


def numbers(report: EpochReport) -> dict[str, float]:
    assert 0 < report.metrics["windows_per_s"] < math.inf
    return {name: value for name, value in report.metrics.items() if name != "windows_per_s"}


def bits(value: Any) -> Any:
    """Tensors as bytes, so that equal means equal bit for bit; without the clock's readings."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
    if isinstance(value, dict):
        return {name: bits(one) for name, one in value.items() if name not in ("windows_per_s", "seconds")}
    return [bits(one) for one in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Whole:
    """The training that nobody stopped: its result, the raw weights it left, its last checkpoint."""

    result: FitResult
    net: Tiny
    content: Any

    def assert_same(self, found: FitResult, net: Tiny, folder: Path) -> None:
        assert found.stopped == ""
        assert [numbers(one) for one in found.reports] == [numbers(one) for one in self.result.reports]
        assert (found.score, found.best_epoch) == (self.result.score, self.result.best_epoch)
        for name in ("best_state", "val_logits", "train_logits", "train_index"):
            assert bits(getattr(found, name)) == bits(getattr(self.result, name)), name
        assert bits(net.state_dict()) == bits(self.net.state_dict())
        assert bits(read_checkpoint(folder / CHECKPOINT)) == self.content
        assert [path.name for path in folder.iterdir()] == [CHECKPOINT]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return made_whole(tmp_path_factory.mktemp("whole"), CPU)


def made_whole(folder: Path, device: torch.device) -> Whole:
    net, stop = model(1), Stop()
    result = run(folder, stop, net=net, device=device)
    assert stop.asked == ASKED
    return Whole(result, net, bits(read_checkpoint(folder / CHECKPOINT)))


def first_life(folder: Path, stop: Stop, **named: Any) -> list[int]:
    """Train until it stops; the epochs reported."""
    heard: list[int] = []

    def on_epoch(report: EpochReport) -> bool:
        heard.append(report.epoch)
        return False

    try:
        assert run(folder, stop, on_epoch=on_epoch, **named).stopped == "interrupted"
    except KilledError:
        assert stop.kill
    return heard


@pytest.mark.parametrize("at", range(ASKED))
def test_interrupted_at_any_step_or_batch_and_resumed(tmp_path: Path, whole: Whole, at: int) -> None:
    heard = first_life(tmp_path, Stop(at))
    resumed, again = model(5), Stop()  # the resumed one begins with other weights: all come from the file
    net = resumed if at else model(1)  # but where nothing was done yet there is nothing to resume
    found = run(tmp_path, again, net=net, on_epoch=lambda report: heard.append(report.epoch) or False)
    whole.assert_same(found, net, tmp_path)
    assert heard == list(range(CONFIG.epochs))  # no epoch is reported twice
    epoch, place = divmod(at, STEPS + BATCHES)
    done = epoch * (STEPS + BATCHES) + min(place, STEPS)  # of an evaluation that was stopped no batch is kept
    assert again.asked == ASKED - done  # and no step is taken twice


@pytest.mark.parametrize("at", range(1, ASKED, 3))
def test_killed_at_any_step_and_resumed_from_the_checkpoint_before_it(
    tmp_path: Path, whole: Whole, at: int
) -> None:
    first_life(tmp_path, Stop(at, kill=True), checkpoint_s=0)
    net, again = model(5), Stop()
    found = run(tmp_path, again, net=net)
    whole.assert_same(found, net, tmp_path)
    assert again.asked <= ASKED - at + BATCHES + 1  # at most the step that it died in, or the evaluation


@given(st.lists(st.tuples(st.integers(1, 2 * STEPS + BATCHES), st.booleans()), min_size=2, max_size=8))
@settings(max_examples=6, deadline=None)
def test_stopped_again_and_again(
    tmp_path_factory: pytest.TempPathFactory, whole: Whole, lives: list[tuple[int, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("lives")
    for at, kill in lives:
        with contextlib.suppress(KilledError):
            if not run(folder, Stop(at, kill), checkpoint_s=0).stopped:
                break
    net = model(1)
    whole.assert_same(run(folder, net=net), net, folder)


def test_the_clock_decides_when_a_checkpoint_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, written = [0.0], []
    monkeypatch.setattr(training_checkpoint.time, "monotonic", lambda: now[0])
    write = training_checkpoint.Checkpoints.write

    def noted(self: Any, content: Any) -> None:
        place = content["place"]
        written.append((place["epoch"], place["step"]) if place else (len(content["reports"]), 0))
        write(self, content)

    monkeypatch.setattr(training_checkpoint.Checkpoints, "write", noted)

    def a_minute_passes() -> bool:
        now[0] += 60
        return False

    config = CONFIG.model_copy(update={"epochs": 2, "checkpoint_every": 100, "train_score_windows": 2})
    run(tmp_path, a_minute_passes, config=config, checkpoint_s=150)
    # asked: 4 steps, 1 + 3 batches; due at the third and sixth minute; the epoch's end is later than both
    assert written == [(0, 2), (1, 0), (1, 2), (2, 0)]


def test_the_seconds_of_an_epoch_add_up(tmp_path: Path) -> None:
    slow = 0.05

    def front_end(batch: torch.Tensor) -> torch.Tensor:
        time.sleep(slow)
        return dithered(batch)

    config = CONFIG.model_copy(update={"epochs": 1})
    for at in (1, 2, 2):
        fit(
            model(1), TRAIN, VAL, config, seed=7, device=CPU, transform=front_end, augmentation=AUGMENTATION,
            checkpoints=tmp_path, should_stop=Stop(at),
        )  # fmt: skip
    place = read_checkpoint(tmp_path / CHECKPOINT)["place"]
    assert (place["step"], place["seconds"] >= STEPS * slow) == (STEPS, True)
    report = run(tmp_path, config=config).reports[0]
    assert report.metrics["windows_per_s"] == pytest.approx(STEPS * 8 / place["seconds"], rel=0.2)


def damaged(content: bytes) -> Iterator[tuple[str, bytes]]:
    rng = random.Random(3)
    yield from {
        "empty": b"",
        "garbage": b"x" * 999,
        "headless": content[40:],
        "longer": content + b"\0",
    }.items()
    for length in sorted(rng.sample(range(1, len(content)), 10)):
        yield f"cut at {length}", content[:length]
    for at in [*range(0, 86, 17), *rng.sample(range(86, len(content)), 15)]:
        flipped = bytes([content[at] ^ 1 << rng.randrange(8)])
        yield f"flipped at {at}", content[:at] + flipped + content[at + 1 :]


def test_a_damaged_checkpoint_is_never_used_and_said(tmp_path: Path) -> None:
    first_life(tmp_path, Stop(2 * (STEPS + BATCHES) + 2))
    path = tmp_path / CHECKPOINT
    content = path.read_bytes()
    assert len(read_checkpoint(path)["reports"]) == 2
    for kind, altered in damaged(content):
        path.write_bytes(altered)
        with pytest.raises(DamagedCheckpointError, match=r"last\.pt (is|holds) "):
            (read_checkpoint(path), pytest.fail(kind))


@pytest.mark.parametrize("damage", ["flipped", "cut", "of an older version"])
def test_training_begins_again_where_the_checkpoint_is_damaged(
    tmp_path: Path, whole: Whole, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard = first_life(tmp_path, Stop(2 * (STEPS + BATCHES) + 2))
    path = tmp_path / CHECKPOINT
    content = path.read_bytes()
    if damage == "of an older version":
        torch.save({"format": 2, "identity": {}, "reports": []}, path)
    else:
        path.write_bytes(
            content[:-100] if damage == "cut" else content[:-100] + bytes([content[-100] ^ 4]) + content[-99:]
        )
    net = model(1)
    told = (
        r"is not a checkpoint of this version"
        if "older" in damage
        else r"is damaged: its sha256 is \w{12}\.\."
    )
    with caplog.at_level(logging.WARNING):
        found = run(tmp_path, net=net, on_epoch=lambda report: heard.append(report.epoch) or False)
    assert heard == [0, 1, 0, 1, 2]  # reported again, and equal:
    whole.assert_same(found, net, tmp_path)
    [warning] = caplog.messages
    assert warning.endswith("; the training begins again from its start")
    assert re.search(told, warning)


def reseal(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """A checkpoint that somebody made up, with a right digest."""
    content = read_checkpoint(folder / CHECKPOINT)
    change(content)
    training_checkpoint.Checkpoints(folder, 0).write(content)


def remove_weight(content: dict[str, Any]) -> None:
    del content["weights"]["head.1.bias"]


MADE_UP: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a weight less": remove_weight,
    "no place": lambda content: content.pop("place"),
    "reports of nothing": lambda content: content.update(reports=[{}]),
    "no optimizer": lambda content: content.update(optimizer=None),
}


@pytest.mark.parametrize("kind", MADE_UP)
def test_a_made_up_checkpoint_is_one_error(tmp_path: Path, kind: str) -> None:
    first_life(tmp_path, Stop(STEPS + BATCHES + 1))
    reseal(tmp_path, MADE_UP[kind])
    with pytest.raises(CheckpointError, match=r"does not fit this training .*remove it to start over"):
        run(tmp_path)


def test_a_checkpoint_that_would_run_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "owned",)

    training_checkpoint.Checkpoints(tmp_path, 0).write({"identity": Evil()})
    with pytest.raises(DamagedCheckpointError, match="holds no checkpoint"):
        read_checkpoint(tmp_path / CHECKPOINT)
    run(tmp_path, config=CONFIG.model_copy(update={"epochs": 1}))
    assert not (tmp_path / "owned").exists()


def test_what_a_killed_write_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / f".{CHECKPOINT}.abc").write_bytes(b"half")
    run(tmp_path, config=CONFIG.model_copy(update={"epochs": 1}))
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_a_gpu_resumes_with_the_same_bits(tmp_path: Path, precision: str) -> None:
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    cuda = torch.device("cuda")
    config = CONFIG.model_copy(update={"precision": precision})

    def finished(folder: Path) -> Any:
        net = model(1)
        run(folder, net=net, device=cuda, config=config)
        return bits(read_checkpoint(folder / CHECKPOINT)), bits(net.cpu().state_dict())

    expected = finished(tmp_path / "whole")
    for at in itertools.islice(range(1, ASKED), 0, None, 3):
        first_life(tmp_path / str(at), Stop(at), device=cuda, config=config)
        assert finished(tmp_path / str(at)) == expected, at


# A trial: what its worker's spool says of it

DATA = DataConfig(train_windows=120, val_windows=96, test_windows=96)


def test_an_epoch_that_comes_out_differently_is_noted_once_and_the_stored_one_stays(tmp_path: Path) -> None:
    for clock, loss in ((1.0, 0.25), (2.0, 0.25), (3.0, 0.5), (4.0, 0.5)):
        TrialSpool(tmp_path).append_epoch(0, {"val/loss": loss, "windows_per_s": clock})
    [stored] = TrialSpool(tmp_path).epochs()
    assert stored["metrics"] == {"val/loss": 0.25, "windows_per_s": 1.0}
    [note] = TrialSpool(tmp_path).notes()
    assert note == "epoch 0 came out differently when it was repeated: val/loss is 0.5, stored is 0.25"


@pytest.mark.slow
def test_a_trial_says_that_it_began_again(
    demo_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = prepare(DATA, data_root=None, cache=demo_cache)
    spool = TrialSpool(tmp_path / "spool")
    spool.folder.mkdir()
    spool.write("trial", {"run_name": "again"})
    config = TrialConfig.model_validate({
        "data": DATA.model_dump(), "feature": {"kind": "mfcc"}, "model": {"width": 0.0625}, "training": {"epochs": 3},
    })  # fmt: skip
    job = Job(
        4,
        config.model_dump(mode="json"),
        str(prepared.folder),
        str(spool.folder),
        str(tmp_path / "cache"),
        3,
        {},
    )
    heard: list[int] = []

    def on_epoch(epoch: int, metrics: dict[str, float]) -> bool:
        heard.append(epoch)
        return epoch == 1 and heard.count(0) > 1  # pruned in its second life, so that it exports nothing

    assert run_trial(job, CPU, on_epoch, lambda: len(heard) >= 2)["state"] == "interrupted"
    before, checkpoint = spool.epochs(), spool.folder / CHECKPOINT
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    outcome = run_trial(job, CPU, on_epoch, lambda: False)
    assert heard == [0, 1, 0, 1]
    assert spool.epochs() == before
    [note] = outcome["notes"]  # and none of an epoch that came out differently
    assert "last.pt is damaged" in note
    assert note in capsys.readouterr().err
    summary = TrialSummary(
        number=4, state="pruned", name="4", score=0.5, epochs=2, reason="", values={}, outcome=outcome,
        config=config.model_dump(mode="json"), fingerprint="f",
    )  # fmt: skip
    assert verdict_of(summary, {})["tags"]["harness.notes"] == note
