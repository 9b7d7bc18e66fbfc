"""A sweep file, its overrides and its checks, to the typed `Sweep`: the first of the eight stops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.config.files.yaml_file import SweepError, SweepFile, read_sweep_file
from harness.config.sweep import Sweep


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


def sweep_from(file: SweepFile) -> Sweep:
    """The typed sweep of a file's plain values.

    Raises
    ------
    SweepError
        With every mistake found.
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
