"""`harness ensemble RUN RUN ...`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from harness.cli.exits import print_json
from harness.cli.options import common_options, program, settings
from harness.metrics.few_clusters import few_clusters_note

if TYPE_CHECKING:
    from harness.study.ensembles import EnsembleSummary
    from harness.study.study import Study


@click.command()
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True)
@click.option("--study", help="The study that the runs belong to.  [default: the only one of the record]")
@click.option("--name", help="What the ensemble is called.  [default: the trial numbers, as in 3+5]")
@common_options("record", "data_root", "cache", "json", "quiet")
def command(
    runs: tuple[str, ...], study: str | None, name: str | None, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Average two or more trials of a study into one model. Trains nothing.

    RUN is a trial's number, its name or its MLflow run id. The members must answer one question on
    the same validation windows. Their mean probability becomes one ONNX file, in a run of its own:
    `harness promote STUDY --run NAME` promotes it like any other.

    \b
    --json prints: study, ensemble (number, state, name, score, epochs, reason, parameters, interval,
    best_epoch, fingerprint, run_id, members), trials (the members).
    """
    from harness.selection.ensemble_members import study_of_members
    from harness.study.storage.record import Record

    where = settings(**options)
    study_of_members(
        Record(where.record).require(), runs, study
    )  # before torch: a wrong name is answered at once
    from harness.selection.build_ensemble import make_ensemble

    silent = quiet or as_json
    progress = (lambda text: None) if silent else (lambda text: click.echo(text, err=True))
    found, ensemble = make_ensemble(runs, study, name, where, progress)
    if as_json:
        print_json(
            {
                "study": found.name,
                "ensemble": ensemble.as_json(),
                "trials": [member.as_json() for member in ensemble.members],
            }
        )
    else:
        click.echo("\n".join(_lines(found, ensemble)))


def _lines(study: Study, ensemble: EnsembleSummary) -> list[str]:
    from harness.study.ensembles import OPTIMISM

    interval = ensemble.outcome["interval"]
    best = max(ensemble.members, key=lambda member: member.score or 0.0)
    few = few_clusters_note(interval["clusters"])
    return [
        f"{ensemble.label} of {len(ensemble.members)} trials: score {ensemble.score:.3f}, validation "
        f"[{interval['low']:.3f}, {interval['high']:.3f}] ({interval['windows']} windows, "
        f"K = {interval['clusters']}{few}); its best member, {best.label}, has {best.score or 0:.3f}",
        f"note: {OPTIMISM}",
        f"export:  {program()} promote {study.name} --run {ensemble.name}",
    ]
