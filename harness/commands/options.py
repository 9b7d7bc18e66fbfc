"""Options that mean the same in every command, and how every command ends."""

from __future__ import annotations

import errno
import functools
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
from click.core import ParameterSource

from harness.core.environment import keep_quiet
from harness.core.file_permissions import private_files
from harness.core.signals import Stopped

if TYPE_CHECKING:
    from harness.config.parameters import Scalar
    from harness.study.storage.record import Record

EXIT_FAILED, EXIT_INPUT, EXIT_REFUSED = 1, 2, 3
# Errors that nothing in the input causes.
FAILURES = (
    "OutOfSpaceError", "WorkersFailedError", "PromotionError", "ArtifactError", "ServerError", "ExportError",
    "WeightsError",
    "ConfirmationFailedError", "DvcError", "AlteredError", "DatabaseUnreadableError",
)  # fmt: skip

Command = TypeVar("Command", bound=Callable[..., Any])

_RECORD = click.option(
    "--record", type=click.Path(path_type=Path, file_okay=False), envvar="HARNESS_RECORD",
    default=Path("mlruns"), show_default=True, show_envvar=True, help="Folder of the record.",
)  # fmt: skip
_DATA_ROOT = click.option(
    "--data-root", type=click.Path(path_type=Path, file_okay=False), envvar="HARNESS_DATA", show_envvar=True,
    help="Folder of the corpora on disk (not needed for demo).",
)  # fmt: skip
_CACHE = click.option(
    "--cache", type=click.Path(path_type=Path, file_okay=False), envvar="HARNESS_CACHE", show_envvar=True,
    help="Folder for prepared windows and features.  [default: the user's cache folder]",
)  # fmt: skip
_WORKERS = click.option(
    "--workers", type=click.IntRange(1, 256), help="Trials at once.  [default: one a core, or one a GPU]"
)
_DEVICE = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
    help="Where trials run.",
)  # fmt: skip
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
_QUIET = click.option("--quiet", "-q", is_flag=True, help="Print only what was asked for, and errors.")

_ALL = {
    "record": _RECORD, "data_root": _DATA_ROOT, "cache": _CACHE, "workers": _WORKERS,
    "device": _DEVICE, "json": _JSON, "quiet": _QUIET,
}  # fmt: skip


def common(*names: str) -> Callable[[Command], Command]:
    """Add common options by name, and turn errors meant for people into messages and exit codes."""

    def decorate(function: Command) -> Command:
        wrapped: Any = _ending(function)
        for name in reversed(names):
            wrapped = _ALL[name](wrapped)
        return wrapped  # type: ignore[no-any-return]

    return decorate


def settings(**options: Any) -> Any:
    """The settings of a command's options."""
    from harness.core.settings import Settings, default_cache

    data_root = options.get("data_root")
    return Settings(
        record=home(Path(options.get("record") or "mlruns")),
        cache=home(Path(options.get("cache") or default_cache())).absolute(),
        data_root=home(Path(data_root)).absolute() if data_root else None,
        workers=options.get("workers"),
        device=options.get("device") or "auto",
    )


