"""The end of a sweep: what the study says goes to the launch's run, as a report and as the train x test matrix."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.format import one_line
from harness.study.storage.record import Record
from harness.study.study import Study
from harness.tracking.experiment import Tracking

if TYPE_CHECKING:
    from harness.reporting.train_test_matrix import Matrix

FOLDER = "report"


def publish_report(
    study: Study, record: Record, tracking: Tracking | None, say: Callable[[str], None]
) -> Matrix | None:
    """Write report/ (and matrix.png, matrix.json) into the artifacts of the launch's run.

    What goes wrong here is one line for people: a sweep that trained is not failed by its report.

    Returns
    -------
    the matrix, where trials were scored by subset and all judged on the same windows; None too without a complete
    trial or a launch's run, or where the report went wrong
    """
    if study.best() is None or tracking is None or tracking.parent is None:
        return None
    try:
        from harness.reporting.report import make_report, write_matrix, write_report

        report = make_report(record, study, client=tracking.client)
        matrix = report.boards[0].matrix if len(report.boards) == 1 else None
        with tempfile.TemporaryDirectory(prefix="harness-report-") as scratch:
            write_report(report, Path(scratch) / FOLDER)
            if matrix is not None:
                write_matrix(matrix, Path(scratch), f"{study.name}, validation")
            tracking.client.log_artifacts(tracking.parent, scratch)
    except Exception as error:
        say(f"warning: the report was not written ({one_line(error)}); try: harness report {study.name}")
        return None
    return matrix
