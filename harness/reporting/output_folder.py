"""Where a report goes, checked before anything heavy is imported or read."""

from __future__ import annotations

import os
from pathlib import Path

from harness.core.errors import InputError


class ReportError(InputError):
    """A report that cannot be made or written; the message says why."""


def require_folder(folder: Path) -> None:
    """Raise ReportError for a folder into which nothing can be written, or which cannot be made; it makes nothing."""
    exists = folder
    while not exists.exists() and exists != exists.parent:
        exists = exists.parent
    if not exists.is_dir():
        raise ReportError(f"{exists} is not a folder: give another --output")
    if not os.access(exists, os.W_OK | os.X_OK):
        raise ReportError(f"nothing can be written into {exists}: give another --output")
