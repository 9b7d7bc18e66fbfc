"""Errors meant for people: their base class says with which code a command ends.

    FailedError    1    the work failed, and the input is not to blame
    UsageError     2    what was asked for cannot be done; InputError: for the values, files or names in it
    RefusedError   3    a gate or a guard said no

A builtin stands beside the base class where callers catch by it: `class ServerError(FailedError, RuntimeError)`.
`models.errors` and `data.errors` have bases of their own, for they know no harness.
"""

from __future__ import annotations

from typing import ClassVar


class HarnessError(Exception):
    """An error whose text is one clear message for people: a command prints it without a traceback.

    Attributes
    ----------
    exit_code : what a command that ends with the error returns to the shell
    """

    exit_code: ClassVar[int] = 1


class FailedError(HarnessError):
    """The work failed, and nothing in the input caused it."""

    exit_code = 1


class UsageError(HarnessError):
    """What was asked for cannot be done."""

    exit_code = 2


class InputError(UsageError, ValueError):
    """A value, a file or a name that cannot be used."""


class RefusedError(HarnessError):
    """A gate or a guard refused."""

    exit_code = 3
