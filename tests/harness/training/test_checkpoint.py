"""A training that is killed, pruned, interrupted or finished, and what its checkpoints are good for then."""

import math
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.training.checkpoint import Checkpoints, due_after, read_checkpoint
from harness.training.fit import CheckpointError, EpochReport
from tests.harness.places.separable_training import CONFIG, model, run, same, same_weights


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
