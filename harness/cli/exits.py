"""How every command ends: one message for people, and an exit code.

    0                 done
    1   EXIT_FAILED   the work failed: FailedError, MLflow or the way to it, a full disk, a closed pipe; a sweep without
                      a complete trial; a problem that `doctor` found; a bug, which keeps its traceback
    2   EXIT_INPUT    wrong usage (click), UsageError and InputError, most errors of `data` and `models`, a file that is
                      not this user's to read or write
    3   EXIT_REFUSED  a gate or a guard refused: RefusedError, and what `verify`, `data audit`, `data verify` and a dry
                      run of `promote` refuse
    128 + N           signal N stopped it: 129 HUP, 130 INT, 143 TERM

The class of an error carries its code, `exit_code` of `harness.core.errors`, `data.errors` and `models.errors`; no
message is read for it. Errors of others (MLflow's, the system's) have none: `exit_code_of` tells them by type and
errno.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import click

from data.errors import DataError
from harness.core.disk_space import says_disk_full
from harness.core.environment import disable_telemetry
from harness.core.errors import FailedError, HarnessError, InputError, RefusedError
from harness.core.files import private_files
from harness.core.format import one_line
from harness.core.signals import Stopped, handling_signals
from models.errors import ModelError

EXIT_FAILED, EXIT_INPUT, EXIT_REFUSED = FailedError.exit_code, InputError.exit_code, RefusedError.exit_code
Command = TypeVar("Command", bound=Callable[..., Any])


def print_json(document: Any) -> None:
    """The one JSON document of `--json`, on standard output; its keys keep the order in which they were built."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, sort_keys=False))


def print_error(message: str, code: int, *, as_json: bool) -> None:
    """An error as one JSON document on standard output, or as text on standard error.

    Parameters
    ----------
    code : the exit code; above 128 somebody stopped the command, which is no error
    """
    with ignore_broken_pipe():
        if as_json:
            print_json({"error": message, "exit_code": code})
        else:
            click.echo(message if code > 128 else f"error: {message}", err=True)


@contextmanager
def ignore_broken_pipe() -> Iterator[None]:
    """Print in this block; a closed pipe or terminal changes nothing, not the exit code either."""
    from harness.cli.live_view import discard_buffer

    try:
        yield
        sys.stdout.flush()
    except OSError:
        discard_buffer(sys.stdout)
        discard_buffer(sys.stderr)


def _stopper() -> Callable[[int, object], None]:
    """A handler that raises `Stopped`, so that servers are ended; the second signal leaves at once."""
    seen: list[int] = []

    def stop(number: int, frame: object) -> None:
        del frame
        if seen:
            os._exit(128 + number)
        seen.append(number)
        raise Stopped(number)

    return stop


def handle_errors(function: Command) -> Command:
    """Wrap a command, so that errors meant for people become a message and the exit code of their class.

    A signal becomes `Stopped` and ends it with 128 + its number; in the command only its user can read new files.
    """

    @functools.wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        disable_telemetry()
        as_json = bool(options.get("as_json", False))
        with handling_signals(_stopper()), private_files():
            try:
                return function(*args, **options)
            except click.ClickException:
                raise
            except KeyboardInterrupt as error:
                number = error.number if isinstance(error, Stopped) else signal.SIGINT
                _exit_with_error("stopped; the same command goes on", 128 + number, as_json=as_json)
            except BrokenPipeError:
                from harness.cli.live_view import discard_buffer

                discard_buffer(sys.stdout)
                discard_buffer(sys.stderr)
                sys.exit(EXIT_FAILED)
            except Exception as error:
                code = exit_code_of(error)
                if code is None:
                    raise
                _exit_with_error(message_of(error), code, as_json=as_json)

    return run  # type: ignore[return-value]


def exit_code_of(error: Exception) -> int | None:
    """Exit code of an error meant for people: its class's, else what type and errno say; None for a bug."""
    if isinstance(error, HarnessError | ModelError | DataError):
        return error.exit_code
    if _of_mlflow(error) or says_disk_full(error):
        return EXIT_FAILED
    return EXIT_INPUT if _not_permitted(error) else None


def message_of(error: Exception) -> str:
    """What people read of an error that has an exit code: its own words where they are ours, else what to do."""
    if _of_mlflow(error):
        return f"MLflow: {one_line(error)}"
    if says_disk_full(error):
        return (
            f"no space left on {error.filename or 'the disk'}: free some space and run the same command again"
        )
    if _not_permitted(error) and isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}: give yourself the right to it, or name another place"
    return str(error)


def _of_mlflow(error: Exception) -> bool:
    """Whether MLflow, or the connection to it, failed; told by names, because importing them takes seconds."""
    known = {("mlflow", "MlflowException"), ("requests", "ConnectionError"), ("requests", "Timeout")}
    return any((kind.__module__.split(".")[0], kind.__name__) in known for kind in type(error).__mro__)


def _not_permitted(error: Exception) -> bool:
    """Whether a file or a folder is not this user's, or is on a disk that may only be read."""
    codes = (errno.EACCES, errno.EPERM, errno.EROFS)
    return isinstance(error, OSError) and error.errno in codes and error.filename is not None


def _exit_with_error(message: str, code: int, *, as_json: bool) -> NoReturn:
    print_error(message, code, as_json=as_json)
    sys.exit(code)
