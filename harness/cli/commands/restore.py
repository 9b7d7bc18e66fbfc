"""`harness restore`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from harness.cli.exits import print_json
from harness.cli.options import common_options, program, settings, typed_options


@click.command()
@click.option(
    "--force",
    is_flag=True,
    help="Move a record that holds more than the snapshot aside; it is never deleted.",
)
@common_options("record", "json", "quiet")
def command(force: bool, as_json: bool, quiet: bool, **options: Any) -> None:
    """Bring back the record that mlruns.dvc here points to, every file checked by its digest.

    What the cache does not hold is fetched. A record that lies at its place is moved aside; one that holds what the
    snapshot does not is refused (exit 3) without --force, and one that is in use always is.

    \b
    --json prints: record, digest, message, studies, runs, files, bytes, moved_aside.
    """
    from harness.maintenance.snapshot.restore import restore
    from harness.study.storage.record import Record

    done = restore(Record(settings(**options).record), Path.cwd(), force=force)
    if as_json:
        print_json(done.as_json())
        return
    about = f" ({done.message})" if done.message else ""
    click.echo(f"restored: {done.contents.line()} in {done.record}{about}")
    if done.aside:
        click.echo(f"moved aside: the record that was there is {done.aside}; delete it when you like")
    if not quiet:
        click.echo(f"compare:  {program()} {shlex.join(['ui', *typed_options('record')])}")
