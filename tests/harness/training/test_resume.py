"""A training that is stopped anywhere, however often, ends with the bits of one that was not."""

from __future__ import annotations

import contextlib
import itertools
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.config import DataConfig
from data.preparation.prepare import prepare
from harness.config.trial.trial_config import TrialConfig
from harness.study.storage.trial_spool import CHECKPOINT, TrialSpool
from harness.study.trials import TrialSummary
from harness.tracking.run_verdict import verdict_of
from harness.training import checkpoint
from harness.training.checkpoint import read_checkpoint
from harness.training.fit import fit
from harness.training.job import Job
from harness.training.trial import run_trial
from tests.harness.places.resumable_training import (
    ASKED,
    AUGMENTATION,
    BATCHES,
    CONFIG,
    CPU,
    STEPS,
    TRAIN,
    VAL,
    KilledError,
    Stop,
    Whole,
    bits,
    dithered,
    first_life,
    run,
)
from tests.harness.places.separable_training import model


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
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    write = checkpoint.Checkpoints.write

    def noted(self: Any, content: Any) -> None:
        place = content["place"]
        written.append((place["epoch"], place["step"]) if place else (len(content["reports"]), 0))
        write(self, content)

    monkeypatch.setattr(checkpoint.Checkpoints, "write", noted)

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
