"""What `harness doctor` found in one place: how bad it is, what it is, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    level : `warn` works and may hurt; `problem` will not work, and makes `doctor` exit with 1
    subject : the group of checks, such as `disk`
    fix : one line, a command where there is one; "" where nothing is to be done
    """

    level: Level
    subject: str
    message: str
    fix: str = ""

    def as_json(self) -> dict[str, str]:
        """One entry of `findings` in the document of `harness doctor --json`."""
        return {"level": self.level, "subject": self.subject, "message": self.message, "fix": self.fix}


def ok(subject: str, message: str) -> Finding:
    """A finding that asks for nothing."""
    return Finding("ok", subject, message)


def warn(subject: str, message: str, fix: str) -> Finding:
    """A finding that may hurt, though everything works; `fix` is what to do, in one line."""
    return Finding("warn", subject, message, fix)


def problem(subject: str, message: str, fix: str) -> Finding:
    """A finding by which something will not work until it is mended as `fix` says, in one line."""
    return Finding("problem", subject, message, fix)
