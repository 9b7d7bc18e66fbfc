"""Errors meant for people: what is wrong, the value, the nearest right one, what to do."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from typing import ClassVar, TypeGuard

LISTED = 12
LOOSE = 0.5  # of names of parts and the like, which are short


class DataError(ValueError):
    """Data or a data configuration that cannot be used; the message says what to do."""

    exit_code: ClassVar[int] = 2  # of a command that ends with it


class FieldError(ValueError):
    """A value that breaks a law of its configuration; `fields` are those that the law binds, the first to blame first.

    Pydantic keeps it in the `ctx` of its own error, so that whoever read the values from a file can name their lines.
    `models.errors` has one of its own, for neither package knows the other.
    """

    def __init__(self, message: str, *fields: str) -> None:
        super().__init__(message)
        self.fields = fields


class AudioError(DataError):
    """One file whose audio cannot be used; the message is the reason it is set aside."""


def one_line(error: BaseException) -> str:
    """Return the first line of what an error says without its full stop, or its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def says_disk_full(error: BaseException) -> TypeGuard[OSError]:
    """Tell whether this very error is the system's own about a full disk (ENOSPC) or a used-up quota (EDQUOT).

    The narrow question: what only came of one is another error.
    """
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def nearest(value: str, options: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the option closest in spelling to ``value``, whatever its case, or None when none is close.

    Parameters
    ----------
    cutoff : of difflib, 0 to 1: how much of it must be the same
    """
    names = sorted(options)
    folded = {name.casefold(): name for name in reversed(names)}
    close = difflib.get_close_matches(value.casefold(), list(folded), n=1, cutoff=cutoff)
    return folded[close[0]] if close else None


def listed(values: Iterable[str], limit: int = LISTED) -> str:
    """Return ``values`` joined by commas, cut after ``limit`` with the number left out."""
    names = list(values)
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def unknown(what: str, value: str, options: Iterable[str]) -> str:
    """Return the one-line message for a name that is not registered: the nearest one, and those there are.

    Parameters
    ----------
    what : what such a name is of: `corpus`, `label rule`
    """
    names = sorted(options)
    guess = nearest(value, names, LOOSE)
    hint = f"; did you mean {guess!r}?" if guess else ""
    return f"unknown {what} {value!r}{hint} (known: {listed(names) or 'none'})"
