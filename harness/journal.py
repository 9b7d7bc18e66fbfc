"""Optuna's journal, kept readable on a full disk, and after a kill in the middle of a line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend


class WholeLines(JournalFileBackend):
    """Appends all lines or none: what follows a torn line could never be read again."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append; where that fails, cut off what was written of it.

        A line that another process tore, killed as it wrote, is cut off before: studies share the journal.

        Raises
        ------
        OSError
            There is no room; the journal is as it was, and named.
        """
        self._lock.acquire()
        try:
            repair_tail(Path(self._file_path))
            size = Path(self._file_path).stat().st_size
            try:
                super().append_logs(logs)
            except OSError as error:
                os.truncate(self._file_path, size)
                raise OSError(error.errno, error.strerror, self._file_path) from error
        finally:
            self._lock.release()


def repair_tail(journal: Path) -> int:
    """Cut a torn last line off a journal; bytes removed. Call it under the journal's lock."""
    if not journal.is_file():
        return 0
    with journal.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        start = size
        while start > 0:
            start = max(0, start - 65_536)
            file.seek(start)
            newline = file.read(65_536).rfind(b"\n")
            if newline >= 0:
                keep = start + newline + 1
                break
        else:
            keep = 0
        if keep < size:
            file.truncate(keep)
            os.fsync(file.fileno())
        return size - keep
