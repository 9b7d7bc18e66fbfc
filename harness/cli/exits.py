"""How every command ends: messages, exit codes."""

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
    """One JSON document on standard output."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, sort_keys=False))


def print_error(message: str, code: int, *, as_json: bool) -> None:
    """An error as one JSON document on standard output, or as text on standard error."""
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


def _handle_errors(function: Command) -> Command:
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
    """Exit code of an error meant for people; None for a bug, which keeps its traceback."""
    if isinstance(error, HarnessError | ModelError | DataError):
        return error.exit_code
    if _of_mlflow(error) or says_disk_full(error):
        return EXIT_FAILED
    return EXIT_INPUT if _not_permitted(error) else None


def message_of(error: Exception) -> str:
    """What people read of an error: its own words where they are ours."""
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
