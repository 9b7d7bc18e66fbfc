"""Files that are whole or absent, whatever kills the process or the power."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomic(path: Path, *parts: bytes | memoryview) -> None:
    """Write ``parts``, one after the other, beside ``path``, flush to the disk, then rename: never half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The number of the process says, after a kill, that nobody will finish it.
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.{os.getpid()}")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)  # who may read it, the umask says
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Make a file's bytes, or the names in a folder, durable: they survive a loss of power from here on (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