def home(path: Path) -> Path:
    """A path with its leading ~ replaced, as the shell does (not in `--record=~/x`, nor from the environment)."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise click.UsageError(f"{path}: there is no such user's home folder") from None


def study_and_baseline(record: Record, word: str) -> tuple[str, Mapping[str, Scalar] | None]:
    """A study by its name, or the one that runs this sweep file, with the baseline that the file names."""
    if not word.endswith((".yaml", ".yml")):
        return word, None
    from harness.config.files.sweep_loader import load_sweep
    from harness.study.study import study_of

    sweep = load_sweep(Path(word))
    return study_of(record, sweep), sweep.baseline


def typed(*names: str) -> list[str]:
    """The options of these names as given on the command line; what the environment sets stays in force by itself."""
    context = click.get_current_context()
    words: list[str] = []
    for option in context.command.params:
        given = option.name is not None and context.get_parameter_source(option.name)
        if isinstance(option, click.Option) and option.name in names and given is ParameterSource.COMMANDLINE:
            value = context.params[option.name]
            if option.is_flag:
                words.append(option.opts[0])
                continue
            for one in value if option.multiple else (value,):
                words += [option.opts[0], str(one)]
    return words


def program() -> str:
    """How this program is called here, so that what is printed can be typed: `harness` or its path."""
    import shutil

    called = Path(sys.argv[0])
    if called.name != "harness" or shutil.which("harness") == str(called.absolute()):
        return "harness"
    try:
        return str(called.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(called)


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, sort_keys=False))


def print_error(message: str, code: int, *, as_json: bool) -> None:
    """An error as one JSON document on standard output, or as text on standard error."""
    with reader_may_be_gone():
        if as_json:
            print_json({"error": message, "exit_code": code})
        else:
            click.echo(message if code > 128 else f"error: {message}", err=True)


@contextmanager
def reader_may_be_gone() -> Iterator[None]:
    """Print in this block; a closed pipe or terminal changes nothing, not the exit code either."""
    from harness.view import silence

    try:
        yield
        sys.stdout.flush()
    except OSError:
        silence(sys.stdout)
        silence(sys.stderr)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """In this block a signal raises `Stopped`, so that servers are ended; the second one leaves at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []

    def stop(number: int, frame: object) -> None:
        del frame
        if seen:
            os._exit(128 + number)
        seen.append(number)
        raise Stopped(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if number != signal.SIGHUP or before[number] != signal.SIG_IGN:  # nohup
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _ending(function: Command) -> Command:
    @functools.wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        keep_quiet()
        as_json = bool(options.get("as_json", False))
        with _signals_raise(), private_files():
            try:
                return function(*args, **options)
            except click.ClickException:
                raise
            except KeyboardInterrupt as error:
                number = error.number if isinstance(error, Stopped) else signal.SIGINT
                _leave("stopped; the same command goes on", 128 + number, as_json=as_json)
            except BrokenPipeError:
                from harness.view import silence

                silence(sys.stdout)
                silence(sys.stderr)
                sys.exit(EXIT_FAILED)
            except Exception as error:
                code = exit_code_of(error)
                if code is None:
                    raise
                _leave(message_of(error), code, as_json=as_json)

    return run  # type: ignore[return-value]


def exit_code_of(error: Exception) -> int | None:
    """Exit code of an error meant for people; None for a bug, which keeps its traceback."""
    name = type(error).__name__
    if name in (
        "GateRefusedError",
        "ArmsRefusedError",
        "GuardRefusedError",
        "DataChangedError",
        "SeenMeetingsError",
        "RestoreRefusedError",
    ):
        return EXIT_REFUSED
    if name in FAILURES or _of_mlflow(error) or _disk_is_full(error):
        return EXIT_FAILED
    if name in ("DeviceRefusedError", "DeviceError") or _not_permitted(error):
        return EXIT_INPUT
    module = type(error).__module__
    ours = module.split(".")[0] in ("harness", "data", "models")
    return EXIT_INPUT if ours and isinstance(error, ValueError) else None


def message_of(error: Exception) -> str:
    """What people read of an error: its own words where they are ours."""
    if _of_mlflow(error):
        lines = str(error).strip().splitlines()
        return f"MLflow: {lines[0] if lines else type(error).__name__}"
    if _disk_is_full(error) and isinstance(error, OSError):
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


def _disk_is_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _not_permitted(error: Exception) -> bool:
    """Whether a file or a folder is not this user's, or is on a disk that may only be read."""
    codes = (errno.EACCES, errno.EPERM, errno.EROFS)
    return isinstance(error, OSError) and error.errno in codes and error.filename is not None


def _leave(message: str, code: int, *, as_json: bool) -> NoReturn:
    print_error(message, code, as_json=as_json)
    sys.exit(code)
