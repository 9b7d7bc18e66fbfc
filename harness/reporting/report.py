"""A report on paper: one self-contained HTML page, the same in Markdown, and report.json."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.core.files import to_share, write_json, write_text_atomic
from harness.core.format import format_duration
from harness.metrics.few_clusters import few_clusters_note
from harness.reporting.analysis import WindowCorrectness, analyse
from harness.reporting.compare_studies import ReportedStudy, compare_studies
from harness.reporting.document import Report
from harness.reporting.learning_curves import RULES
from harness.reporting.meeting_tables import evaluations_of, tables_of
from harness.reporting.output_folder import ReportError, require_folder
from harness.reporting.page.charts import curves_figure, drawn_rows, image, matrix_figure, svg
from harness.reporting.page.wording import (
    brief,
    cell,
    claim,
    digest,
    effective,
    flags_once,
    format_count,
    interval,
    plain,
    share,
    signed,
    summary,
)
from harness.reporting.train_test_matrix import Matrix
from harness.study.ensembles import OPTIMISM
from harness.study.storage.record import Record
from harness.study.study import Study, StudyError
from harness.study.trials import TrialSummary
from harness.tracking.artifacts import ArtifactError
from harness.tracking.run_files import PREDICTIONS, RunFiles, open_run_files

if TYPE_CHECKING:
    from mlflow import MlflowClient


def make_report(
    record: Record, study: Study, against: Study | None = None, client: MlflowClient | None = None
) -> Report:
    """Read what the record holds of a study, and say what it says.

    Parameters
    ----------
    against : a study whose best is held against this one's best
    client : of the MLflow that has the runs; None: the record is read as it lies, or its team's server asked

    Raises
    ------
    StudyError
        The study has no complete trial: there is nothing to compare.
    ReportError
        It would be held against itself.
    """
    if against is not None and against.identity == study.identity:
        raise ReportError(f"{study.name} against itself says nothing: name another study")
    created = datetime.now(UTC).isoformat(timespec="seconds")
    report = _read(record, study, created, client)
    if against is None:
        return report
    with open_run_files(record, study, client) as ours, open_run_files(record, against, client) as theirs:
        other = _read(record, against, created, client)
        return compare_studies(
            ReportedStudy(report, study, _Reader(ours)), ReportedStudy(other, against, _Reader(theirs))
        )


def _read(record: Record, study: Study, created: str, client: MlflowClient | None) -> Report:
    if study.best() is None:
        raise StudyError(
            f"study {study.name} has no complete trial to report on; see: harness status {study.name}"
        )
    with open_run_files(record, study, client) as files:
        reader = _Reader(files)
        evaluations = evaluations_of(files)
        report = analyse(study, reader, created=created, evaluations=evaluations)
    return report.with_notes(reader.problems)


class _Reader:
    """Loads trials' answers; what cannot be read is a note in the report, not the end of it."""

    def __init__(self, files: RunFiles) -> None:
        self.files = files
        self.problems: list[str] = []

    def __call__(self, trial: TrialSummary) -> WindowCorrectness | None:
        """Which validation windows a trial got right; None where that cannot be read, which becomes a problem."""
        try:
            wanted = trial.outcome.get("sha256", {}).get(PREDICTIONS)
            if wanted is None:
                raise ArtifactError("its predictions were not recorded")
            return load_correctness(self.files.file(trial.number, PREDICTIONS, wanted))
        except (ArtifactError, OSError, ValueError, KeyError) as error:
            self.problems.append(f"Trial {trial.number} is not compared window by window: {error}.")
            return None


def load_correctness(path: Path) -> WindowCorrectness:
    """Which validation windows a trial's predictions.npz has right: val_logits (window, class) against val_labels."""
    with np.load(path, allow_pickle=False) as stored:
        correct = stored["val_logits"].argmax(axis=1) == stored["val_labels"]
        return WindowCorrectness(correct, stored["val_clusters"], stored.get("val_subsets"))


@to_share()
def write_report(report: Report, folder: Path) -> dict[str, Path]:
    """Write report.html, report.md and report.json into a folder, each aside and renamed.

    Raises
    ------
    ReportError
        The folder cannot be written.
    """
    paths = {kind: folder / f"report.{kind}" for kind in ("html", "md", "json")}
    texts = {"html": render_html(report), "md": render_markdown(report)}
    require_folder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind, text in texts.items():
            write_text_atomic(paths[kind], text)
        write_json(paths["json"], document(report))
    except (PermissionError, FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise ReportError(f"{folder} cannot be written ({error.strerror}): give another --output") from error
    return paths


def write_matrix(matrix: Matrix, folder: Path, title: str) -> None:
    """Write matrix.png and matrix.json into a folder, which is made; `title` stands above the drawing."""
    folder.mkdir(parents=True, exist_ok=True)
    image(matrix_figure(matrix, title)).save(folder / "matrix.png")
    write_json(folder / "matrix.json", matrix.as_json())


def document(report: Report) -> dict[str, Any]:
    """The content of report.json: every number of the page, the sentences of its summary, the rules."""
    return {**report.as_json(), "summary": summary(report), "rules": RULES}


def render_html(report: Report) -> str:
    """The page: no script, and nothing that is loaded from anywhere."""
    drawings = []
    for at, board in enumerate(report.boards):
        matrix = svg(matrix_figure(board.matrix), f"matrix-{at}") if board.matrix else ""
        curves = svg(curves_figure(drawn_rows(board)), f"curves-{at}")
        drawings.append({"curves": curves, "matrix": matrix})
    return _render("report.html.j2", report, {"drawings": drawings})


def render_markdown(report: Report) -> str:
    """The same in Markdown, without drawings: for a terminal, a merge request, a note."""
    return _render("report.md.j2", report, {})


def _render(template: str, report: Report, more: Mapping[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    page = template.endswith(".html.j2")
    environment = Environment(
        loader=PackageLoader("harness.reporting.page"),
        autoescape=page,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    words = (share, signed, interval, digest, cell, plain, claim, brief, effective)
    environment.filters |= {one.__name__: one for one in words}
    environment.filters |= {"duration": format_duration, "big": format_count}
    return environment.get_template(template).render(
        report=report,
        summary=summary(report),
        rules=RULES,
        flags=flags_once(report.data),
        meetings=tables_of(report.evaluations),
        drawn=[len(drawn_rows(board)) for board in report.boards],
        optimism=OPTIMISM,
        few_note=few_clusters_note,
        **more,
    )
