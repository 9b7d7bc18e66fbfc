"""`harness why STUDY TRIAL`."""

from __future__ import annotations

from typing import Any

import click

from harness.cli.exits import print_json
from harness.cli.options import common_options, settings, study_and_baseline


@click.command()
@click.argument("study")
@click.argument("trial")
@common_options("record", "json")
def command(study: str, trial: str, as_json: bool, **options: Any) -> None:
    """Say why TRIAL was pruned, failed, left out or not promoted.

    STUDY is a study's name, or the sweep file that it runs. TRIAL is a trial's number, an
    ensemble's name, a control (unseen, shuffled_labels), or `baseline`. Reads the study alone: no server
    is started, nothing is changed.

    \b
    --json prints: study, trial, state, why (one sentence), details (lines), decisions (time,
    policy, subject, verdict, registered_name, version, guards, note, fingerprint).
    """
    from harness.study.storage.record import Record
    from harness.study.study import load_study

    record = Record(settings(**options).record).require()
    name, _ = study_and_baseline(record, study)
    loaded = load_study(record, name)
    from harness.reporting.explain.why import explain_trial

    answer = explain_trial(record, loaded, trial, is_run=record.is_run(name))
    if as_json:
        print_json(answer.as_json())
    else:
        click.echo("\n".join(answer.lines()))
