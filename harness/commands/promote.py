"""`harness promote STUDY`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.commands.options import common, home, print_json, settings

if TYPE_CHECKING:
    from harness.promotion import Promotion


@click.command()
@click.argument("study")
@click.option(
    "--run",
    metavar="RUN",
    help="Trial number, ensemble name or MLflow run id.  [default: the best trial by score]",
)
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), default=Path("promoted"), show_default=True,
    help="Folder of bundles; this one goes to OUTPUT/STUDY.",
)  # fmt: skip
@common("record", "data_root", "cache", "json", "quiet")
def command(study: str, run: str | None, output: Path, as_json: bool, quiet: bool, **options: Any) -> None:
    """Check, export, test and register the best model of STUDY. Trains nothing.

    STUDY is a study's name, or the sweep file that it runs. Integrity guards refuse (exit 3,
    nothing changed), quality guards warn. The frozen test is opened once, the result is
    registered under the alias `champion` and stamped unconfirmed.

    \b
    --json prints: study, trial, registered_name, version, bundle, stamp, test (value, low,
    high, windows, clusters), test_by_subset, guards (name, level, ok, measured, bound, advice), latency,
    optimism, test_openings, test_openings_by_all.
    """
    from harness.record import Record
    from harness.study import load_study, study_of
    from harness.sweep import load_sweep

    where = settings(**options)
    record = Record(where.record).require()
    if study.endswith((".yaml", ".yml")):
        study = study_of(record, load_sweep(Path(study)))
    load_study(record, study)  # before torch: a wrong name is answered at once
    from harness.promotion import promote

    silent = quiet or as_json
    progress = (lambda text: None) if silent else (lambda text: click.echo(text, err=True))
    result = promote(study, run, where, home(output), progress)
    if as_json:
        print_json(_document(result))
    else:
        click.echo("\n".join(_lines(result)))


def _document(result: Promotion) -> dict[str, Any]:
    evidence = result.evidence
    measured = (
        "stamp",
        "test",
        "test_by_subset",
        "guards",
        "latency",
        "optimism",
        "test_openings",
        "test_openings_by_all",
    )
    return {
        "study": result.study,
        "trial": evidence["trial"],
        "registered_name": result.registered_name,
        "version": result.version,
        "bundle": str(result.bundle),
        **{key: evidence[key] for key in measured},
    }


def _lines(result: Promotion) -> list[str]:
    from harness.bundle import luck_line
    from harness.subsets import subset_lines

    subject, evidence = result.subject, result.evidence
    passed = sum(guard.ok for guard in result.guards)
    lines = [f"guards: {passed} of {len(result.guards)} pass"]
    lines += [f"  warning: {guard}" for guard in result.guards if not guard.ok]
    lines += [
        f"promoted {subject.label} ({subject.configuration}) as {result.registered_name} version {result.version}, "
        f"alias champion",
        f"test: {result.test}, opening {evidence['test_openings']} of this test by this study, "
        f"{evidence['test_openings_by_all']} in all",
        *(f"  on {line}" for line in subset_lines(evidence["test_by_subset"])),
        f"validation score {subject.score or 0:.3f}, {luck_line(evidence['optimism'], evidence['trials_compared'])}",
        f"latency: P50 {result.latency.p50_ms:.1f} ms, P99 {result.latency.p99_ms:.1f} ms ({result.latency.provider})",
        evidence["stamp"],
        f"bundle: {result.bundle}/ (model.onnx, card.md, evidence.json, golden/)",
    ]
    return lines
