"""Options that mean the same in every command; whoever takes them ends as `exits` says."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from harness.cli.exits import Command, handle_errors

if TYPE_CHECKING:
    from harness.config.parameters import Scalar
    from harness.study.storage.record import Record


_RECORD = click.option(
    "--record",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="HARNESS_RECORD",
    default=Path("mlruns"),
    show_default=True,
    show_envvar=True,
    help="Folder of the record.",
)
_DATA_ROOT = click.option(
    "--data-root",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="HARNESS_DATA",
    show_envvar=True,
    help="Folder of the corpora on disk (not needed for demo).",
)
_CACHE = click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="HARNESS_CACHE",
    show_envvar=True,
    help="Folder for prepared windows and features.  [default: the user's cache folder]",
)
_WORKERS = click.option(
    "--workers", type=click.IntRange(1, 256), help="Trials at once.  [default: one a core, or one a GPU]"
)
_DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where trials run.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
_QUIET = click.option("--quiet", "-q", is_flag=True, help="Print only what was asked for, and errors.")

_ALL = {
    "record": _RECORD,
    "data_root": _DATA_ROOT,
    "cache": _CACHE,
    "workers": _WORKERS,
    "device": _DEVICE,
    "json": _JSON,
    "quiet": _QUIET,
}


def common_options(*names: str) -> Callable[[Command], Command]:
    """Add common options, and let the command end by `handle_errors`; every command has this decorator.

    Parameters
    ----------
    names : of `record`, `data_root`, `cache`, `workers`, `device`, `json` (parameter `as_json`) and `quiet`, in the
        order in which --help lists them
    """

    def decorate(function: Command) -> Command:
        wrapped: Any = handle_errors(function)
        for name in reversed(names):
            wrapped = _ALL[name](wrapped)
        return wrapped  # type: ignore[no-any-return]

    return decorate


def settings(**options: Any) -> Any:
    """The Settings of a command's common options; one that the command does not take has its default."""
    from harness.core.settings import Settings, default_cache

    data_root = options.get("data_root")
    return Settings(
        record=expand_home(Path(options.get("record") or "mlruns")),
        cache=expand_home(Path(options.get("cache") or default_cache())).absolute(),
        data_root=expand_home(Path(data_root)).absolute() if data_root else None,
        workers=options.get("workers"),
        device=options.get("device") or "auto",
    )


def expand_home(path: Path) -> Path:
    """A path with its leading ~ replaced: the shell leaves it in `--record=~/x`, and in a variable's value.

    Raises
    ------
    click.UsageError
        There is no such user.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise click.UsageError(f"{path}: there is no such user's home folder") from None


def study_and_baseline(record: Record, word: str) -> tuple[str, Mapping[str, Scalar] | None]:
    """A study's name, and the baseline that its file names.

    Parameters
    ----------
    word : a study's name (then the baseline is None), or the sweep file (.yaml, .yml) that the study runs
    """
    if not word.endswith((".yaml", ".yml")):
        return word, None
    from harness.config.files.sweep_loader import load_sweep
    from harness.study.study import study_of

    sweep = load_sweep(Path(word))
    return study_of(record, sweep), sweep.baseline


def typed_options(*names: str) -> list[str]:
    """The options of these names as words of a command that goes on with this one.

    Only what was typed: defaults and what the environment sets stay in force by themselves.
    """
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
