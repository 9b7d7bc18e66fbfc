"""`harness doctor`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.exits import EXIT_FAILED, print_json
from harness.cli.options import common_options, settings

if TYPE_CHECKING:
    from harness.maintenance.doctor.finding import Finding

STYLES = {"ok": "green", "warn": "yellow", "problem": "bold red"}


@click.command()
@click.option(
    "--fix", is_flag=True, help="Put right what is safe to: what killed processes left, permissions."
)
@common_options("record", "data_root", "cache", "json", "quiet")
def command(fix: bool, as_json: bool, quiet: bool, **options: Any) -> None:
    """Look at everything that a sweep stands on, and say how to mend what is wrong.

    Python and its libraries, GPU, onnxruntime, disk, limits, variables, corpora, the record with its
    database, locks and what killed processes left, snapshots. Changes nothing without --fix; what
    is being run is left alone with it too. Exit code 1 where there is a problem.

    \b
    --json prints: ok, fixed (what --fix did), findings (level: ok, warn or problem; subject, message, fix).
    """
    from harness.maintenance.doctor.doctor import examine, repair

    where = settings(**options)
    fixed, failures = repair(where) if fix else ([], [])
    findings = [*failures, *examine(where, Path.cwd())]
    well = all(finding.level != "problem" for finding in findings)
    if as_json:
        print_json({"ok": well, "fixed": fixed, "findings": [finding.as_json() for finding in findings]})
    else:
        _print(fixed, [one for one in findings if not quiet or one.level != "ok"])
    if not well:
        sys.exit(EXIT_FAILED)


def _print(fixed: list[str], findings: list[Finding]) -> None:
    """Lines, coloured in a terminal; paths are not cut, so that they can be copied."""
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True, highlight=False)
    for line in fixed:
        console.print(Text.assemble(("fixed   ", "green"), f" {line}"))
    for one in findings:
        console.print(Text.assemble((f"{one.level:<8}", STYLES[one.level]), f" {one.subject}: {one.message}"))
        if one.fix:
            console.print(Text(f"         -> {one.fix}"))
