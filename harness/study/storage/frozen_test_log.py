"""Who opened a frozen test, and when: every look at it makes it a little less of a test."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

from filelock import FileLock

LEDGER = "test_openings.jsonl"


@dataclass(frozen=True)
class OpeningCounts:
    """How often these very test windows (by their manifest's digest) have been opened, this time included.

    by_study : for models of this study; by_all : for those of any study of the record
    """

    by_study: int
    by_all: int


def record_test_opening(
    record: Path,
    study: str,
    trial: int | str,
    manifest: str,
    *,
    subject: str = "",
    policy: str = "",
    promotion: str = "",
) -> OpeningCounts:
    """Write the opening of a test into the record's ledger, durably, before anything is scored on it.

    Where the line cannot be written whole (a full disk) it is taken back, and the test stays closed.

    Parameters
    ----------
    trial : a trial's number, or what an ensemble is called
    manifest : digest of the test windows
    subject : what messages call the model
    policy : name of the policy it was promoted under
    promotion : when the promotion began, ISO 8601
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    row: dict[str, Any] = {
        "study": study,
        "trial": trial,
        "subject": subject,
        "policy": policy,
        "manifest": manifest,
        "promotion": promotion,
        "time": now,
    }
    locks = record / "locks"
    locks.mkdir(exist_ok=True)
    with FileLock(locks / "ledger.lock"), FileIO(record / LEDGER, "a+") as file:
        file.seek(0)
        before = file.readall()
        # A torn last line (a kill) stays unreadable by itself.
        torn = before and not before.endswith(b"\n")
        _append(file, (b"\n" if torn else b"") + json.dumps(row).encode() + b"\n", len(before))
    studies = [one["study"] for one in [*_rows(before), row] if one.get("manifest") == manifest]
    return OpeningCounts(studies.count(study), len(studies))


def _append(file: FileIO, content: bytes, size: int) -> None:
    """Write all of it and flush it to the disk, or leave the file at its size."""
    try:
        written = 0
        while written < len(content):
            written += file.write(content[written:]) or 0
        os.fsync(file.fileno())
    except OSError as error:
        file.truncate(size)
        raise OSError(error.errno, error.strerror, str(file.name)) from error


def _rows(content: bytes) -> list[dict[str, Any]]:
    rows = []
    for line in content.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "study" in row:
            rows.append(row)
    return rows
