"""`harness init [FILE]`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from harness.cli.exits import print_json
from harness.cli.options import common_options, program
from harness.core.files import to_share

TEMPLATE = """\
# harness sweep {file}
# About 3 minutes on 2 CPU cores. Every key: harness schema.
name: {name}
data:
  corpus: demo            # generated speech; `librispeech` reads --data-root
  subset: clean
  task: pseudo            # or overlap, speaker_change, speaker_count, same_speaker
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
# controls: [unseen, shuffled_labels]   # short trainings that must score chance
# baseline: {{feature: mfcc}}              # whom `harness confirm` holds the winner against; default: the defaults
# stack: 8                # for a GPU: trains up to 8 trials that differ in learning_rate or weight_decay as one network
seed: 0
"""


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("sweep.yaml"))
@common_options("json", "quiet")
def command(file: Path, as_json: bool, quiet: bool) -> None:
    """Write a commented sweep file (default sweep.yaml); an existing file is left alone.

    --json prints file and name.
    """
    if not file.parent.is_dir():
        raise click.UsageError(f"there is no folder {file.parent}")
    text = template(file)
    try:
        with to_share(), file.open("x", encoding="utf-8") as target:
            target.write(text)
    except FileExistsError:
        raise click.UsageError(f"{file} exists already; name another file") from None
    except OSError as error:
        raise click.UsageError(f"{file} cannot be written: {error.strerror}") from None
    if as_json:
        from harness.config.sweep import slug

        print_json({"file": str(file), "name": slug(file.stem)})
    elif not quiet:
        click.echo(f"wrote {file}. Next: {shlex.join([program(), 'sweep', str(file)])}")


def study_name(file: Path) -> str:
    """The name of the study that a new file starts: the file's own, in letters that a study's name may have."""
    from harness.config.sweep import slug

    return slug(file.stem)


def template(file: Path) -> str:
    """The text of a new sweep file: TEMPLATE with its own path and the study's name, quoted where YAML wants it."""
    from harness.config.files.yaml_reader import plain_scalar

    name = study_name(file)
    quoted = name if plain_scalar(name) == name else f'"{name}"'  # `2024.yaml` names no number
    return TEMPLATE.format(file=shlex.quote(" ".join(str(file).split())), name=quoted)
