"""Optuna's journal, kept readable on a full disk, and after a kill in the middle of a line."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from filelock import BaseFileLock
from optuna.storages.journal import BaseJournalBackend


class AtomicJournalBackend(BaseJournalBackend):
    """Appends all lines or none: what follows a torn line could never be read again.

    The lock is the kernel's, which releases it when its holder dies (Optuna's own blocks 30 s then).
    """

    def __init__(self, path: Path, lock: BaseFileLock) -> None:
        self.path = path
        self._lock = lock
        self._read = (0, 0)  # lines that were read, and the bytes that they take
        self._held: list[dict[str, Any]] | None = None  # what a block of `together` has appended
        self.shown = True  # else `read_logs` finds nothing
        if not path.exists():
            path.touch()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """All whole lines from this one on; those that were read before are passed over without a look."""
        number, size = self._read if log_number_from >= self._read[0] else (0, 0)
        for line in whole_lines(self.path, size) if self.shown else ():
            number, size = number + 1, size + len(line)
            self._read = (number, size)
            if number > log_number_from:
                yield parse_json(line)

    def skip(self, lines: int, size: int) -> None:
        """Let `read_logs` go on behind the first so many lines, which take so many bytes and were read otherwise."""
        self._read = (lines, size)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make one append, at the block's end, of what is appended in it; nothing where the block raises.

        A kill leaves the first of the lines or none; an append that fails leaves none. One thread writes at a time.
        """
        assert self._held is None, "one block at a time"
        held: list[dict[str, Any]] = []
        self._held = held
        try:
            yield
        finally:
            self._held = None
        self._write(held)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append, at once or at the end of a block of `together`.

        Raises
        ------
        OSError
            There is no room; the journal is as it was, and named.
        """
        if self._held is None:
            self._write(logs)
        else:
            self._held.extend(logs)

    def _write(self, logs: list[dict[str, Any]]) -> None:
        """Write all lines; where that fails, cut off what was written of them.

        A line that another process tore, killed as it wrote, is cut off before: studies share the journal.
        """
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with self._lock, self.path.open("rb+", buffering=0) as file:
            _cut_torn_line(file)
            size = file.seek(0, os.SEEK_END)
            try:
                while lines:
                    lines = lines[file.write(lines) :]
                os.fsync(file.fileno())
            except OSError as error:
                file.truncate(size)
                raise OSError(error.errno, error.strerror, str(self.path)) from error


def whole_lines(journal: Path, start: int = 0) -> Iterator[bytes]:
    """The lines behind so many bytes; not the last one that is being written, or was torn by a kill."""
    with journal.open("rb") as file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield line


def repair_tail(journal: Path) -> int:
    """Cut a torn last line off a journal; bytes removed. Call it under the journal's lock."""
    if not journal.is_file():
        return 0
    with journal.open("rb+", buffering=0) as file:
        return _cut_torn_line(file)


def _cut_torn_line(file: io.FileIO) -> int:
    end = file.seek(0, os.SEEK_END)
    if not end:
        return 0
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return 0
    start, keep = end, 0
    while start > 0:
        start = max(0, start - 65_536)
        file.seek(start)
        newline = file.read(65_536).rfind(b"\n")
        if newline >= 0:
            keep = start + newline + 1
            break
    file.truncate(keep)
    os.fsync(file.fileno())
    return end - keep


def parse_json(text: str | bytes) -> dict[str, Any]:
    """A JSON object, NaN and Infinity allowed, which Python writes and JSON does not know; ValueError: it is none."""
    try:
        found: dict[str, Any] = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = json.loads(text)
    return found
