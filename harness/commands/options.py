"""Options that mean the same in every command, and how every command ends."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

EXIT_FAILED, EXIT_INPUT, EXIT_REFUSED = 1, 2, 3

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
    from harness.settings import Settings, default_cache

    cache = options.get("cache") or default_cache()
    return Settings(
        record=Path(options.get("record") or "mlruns"),
        cache=Path(cache).expanduser().absolute(),
        data_root=Path(options["data_root"]).expanduser().absolute() if options.get("data_root") else None,
        workers=options.get("workers"),
        device=options.get("device") or "auto",
    )


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


def apply_environment(**options: Any) -> None:
    """Nothing of a run is told to third parties."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")


def _ending(function: Command) -> Command:
    @functools.wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        apply_environment()
        try:
            return function(*args, **options)
        except click.ClickException:
            raise
        except KeyboardInterrupt:
            _leave("stopped", 130, as_json=options.get("as_json", False))
        except BrokenPipeError:
            sys.stderr.close()
            sys.exit(EXIT_FAILED)
        except Exception as error:
            code = exit_code_of(error)
            if code is None:
                raise
            _leave(str(error), code, as_json=options.get("as_json", False))

    return run  # type: ignore[return-value]


def exit_code_of(error: Exception) -> int | None:
    """Exit code of an error meant for people; None for a bug, which keeps its traceback."""
    name = type(error).__name__
    if name in ("GateRefusedError", "GuardRefusedError", "DataChangedError"):
        return EXIT_REFUSED
    if name in ("OutOfSpaceError", "WorkersFailedError", "PromotionError"):
        return EXIT_FAILED
    if name in ("DeviceRefusedError", "DeviceError"):
        return EXIT_INPUT
    module = type(error).__module__
    ours = module.split(".")[0] in ("harness", "data", "models")
    return EXIT_INPUT if ours and isinstance(error, ValueError) else None


def _leave(message: str, code: int, *, as_json: bool) -> NoReturn:
    if as_json:
        print_json({"error": message, "exit_code": code})
    else:
        click.echo(message if code == 130 else f"error: {message}", err=True)
    sys.exit(code)
