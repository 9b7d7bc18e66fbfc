"""Who opened a frozen test, and when: every look at it makes it a little less of a test."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

LEDGER = "test_openings.jsonl"


@dataclass(frozen=True)
class Openings:
    """How often these very test windows have been opened, this time included."""

    by_study: int
    by_all: int


def open_test(record: Path, study: str, trial: int | str, manifest: str) -> Openings:
    """Write the opening of a test into the record's ledger, durably, before anything is scored on it.

    `trial` is a trial's number, or what an ensemble is called.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    line = json.dumps({"study": study, "trial": trial, "manifest": manifest, "time": now})
    with (record / LEDGER).open("a+b") as file:
        file.seek(0)
        before = file.read()
        # A torn last line (a kill, a full disk) stays unreadable by itself.
        file.write((b"" if not before or before.endswith(b"\n") else b"\n") + line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        studies = [row["study"] for row in _rows(file.read()) if row.get("manifest") == manifest]
    return Openings(studies.count(study), len(studies))


def _rows(content: bytes) -> list[dict[str, str]]:
    rows = []
    for line in content.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "study" in row:
            rows.append(row)
    return rows
