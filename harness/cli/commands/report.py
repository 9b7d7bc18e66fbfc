"""`harness report STUDY`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harness.cli.exits import print_json
from harness.cli.options import common_options, expand_home, settings, study_and_baseline


@click.command()
@click.argument("study")
@click.option("--against", metavar="STUDY", help="Hold the best of another study against this one's.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Folder of reports; this one goes to OUTPUT/STUDY.",
)
@common_options("record", "json", "quiet")
def command(
    study: str, against: str | None, output: Path, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Write what STUDY says: the trials side by side, with intervals and what is undecided.

    STUDY is a study's name, or the sweep file that it runs. Writes report.html (one page, no
    script, nothing loaded from anywhere), report.md and report.json. Two studies are ranked only
    where they were judged on the same validation windows. Trains nothing and opens no test.

    \b
    --json prints: study, against, html, markdown, json (the files) and summary (sentences).
    """
    from harness.reporting.output_folder import require_folder
    from harness.study.storage.record import Record
    from harness.study.study import load_study

    record = Record(settings(**options).record).require()
    ours = load_study(record, study_and_baseline(record, study)[0])
    theirs = load_study(record, study_and_baseline(record, against)[0]) if against else None
    folder = expand_home(output) / ours.name
    require_folder(folder)
    from harness.reporting.page.wording import summary
    from harness.reporting.report import make_report, write_report

    report = make_report(record, ours, theirs)
    paths = write_report(report, folder)
    lines = summary(report)
    if as_json:
        files = {"html": str(paths["html"]), "markdown": str(paths["md"]), "json": str(paths["json"])}
        other = theirs.name if theirs else None
        print_json({"study": report.study, "against": other, **files, "summary": lines})
        return
    click.echo(
        "\n".join([*([] if quiet else lines), f"report: {paths['html']} (and report.md, report.json)"])
    )
