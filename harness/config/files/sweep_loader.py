"""A sweep file, its overrides and its checks, to the typed `Sweep`: the first of the eight stops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data.errors import nearest
from harness.config.files.yaml_file import (
    Problem,
    SweepError,
    UnreadableError,
    YamlFile,
    mistakes_of,
    read_yaml_file,
)
from harness.config.sweep import Sweep

# Ruamel reads about 40 kB a second, and a wrong file is told within one.
MAX_BYTES = 16_384


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read, override and check a sweep file.

    Raises
    ------
    SweepError
        With every mistake found, each with its line, its value and the nearest right name.
    """
    file = read_sweep_file(path)
    file.override(overrides)
    return sweep_from(file)


def read_sweep_file(path: Path) -> YamlFile:
    """Read one YAML file into plain values.

    Raises
    ------
    SweepError
        The file is absent, not UTF-8, too large, not YAML, uses aliases or tags, or repeats a key.
    """
    source = str(path)
    try:
        if not path.is_file():
            raise UnreadableError(_absent(path))
        document = read_yaml_file(path, "sweep file", MAX_BYTES)
    except UnreadableError as error:
        raise SweepError(source, [Problem("", str(error), error.line)]) from None
    except (OSError, ValueError) as error:  # a ValueError for a name with NUL in it
        reason = getattr(error, "strerror", None) or error
        raise SweepError(source, [Problem("", f"cannot be read: {reason}")]) from None
    if document.mistakes:
        raise SweepError(source, mistakes_of(document))
    if not isinstance(document.values, dict):
        kind = {type(None): "empty", list: "a list"}.get(type(document.values), "a single value")
        raise SweepError(
            source, [Problem("", f"the file is {kind}; `harness init` writes one to start from")]
        )
    return YamlFile(source, document.values, document.lines)


def _absent(path: Path) -> str:
    if path.is_dir():
        return "a folder; name a sweep file in it"
    if path.exists():
        return "a pipe or a device; save the text in a file and name that"
    if path.is_symlink():
        return f"a link to {path.readlink()}, which leads to no file"
    folder = path.parent if path.parent.is_dir() else Path()
    names = sorted(found.name for found in folder.glob("*.y*ml"))
    near = nearest(path.name, names)
    if near:
        return f"no such file; did you mean {folder / near}?"
    return "no such file" + (f"; there is {', '.join(names[:8])}" if names else "; `harness init` writes one")


def sweep_from(file: YamlFile) -> Sweep:
    """The typed sweep of a file's plain values: secrets are looked for first, then mistakes, then those of the space.

    Raises
    ------
    SweepError
        With every mistake of the first of these stages that has any, in the order of the lines.
    """
    from harness.config.files.secrets import secret_problems
    from harness.config.files.sweep_checks import filled, problems_of, space_problems

    problems = secret_problems(file) or problems_of(file)
    if not problems:
        sweep = Sweep.model_validate(filled(file.values))
        problems = space_problems(file, sweep)
    if problems:
        ordered = sorted(
            set(problems), key=lambda problem: (problem.line or 0, problem.where, problem.message)
        )
        raise SweepError(file.source, ordered)
    return sweep
