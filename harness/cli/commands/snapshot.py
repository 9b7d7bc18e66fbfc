"""`harness snapshot`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harness.cli.exits import print_json
from harness.cli.options import common_options, settings

# What setting DVC up leaves for version control.
MADE = (".dvc", ".dvcignore", ".gitignore")


@click.command()
@click.option("--message", "-m", default="", help="What this snapshot is; kept in mlruns.dvc.")
@common_options("record", "json", "quiet")
def command(message: str, as_json: bool, quiet: bool, **options: Any) -> None:
    """Copy the record into DVC and let mlruns.dvc here point to the copy. Sweeps may run on.

    The record itself is only read. Where the folder is in no DVC project it becomes one. Commit
    mlruns.dvc to keep a snapshot, `dvc push` to share it, `harness restore` to get it back.

    \b
    --json prints: pointer, digest, studies, runs, files, bytes, message, dvc_set_up, remotes.
    """
    from harness.maintenance.snapshot.dvc_project import is_in_git
    from harness.maintenance.snapshot.snapshot import take_snapshot
    from harness.study.storage.record import Record

    taken = take_snapshot(Record(settings(**options).record), Path.cwd(), message)
    if as_json:
        print_json(taken.as_json())
        return
    if taken.made_project and not quiet:
        click.echo("set up DVC here: .dvc/ and .dvcignore (no analytics, files are copied, never linked)")
    click.echo(f"snapshot: {taken.contents.line()} in {taken.pointer.name} ({taken.digest[:12]})")
    if quiet:
        return
    folder = taken.pointer.parent
    made = [name for name in MADE if (folder / name).exists()] if taken.made_project else []
    if is_in_git(folder):
        click.echo(f"keep it:  git add {' '.join([*made, taken.pointer.name])}")
    remote = "" if taken.remotes else "dvc remote add -d NAME ADDRESS; dvc remote modify NAME verify true; "
    click.echo(f"share it: {remote}dvc push")
