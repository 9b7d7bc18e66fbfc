"""The one checkpoint file of a training: whole and of this training, or not used.

    last.pt     "harness checkpoint 3", newline, sha256 of the rest in hex, newline, the rest: what torch.save wrote

Everything is in one file that takes its name when it is on the disk: killed anywhere, a reader sees the one before or
the new one. The digest finds what the disk did to it; it is no signature, and the reader runs no code of the file.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from harness.core.errors import InputError
from harness.study.storage.trial_spool import CHECKPOINT
from models.files import write_atomic

CHECKPOINT_S = 300.0  # seconds of training that a kill may cost
# Of a training's time: on a GPU an epoch can take less than a checkpoint of its network.
SHARE = 0.02
_MAGIC = b"harness checkpoint 3\n"
_HEADER = len(_MAGIC) + 64 + 1


class CheckpointError(InputError):
    """A whole checkpoint that belongs to another training: only a person may decide to remove it."""


class DamagedCheckpointError(InputError):
    """A checkpoint that cannot be used: starting over gives the same numbers, only later."""


class Checkpoints:
    """A training's folder, and when it was last written to; without a folder nothing is ever due.

    Parameters
    ----------
    every_s : seconds of training that a kill may cost
    """

    def __init__(self, folder: Path | None, every_s: float) -> None:
        self.folder, self._every_s = folder, every_s
        self._written = time.monotonic()
        self.took_s = 0.0  # to write the last one

    @property
    def age_s(self) -> float:
        """Seconds of training since the last checkpoint."""
        return time.monotonic() - self._written

    @property
    def due(self) -> bool:
        """Whether the last checkpoint is older than `every_s`; asked at every step, never true without a folder."""
        return self.folder is not None and self.age_s >= self._every_s

    def write(self, content: Mapping[str, Any]) -> None:
        """Replace ``last.pt`` durably and start the clock of `due` again; without a folder nothing happens."""
        if self.folder is None:
            return
        start = time.monotonic()
        buffer = io.BytesIO()
        torch.save(dict(content), buffer)
        body = buffer.getbuffer()
        # not joined: a body of 50 MB would be copied once more
        write_atomic(self.folder / CHECKPOINT, _MAGIC, _digest(body), b"\n", body)
        self._written = time.monotonic()
        self.took_s = self._written - start

    def read(self, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """The content of ``last.pt``; None where there is none.

        Raises
        ------
        DamagedCheckpointError
            It is damaged, was not written by this version, or is no checkpoint at all.
        CheckpointError
            It is whole, and of another training: ``identity`` differs.
        """
        if self.folder is None:
            return None
        path = self.folder / CHECKPOINT
        for left in self.folder.glob(f".{CHECKPOINT}.*"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)
        if not path.exists():
            return None
        content = read_checkpoint(path)
        if content["identity"] != dict(identity):
            raise CheckpointError(_difference(path, content["identity"], identity))
        return content


def due_after(epoch: int, every: int | None, kept: Sequence[Checkpoints]) -> bool:
    """Whether checkpoints are written after this 0-based epoch; `kept` are those written together.

    They are where one is due by its age. Else `every` decides, where it is given: after each so many epochs. Else they
    are where writing them took, the last time, at most SHARE of the training since then.
    """
    if any(one.due for one in kept):
        return True
    if every is not None:
        return (epoch + 1) % every == 0
    return sum(one.took_s for one in kept) <= SHARE * min(one.age_s for one in kept)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, its tensors on the CPU.

    Raises
    ------
    DamagedCheckpointError
        Another version wrote it, its digest is wrong, or it holds no checkpoint of a training.
    """
    data = path.read_bytes()
    if not data.startswith(_MAGIC):
        raise DamagedCheckpointError(f"{path} is not a checkpoint of this version")
    noted, body = data[len(_MAGIC) : _HEADER - 1], data[_HEADER:]
    found = _digest(body)
    if noted != found or data[_HEADER - 1 : _HEADER] != b"\n":
        raise DamagedCheckpointError(
            f"{path} is damaged: its sha256 is {found[:12].decode()}.., not {noted[:12].decode('ascii', 'replace')}.."
        )
    try:
        content = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:  # it was made up: the reader raises nearly anything
        raise DamagedCheckpointError(f"{path} holds no checkpoint ({type(error).__name__})") from error
    if not isinstance(content, dict) or not isinstance(content.get("identity"), dict):
        raise DamagedCheckpointError(f"{path} holds no checkpoint of a training")
    return content


def _digest(body: bytes | memoryview) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


def _difference(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    names = sorted({*map(str, found), *wanted})
    parts = [
        f"{n} {found.get(n)!r} there, {wanted.get(n)!r} here" for n in names if found.get(n) != wanted.get(n)
    ]
    return f"{path} is the checkpoint of another training ({'; '.join(parts)}); remove it to start over"
