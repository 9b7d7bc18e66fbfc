"""`harness sweep FILE`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.commands.options import common, print_json, program, settings

if TYPE_CHECKING:
    from harness.launch import Launch


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one field of the file."
)
@click.option("--name", help="Name of the study.  [default: the file's]")
@click.option("--trials", type=click.IntRange(1), help="Trials in total, over all launches.")
@common("record", "data_root", "cache", "workers", "device", "json", "quiet")
def command(
    file: Path, overrides: tuple[str, ...], name: str | None, trials: int | None,
    as_json: bool, quiet: bool, **options: Any,
) -> None:  # fmt: skip
    """Run the trials of a sweep file.

    Run it again to go on after Ctrl-C, or with a larger --trials to add to it. An edited file
    starts a new study, NAME-2.

    \b
    --json prints: study, resumed, budget, spent, new_trials, seconds, interrupted,
    exhausted, best and trials (number, state, name, score, epochs, reason, parameters,
    interval, best_epoch, fingerprint), data (the audits), unstored, problem.
    """
    from harness.launch import launch, summary_json
    from harness.sweep import load_sweep
    from harness.view import open_view

    budget = (f"budget.trials={trials}",) if trials else ()
    naming = (f"name={name}",) if name else ()
    sweep = load_sweep(file, (*overrides, *budget, *naming))
    where = settings(**options)
    result = launch(sweep, where, open_view(quiet=quiet or as_json))
    if as_json:
        print_json(summary_json(result))
    else:
        click.echo("\n".join(_closing(result, file, options)))
    if result.signal is not None:
        sys.exit(128 + result.signal)
    if result.best is None:
        sys.exit(1)


def _closing(result: Launch, file: Path, options: dict[str, Any]) -> list[str]:
    record = options.get("record")
    again = f" --record {record}" if record and str(record) != "mlruns" else ""
    lines = [_counts(result)]
    if result.best is not None:
        lines.append(_best_line(result))
    if result.unstored:
        lines.append(
            f"{len(result.unstored)} runs wait in the spool for MLflow ({result.problem}); the next launch stores them"
        )
    if result.signal is not None:
        lines.append(f"stopped. To go on: {program()} sweep {file}{again}")
    elif result.new_trials == 0 and not result.exhausted:
        lines.append(
            f"the budget of {result.budget} trials is spent. For more: "
            f"{program()} sweep {file} --trials {result.budget * 2}{again}"
        )
    elif result.exhausted:
        lines.append("every combination of the parameters has been run")
    if result.best is None:
        lines.append(f"no trial completed; see: {program()} status {result.study}{again}")
    else:
        lines += [f"compare: {program()} ui{again}", f"export:  {program()} promote {result.study}{again}"]
    return lines


def _counts(result: Launch) -> str:
    states = [trial.state for trial in result.trials]
    counted = [
        f"{states.count(state)} {state}"
        for state in ("complete", "pruned", "failed", "duplicate", "interrupted")
        if state in states
    ]
    return f"study {result.study}: {', '.join(counted) or 'no trials'} in {result.seconds:.0f} s"


def _best_line(result: Launch) -> str:
    best = result.best
    assert best is not None
    interval = best.outcome["interval"]
    clusters = interval["clusters"]
    few = ", few clusters: a plumbing check, not evidence" if clusters < 10 else ""
    return (
        f"best: trial {best.number} ({best.name}) score {best.score:.3f}, validation "
        f"[{interval['low']:.3f}, {interval['high']:.3f}] ({interval['windows']} windows, K = {clusters}{few})"
    )
