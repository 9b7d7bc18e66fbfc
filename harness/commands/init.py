"""`harness init [FILE]`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.commands.options import common, program

TEMPLATE = """\
# harness sweep {file}
# About 3 minutes on 2 CPU cores. Every key: harness schema.
name: {name}
data:
  corpus: demo            # generated speech; `librispeech` reads --data-root
  subset: clean
  task: pseudo            # two arbitrary classes of speakers
  variant: seen           # evaluated on other chapters of the same speakers
  train_windows: 1000
  val_windows: 400
  test_windows: 400

parameters:               # a value is fixed, a list is a choice
  feature: [mfcc, log_mel]
  learning_rate: {{float: [3e-4, 1e-2], log: true}}
  mfcc.n_mfcc: {{choice: [20, 40]}}     # only where feature is mfcc
  width: 0.25             # of the CNN; 1 is the full network
  epochs: 8

sampler: tpe              # tpe | random | grid
pruner: median            # median | hyperband | none
budget:
  trials: 8
seed: 0
"""


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("sweep.yaml"))
@common("quiet")
def command(file: Path, quiet: bool) -> None:
    """Write a commented sweep file (default sweep.yaml); an existing file is left alone."""
    if file.exists():
        raise click.UsageError(f"{file} exists already; name another file")
    if not file.parent.is_dir():
        raise click.UsageError(f"there is no folder {file.parent}")
    file.write_text(TEMPLATE.format(file=file, name=study_name(file)), encoding="utf-8")
    if not quiet:
        click.echo(f"wrote {file}. Next: {program()} sweep {file}")


def study_name(file: Path) -> str:
    """A study's name from a file's: letters, digits, dot, dash and underscore."""
    kept = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in file.stem
    )
    return kept.strip("-._")[:80] or "sweep"
