"""Optuna's journal, kept readable on a full disk, and after a kill in the middle of a line."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import orjson
from optuna.storages.journal import JournalFileBackend


class AtomicJournalBackend(JournalFileBackend):
    """Appends all lines or none: what follows a torn line could never be read again."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append; where that fails, cut off what was written of it.

        A line that another process tore, killed as it wrote, is cut off before: studies share the journal.

        Raises
        ------
        OSError
            There is no room; the journal is as it was, and named.
        """
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        self._lock.acquire()
        try:
            # As Optuna's, under one lock and opened once.
            with Path(self._file_path).open("rb+", buffering=0) as file:
                _cut_torn_line(file)
                size = file.seek(0, os.SEEK_END)
                try:
                    while lines:
                        lines = lines[file.write(lines) :]
                    os.fsync(file.fileno())
                except OSError as error:
                    file.truncate(size)
                    raise OSError(error.errno, error.strerror, self._file_path) from error
        finally:
            self._lock.release()


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


def parsed(text: str | bytes) -> dict[str, Any]:
    """A JSON object, NaN and Infinity allowed, which Python writes and JSON does not know."""
    try:
        found: dict[str, Any] = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = json.loads(text)
    return found
