"""What `harness doctor` found in one place: how bad it is, what it is, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `fix` is one line, empty where nothing is to be done."""

    level: Level
    subject: str
    message: str
    fix: str = ""

    def as_json(self) -> dict[str, str]:
        """The fields that `--json` prints."""
        return {"level": self.level, "subject": self.subject, "message": self.message, "fix": self.fix}


def ok(subject: str, message: str) -> Finding:
    """Nothing to do."""
    return Finding("ok", subject, message)


def warn(subject: str, message: str, fix: str) -> Finding:
    """Works, and may hurt."""
    return Finding("warn", subject, message, fix)


def problem(subject: str, message: str, fix: str) -> Finding:
    """Something will not work until it is mended."""
    return Finding("problem", subject, message, fix)
