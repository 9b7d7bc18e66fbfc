"""`harness data prepare | audit | gc | verify`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.commands.data_store import gc, verify
from harness.commands.options import EXIT_REFUSED, common, print_json, settings

if TYPE_CHECKING:
    from harness.gate import Inspection


@click.group()
def command() -> None:
    """Prepare or audit the data of a sweep file, without training; look after the store of prepared data."""


command.add_command(gc)
command.add_command(verify)


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one field of the file."
)
@common("data_root", "cache", "json", "quiet")
def prepare(file: Path, overrides: tuple[str, ...], as_json: bool, quiet: bool, **options: Any) -> None:
    """Decode, cut and store the windows of every data configuration of FILE.

    --json prints data: for each configuration config, split_rule, flags, dropped, examined, lost,
    label_map_digest, manifests and checks.
    """
    inspections = _inspect(file, overrides, options, quiet=quiet or as_json)
    if as_json:
        print_json({"data": [inspection.as_json() for inspection in inspections]})
        return
    for inspection in inspections:
        prepared = inspection.prepared
        click.echo(f"{inspection.name}")
        for split, part in prepared.splits.items():
            clusters = len(set(part.manifest.clusters()))
            click.echo(
                f"  {split:<5} {len(part.manifest):>6} windows, K = {clusters}  {part.manifest.digest[:12]}"
            )
        for flag in prepared.flags:
            click.echo(f"  note {flag}")
        _echo_notes(inspection)


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one field of the file."
)
@common("data_root", "cache", "json", "quiet")
def audit(file: Path, overrides: tuple[str, ...], as_json: bool, quiet: bool, **options: Any) -> None:
    """Show what the data gate sees in the data of FILE; exit 3 where it would refuse.

    --json prints ok and data (as `data prepare`; checks have name, level, ok, measured, bound, message).
    """
    inspections = _inspect(file, overrides, options, quiet=quiet or as_json)
    ok = all(inspection.audit.ok for inspection in inspections)
    if as_json:
        print_json({"ok": ok, "data": [inspection.as_json() for inspection in inspections]})
    else:
        for inspection in inspections:
            click.echo(inspection.name)
            for check in inspection.audit.checks:
                mark = "ok  " if check.ok else {"refuse": "FAIL", "warn": "warn"}[check.level]
                click.echo(f"  {mark} {check.name}: {check.message}")
            _echo_notes(inspection)
        click.echo("the gate passes" if ok else "the gate refuses: no trial would start")
    if not ok:
        sys.exit(EXIT_REFUSED)


def _echo_notes(inspection: Inspection) -> None:
    prepared = inspection.prepared
    if prepared.dropped_line:
        click.echo(f"  dropped as ambiguous: {prepared.dropped_line}")
    if prepared.lost:
        click.echo(f"  {len(prepared.lost)} of {prepared.examined} recordings unusable:")
        for lost in prepared.lost[:20]:
            click.echo(f"    {lost.path}: {lost.reason}")


def _inspect(
    file: Path, overrides: tuple[str, ...], options: dict[str, Any], *, quiet: bool
) -> list[Inspection]:
    from harness.config.files.sweep_loader import load_sweep
    from harness.config.search_space import SearchSpace
    from harness.gate import inspect

    progress: Callable[[str], None] = (
        (lambda text: None) if quiet else (lambda text: click.echo(text, err=True))
    )
    return inspect(SearchSpace(load_sweep(file, overrides)), settings(**options), progress)
