"""`harness sweep FILE`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.exits import ignore_broken_pipe, print_json
from harness.cli.options import common_options, program, settings, typed_options
from harness.metrics.few_clusters import few_clusters_note

if TYPE_CHECKING:
    from harness.execution.launch import Launch
    from harness.reporting.train_test_matrix import Matrix
    from harness.study.storage.record import Record
    from harness.study.study import Study
    from harness.tracking.experiment import Tracking


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one field of the file."
)
@click.option("--name", help="Name of the study.  [default: the file's]")
@click.option("--trials", type=click.IntRange(1), help="Trials in total, over all launches.")
@common_options("record", "data_root", "cache", "workers", "device", "json", "quiet")
def command(
    file: Path,
    overrides: tuple[str, ...],
    name: str | None,
    trials: int | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Run the trials of a sweep file.

    Run it again to go on after Ctrl-C, or with a larger --trials to add to it. An edited file
    starts a new study, NAME-2.

    \b
    --json prints: study, resumed, budget, spent, new_trials, seconds, interrupted,
    exhausted, out_of_time, best and trials (number, state, name, score, epochs, reason, parameters,
    interval, best_epoch, fingerprint), controls (name, verdict, value, low, windows, clusters, reason,
    fingerprint), skipped (arms whose file is missing or altered: feature, data, path, reason), data (the
    audits), unstored, problem.
    """
    from harness.config.files.sweep_loader import load_sweep
    from harness.execution.executors.build import executor_class

    executor_class().check()  # a wrong HARNESS_EXECUTOR or HARNESS_HANG_S is told now, not after the preparation
    budget = (f"budget.trials={trials}",) if trials else ()
    naming = (f"name={name}",) if name else ()
    sweep = load_sweep(file, (*overrides, *budget, *naming))
    from harness.cli.live_view import open_view
    from harness.execution.launch import launch, summary_json

    view = open_view(quiet=quiet or as_json)
    matrices: list[Matrix] = []

    def report(study: Study, record: Record, tracking: Tracking | None) -> None:
        from harness.reporting.sweep_report import publish_report

        matrix = publish_report(study, record, tracking, view.message)
        matrices.extend([matrix] if matrix is not None else [])

    result = launch(sweep, settings(**options), view, report)
    with ignore_broken_pipe():
        if as_json:
            print_json(summary_json(result))
        else:
            click.echo("\n".join(_closing(result, file, matrices)))
    if result.signal is not None:
        sys.exit(128 + result.signal)
    if result.best is None or result.unstored:
        sys.exit(1)


def _closing(result: Launch, file: Path, matrices: Sequence[Matrix]) -> list[str]:
    lines = [_counts(result)]
    if result.best is not None:
        lines.append(_best_line(result))
    lines += map(str, result.controls)
    for matrix in matrices:
        from harness.cli.matrix_text import matrix_text

        lines += ["", matrix_text(matrix), ""]
    lines += dict.fromkeys(f"skipped: {one['feature']}: {one['reason']}" for one in result.skipped)
    if result.unstored:
        from harness.tracking.writer import unstored_message

        hurried = result.signal is not None
        lines.append(unstored_message(len(result.unstored), result.problem, hurried=hurried))
    if result.signal is not None:
        lines.append(f"stopped. To go on: {_again(file)}")
    elif result.exhausted:
        lines.append("every combination of the parameters has been run")
    elif result.spent >= result.budget:
        more = _again(file, trials=result.spent + result.budget)
        lines.append(f"the budget of {result.budget} trials is spent. For more: {more}")
    elif result.out_of_time:
        lines.append(f"stopped after budget.hours; to go on: {_again(file)}")
    if result.best is None:
        lines.append(f"no trial completed; see: {_command('status', result.study, *typed_options('record'))}")
    else:
        promote = _command("promote", result.study, *typed_options("record", "data_root", "cache"))
        report = _command("report", result.study, *typed_options("record"))
        lines += [
            f"report:  {report}",
            f"compare: {_command('ui', *typed_options('record'))}",
            f"export:  {promote}",
        ]
    return lines


def _again(file: Path, trials: int | None = None) -> str:
    """The command that goes on with this study: what was typed, with another total of trials if given."""
    words = typed_options("overrides", "name", *(() if trials else ("trials",)))
    total = ["--trials", str(trials)] if trials else []
    name = f"./{file}" if str(file).startswith("-") else str(file)
    return _command(
        "sweep", name, *words, *total, *typed_options("record", "data_root", "cache", "workers", "device")
    )


def _command(*words: str) -> str:
    return shlex.join([program(), *words])


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
    few = few_clusters_note(clusters)
    few += ": a plumbing check, not evidence" if few else ""
    return (
        f"best: trial {best.number} ({best.name}) score {best.score:.3f}, validation "
        f"[{interval['low']:.3f}, {interval['high']:.3f}] ({interval['windows']} windows, K = {clusters}{few})"
    )
