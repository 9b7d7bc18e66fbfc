"""`harness status [STUDY]`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from harness.cli.exits import print_json
from harness.cli.options import common_options, settings

if TYPE_CHECKING:
    from harness.study.ensembles import EnsembleSummary
    from harness.study.storage.record import Record
    from harness.study.study import Study
    from harness.study.trials import TrialSummary

# Rows of a table that a person reads, and those of running trials; a thousand take rich a second.
SHOWN = 200


@click.command()
@click.argument("study", required=False)
@common_options("record", "json")
def command(study: str | None, as_json: bool, **options: Any) -> None:
    """List the studies of a record, or the trials of one, best first: the best 200, and those that run.

    \b
    --json prints, without STUDY: studies (name, trials, complete, pruned, failed, duplicate,
    running, interrupted, budget, best, controls); with it: study, budget, spent, best, controls,
    ensembles, confirmation (null, or what `harness confirm --json` prints), trials.
    """
    from harness.study.confirmation.conclusion import confirmation_of, confirmation_progress
    from harness.study.confirmation.definition import runs_named
    from harness.study.controls import controls_of
    from harness.study.ensembles import ensembles_of
    from harness.study.storage.record import Record
    from harness.study.study import load_study, study_names

    record = Record(settings(**options).record).require()
    if study is not None:
        loaded = load_study(record, study)
        if as_json:
            print_json(_document(loaded, _trials(loaded, record)))
        else:
            _print_trials(_trials(loaded, record))
            for ensemble in ensembles_of(loaded):
                click.echo(_ensemble_line(ensemble))
            confirmed = confirmation_of(loaded)
            for line in [*(confirmed.lines() if confirmed else []), *confirmation_progress(loaded)]:
                click.echo(line)
            for number in runs_named(loaded):
                named = confirmation_of(loaded, number)
                told = [f"trial {number} confirmed alone: {named.conclusion}"] if named else []
                for line in [*told, *confirmation_progress(loaded, number)]:
                    click.echo(line)
            for control in controls_of(loaded):
                click.echo(control)
        return
    studies = [load_study(record, name) for name in study_names(record)]
    rows = [_row(one, _trials(one, record)) for one in studies]
    if as_json:
        print_json({"studies": rows})
    else:
        _print_studies(studies, rows)
        for one in studies:
            for control in controls_of(one):
                if control.verdict == "broken":
                    click.echo(f"{one.name}: {control}")


def _trials(study: Study, record: Record) -> list[TrialSummary]:
    """The trials that ever started; one that runs in a study that nobody runs was interrupted."""
    trials = [trial for trial in study.trials() if trial.state != "abandoned"]
    if not any(trial.state == "running" for trial in trials) or record.is_run(study.name):
        return trials
    return [replace(trial, state="interrupted") if trial.state == "running" else trial for trial in trials]


def _row(study: Study, trials: list[TrialSummary]) -> dict[str, Any]:
    from harness.study.controls import controls_of

    best = study.best()
    states = ("complete", "pruned", "failed", "duplicate", "running", "interrupted")
    return {
        "name": study.name,
        "trials": len(trials),
        **{state: sum(trial.state == state for trial in trials) for state in states},
        "budget": study.sweep.budget.trials,
        "best": best.as_json() if best is not None else None,
        "controls": [control.as_json() for control in controls_of(study)],
    }


def _document(study: Study, trials: list[TrialSummary]) -> dict[str, Any]:
    from harness.study.confirmation.conclusion import confirmation_of
    from harness.study.controls import controls_of
    from harness.study.ensembles import ensembles_of

    best, confirmed = study.best(), confirmation_of(study)
    return {
        "study": study.name,
        "budget": study.sweep.budget.trials,
        "spent": study.spent(),
        "best": best.as_json() if best is not None else None,
        "controls": [control.as_json() for control in controls_of(study)],
        "ensembles": [ensemble.as_json() for ensemble in ensembles_of(study)],
        "confirmation": confirmed.as_json() if confirmed else None,
        "trials": [trial.as_json() for trial in trials],
    }


def _ensemble_line(ensemble: EnsembleSummary) -> str:
    low, high = ensemble.outcome["interval"]["low"], ensemble.outcome["interval"]["high"]
    numbers = ", ".join(str(member.number) for member in ensemble.members)
    return f"{ensemble.label} of trials {numbers}: score {ensemble.score:.3f} [{low:.3f}, {high:.3f}]"


def _console() -> Any:
    """A console as wide as the terminal; in a pipe as wide as the table needs."""
    import sys

    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=240)


def _print_studies(studies: list[Study], rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("study", "trials", "complete", "pruned", "failed", "best", "configuration"):
        table.add_column(heading, justify="left" if heading in ("study", "configuration") else "right")
    for study, row in zip(studies, rows, strict=True):
        best = row["best"]
        table.add_row(
            study.name, f"{study.spent()}/{row['budget']}", str(row["complete"]), str(row["pruned"]),
            str(row["failed"]), f"{best['score']:.3f}" if best else "", best["name"] if best else "",
        )  # fmt: skip
    _console().print(table)


def _print_trials(trials: list[TrialSummary]) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("trial", "configuration", "state", "epochs", "score", "interval", "K", "reason"):
        table.add_column(heading, justify="right" if heading in ("trial", "epochs", "score", "K") else "left")
    ranked = sorted(
        trials, key=lambda trial: (trial.state != "complete", -(trial.score or 0.0), trial.number)
    )
    shown = [*ranked[:SHOWN], *(trial for trial in ranked[SHOWN:] if trial.state == "running")]
    for trial in shown:
        interval = trial.outcome.get("interval")
        table.add_row(
            str(trial.number), trial.name.partition(" ")[2], trial.state, str(trial.epochs or ""),
            f"{trial.score:.3f}" if trial.score is not None else "",
            f"[{interval['low']:.3f}, {interval['high']:.3f}]".replace("[", r"\[") if interval else "",
            str(interval["clusters"]) if interval else "", trial.reason,
        )  # fmt: skip
    _console().print(table)
    if len(shown) < len(ranked):
        click.echo(f"{len(shown)} of {len(ranked)} trials; --json has them all")
    clusters = [trial.outcome["interval"]["clusters"] for trial in ranked if trial.outcome]
    if clusters and min(clusters) < 10:
        click.echo(f"few clusters (K = {min(clusters)}): these intervals are no evidence")
