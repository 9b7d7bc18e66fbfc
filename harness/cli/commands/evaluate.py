"""`harness evaluate RUN --meetings`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from harness.cli.exits import print_json
from harness.cli.options import common_options, settings

if TYPE_CHECKING:
    from harness.selection.evaluate_meetings import EvaluatedRun


@click.command()
@click.argument("run")
@click.option("--meetings", is_flag=True, help="Slide the model over AMI meetings (the one way there is).")
@click.option(
    "--part",
    type=click.Choice(["dev", "test", "train"]),
    default="dev",
    show_default=True,
    help="Part of AMI; test is frozen, each look at it is counted.",
)
@click.option(
    "--partition",
    type=click.Choice(["full-corpus-asr", "lists"]),
    default="full-corpus-asr",
    show_default=True,
    help="Who is in which part: the official partition, or the folder's own lists.",
)
@click.option(
    "--step",
    "step_s",
    type=click.FloatRange(0.01, 3.0),
    default=0.25,
    show_default=True,
    metavar="SECONDS",
    help="From one window to the next.",
)
@click.option(
    "--collar",
    "collar_s",
    type=click.FloatRange(0.0, 10.0),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="Not scored around each boundary of the reference, half before and half after.",
)
@common_options("record", "data_root", "cache", "json", "quiet")
def command(
    run: str,
    meetings: bool,
    part: str,
    partition: str,
    step_s: float,
    collar_s: float,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Score the model of RUN on meetings, frame by frame, under a stated protocol.

    RUN is an MLflow run id, STUDY/TRIAL or STUDY/ENSEMBLE. Its task must be overlap or speaker_change. The result
    is stored in the run under the digest of its protocol; numbers of two protocols do not compare.

    \b
    --json prints: run, name, study, trial, protocol, protocol_digest, f1, precision, recall,
    detection_error_rate, scored_s, reference_s, detected_s, hit_s, false_alarm_s, miss_s, low,
    high, interval_note, clusters, few_clusters, ideal_f1, all_positive_f1, meetings, limit, flags,
    test_openings, test_openings_by_all, artifact.
    """
    if not meetings:
        raise click.UsageError("say what to evaluate on: --meetings")
    where = settings(**options)
    from harness.study.storage.record import Record

    Record(where.record).require()  # before onnxruntime: a wrong folder is answered at once
    from harness.selection.evaluate_meetings import EvaluationRequest, evaluate

    silent = quiet or as_json
    progress = (lambda text: None) if silent else (lambda text: click.echo(text, err=True))
    evaluated = evaluate(run, EvaluationRequest(part, partition, step_s, collar_s), where, progress)
    if as_json:
        print_json(evaluated.as_json())
    else:
        _print(evaluated)


def _print(evaluated: EvaluatedRun) -> None:
    """One table, headed by its one protocol."""
    import sys

    from rich.console import Console
    from rich.table import Table

    result = evaluated.result
    click.echo(str(result.protocol))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("meeting", "group", "scored", "positive", "F1", "precision", "recall", "detection error"):
        table.add_column(heading, justify="left" if heading in ("meeting", "group") else "right")
    rows = [(one.meeting, one.group, one.scores) for one in result.meetings]
    for name, group, scores in [*rows, ("all", f"K = {result.groups}", result.pooled)]:
        rates = (scores.f1, scores.precision, scores.recall, scores.detection_error_rate)
        there = scores.reference_s > 0  # of nothing no share can be found
        shown = [f"{rate:.3f}" if there else "-" for rate in rates]
        table.add_row(name, group, f"{scores.scored_s:.1f} s", f"{scores.reference_s:.1f} s", *shown)
    (Console() if sys.stdout.isatty() else Console(width=160)).print(table)
    click.echo("\n".join(_remarks(evaluated)))


def _remarks(evaluated: EvaluatedRun) -> list[str]:
    from harness.metrics.frame_scores import LIMIT
    from harness.metrics.intervals import FEW_CLUSTERS

    result = evaluated.result
    few = f"; few clusters (K = {result.groups}): no evidence" if result.groups < FEW_CLUSTERS else ""
    interval = "[{:.3f}, {:.3f}], ".format(*result.interval) if result.interval else ""
    lines = [
        f"F1 {result.pooled.f1:.3f} {interval}{result.interval_note}{few}",
        f"everything positive: F1 {result.all_positive_f1:.3f}; every window right: F1 {result.ideal_f1:.3f}",
        f"limit: {LIMIT}",
        *(f"flag: {flag}" for flag in evaluated.flags),
    ]
    if evaluated.openings is not None:
        lines.append(
            f"opening {evaluated.openings.by_study} of this test by this study, {evaluated.openings.by_all} in all"
        )
    return [*lines, f"stored in run {evaluated.run_id}: {evaluated.artifact}"]
