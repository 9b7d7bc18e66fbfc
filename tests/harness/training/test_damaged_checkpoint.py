"""A checkpoint that is damaged, made up or of another version is never used, and said."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.study.storage.trial_spool import CHECKPOINT
from harness.training import checkpoint
from harness.training.checkpoint import DamagedCheckpointError, read_checkpoint
from harness.training.fit import CheckpointError
from tests.harness.places.resumable_training import BATCHES, CONFIG, STEPS, Stop, Whole, first_life, run
from tests.harness.places.separable_training import model


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
    checkpoint.Checkpoints(folder, 0).write(content)


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

    checkpoint.Checkpoints(tmp_path, 0).write({"identity": Evil()})
    with pytest.raises(DamagedCheckpointError, match="holds no checkpoint"):
        read_checkpoint(tmp_path / CHECKPOINT)
    run(tmp_path, config=CONFIG.model_copy(update={"epochs": 1}))
    assert not (tmp_path / "owned").exists()


def test_what_a_killed_write_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / f".{CHECKPOINT}.abc").write_bytes(b"half")
    run(tmp_path, config=CONFIG.model_copy(update={"epochs": 1}))
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
