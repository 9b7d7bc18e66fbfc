"""Errors of models meant for people; `exit_code` is the one of a command that ends with them."""

from __future__ import annotations

from typing import ClassVar


class ModelError(ValueError):
    """A model, a file or a front end that cannot be used; the message says why."""

    exit_code: ClassVar[int] = 2


class FieldError(ValueError):
    """A value that breaks a law of its configuration; `fields` are those that the law binds, the first to blame first.

    Pydantic keeps it in the `ctx` of its own error, so that whoever read the values from a file can name their lines.
    `data.errors` has one of its own, for neither package knows the other.
    """

    def __init__(self, message: str, *fields: str) -> None:
        super().__init__(message)
        self.fields = fields


class ModelFailedError(ModelError):
    """What the program itself made cannot be used: nothing in the input caused it."""

    exit_code = 1


def one_line(error: BaseException) -> str:
    """Give the first line of what an error says, or its type's name where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
