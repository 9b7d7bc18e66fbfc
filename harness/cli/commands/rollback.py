"""`harness rollback`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harness.cli.exits import print_json
from harness.cli.options import common_options, expand_home, settings


@click.command()
@click.argument("name", required=False)
@click.option(
    "--to",
    metavar="VERSION",
    help="Version to go to.  [default: the champion before this one, alias `previous`]",
)
@click.option(
    "--message", "-m", default="", metavar="TEXT", help="Why; kept as a tag of the version that is left."
)
@click.option("--dry-run", is_flag=True, help="Check the version and its bundle, change nothing.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("promoted"),
    show_default=True,
    help="Folder of bundles; the champion's goes to OUTPUT/STUDY.",
)
@common_options("record", "json")
def command(
    name: str | None, to: str | None, message: str, dry_run: bool, output: Path, as_json: bool, **options: Any
) -> None:
    """Make the champion before this one the champion again.

    NAME is a registered model, such as overlap-any; it may be left out where there is one only. The
    version's bundle is downloaded and checked first (digests, golden outputs), then the alias `champion`
    moves in one step, and the bundle is put into OUTPUT/STUDY.

    \b
    --json prints: registered_name, version, rolled_back, previous, study, bundle, notes, dry_run.
    """
    from harness.promotion.rollback import roll_back
    from harness.study.storage.record import Record

    record = Record(settings(**options).record).require()
    result = roll_back(record, name, to, message, expand_home(output), dry_run=dry_run)
    if as_json:
        print_json(result.as_json())
    else:
        click.echo("\n".join(result.lines()))
