"""`harness confirm STUDY`."""

from __future__ import annotations

from typing import Any

import click

from harness.cli.exits import print_json
from harness.cli.options import common_options, settings, study_and_baseline


@click.command()
@click.argument("study")
@click.option(
    "--run",
    metavar="RUN",
    help="Confirm and choose this trial only: its number or MLflow run id.  [default: the best trials]",
)
@click.option(
    "--finalists",
    type=click.IntRange(1, 50),
    help="Best trials that are retrained, beside the baseline.  [default: 5]",
)
@click.option("--seeds", type=click.IntRange(2, 50), help="Fresh seeds of each.  [default: 5]")
@click.option("--dry-run", is_flag=True, help="Say what would be trained and what it costs; train nothing.")
@common_options("record", "data_root", "cache", "workers", "device", "json", "quiet")
def command(
    study: str,
    run: str | None,
    finalists: int | None,
    seeds: int | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Retrain the best trials of STUDY, and its baseline, on fresh seeds, and name a winner.

    STUDY is a study's name, or the sweep file that it runs. They are ranked by the lower bound of their mean; the
    cheapest within one standard error of the best wins, and its seed of median score is what
    `harness promote` takes. Without --run, --finalists and --seeds it goes on with what Ctrl-C left
    unfinished, as it was asked for; with more seeds or finalists nothing is trained twice, and the
    last winner holds until there is a new one. A trial named with --run wins whatever the baseline
    scores; its confirmation is kept beside the study's own.

    \b
    --json prints: study, seeds, finalists (label, name, trial, baseline, fingerprint, macs,
    sweep_score, predicted_optimism, mean, sd, se, low, shrink, failed, unfit, replicates), winner, shipped (a
    trial's fields and replicate), baseline, beats_baseline, trials_since, conclusion; with --dry-run: study, dry_run,
    seeds, trainings, done, seconds, disk_bytes, finalists.
    """
    from harness.execution.executors.build import executor_class
    from harness.study.storage.record import Record
    from harness.study.study import load_study

    executor_class().check()  # a wrong HARNESS_EXECUTOR or HARNESS_HANG_S is told now, not after the preparation
    where = settings(**options)
    record = Record(where.record).require()
    study, baseline = study_and_baseline(record, study)
    loaded = load_study(record, study)  # before torch: a wrong name is answered at once
    from harness.cli.live_view import open_view
    from harness.selection.confirm import ConfirmationRequest, confirm, make_plan

    view = open_view(quiet=quiet or as_json)
    asked = ConfirmationRequest(run=run, finalists=finalists, seeds=seeds, baseline=baseline)
    if dry_run:
        plan = make_plan(loaded, record, where, view, asked)
        if as_json:
            print_json(plan.as_json())
        else:
            click.echo("\n".join(plan.lines()))
        return
    result = confirm(study, where, view, asked)
    if as_json:
        print_json(result.as_json())
    else:
        click.echo("\n".join(result.lines()))
