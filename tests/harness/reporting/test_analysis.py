"""What a report says of a study: ranks, differences, what is undecided."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli.matrix_text import matrix_text
from harness.reporting.compare_studies import ReportedStudy, compare_studies
from harness.reporting.page.wording import summary
from harness.reporting.report import make_report, render_html, render_markdown, write_matrix
from harness.reporting.train_test_matrix import matrix_of
from harness.study.study import Study, StudyError
from tests.harness.places.report_study import ReportRecord


def test_trials_are_ranked_and_held_against_the_best(place: ReportRecord, study: Study) -> None:
    (board,) = place.report(study).boards
    scores = [row.score for row in board.rows]
    assert scores == sorted(scores, reverse=True)
    assert [row.rank for row in board.rows] == [1, 2, 3]
    assert board.best.to_best is None
    first = place.answers[study.name, board.best.trial]
    for row in board.rows[1:]:
        found = place.answers[study.name, row.trial].difference_from(first)
        columns = tuple((name, replace(column, speakers=120)) for name, column in found.columns)
        assert row.to_best == replace(found, speakers=120, columns=columns)
        assert [name for name, _ in columns] == ["clean", "other"]
        assert row.to_best.value == pytest.approx(row.score - board.best.score)
    assert [row.to_best.verdict for row in board.rows[1:]] == ["undecided", "decided"]
    assert (board.best.peak_epoch, board.best.epochs, board.best.final_train) == (4, 7, 0.99)
    assert board.best.macs > 1e6


def test_the_best_of_many_is_less_than_it_seems(place: ReportRecord, study: Study) -> None:
    (board,) = place.report(study).boards
    assert board.compared == 4  # complete and pruned: each was a look
    assert board.luck > 0
    assert board.discounted == board.best.score - board.luck


def test_groups_show_the_best_of_each_value(place: ReportRecord, study: Study) -> None:
    (board,) = place.report(study).boards
    tables = {table.parameter: table.groups for table in board.groups}
    assert list(tables) == ["subset", "feature"]
    assert [(one.value, one.complete, one.others) for one in tables["subset"]] == [
        ("clean", 2, 1),
        ("other", 1, 1),
    ]
    assert tables["subset"][0].best.trial == board.best.trial
    assert tables["subset"][1].best.to_best.decided


def test_the_summary_says_what_is_undecided_and_how_many_speakers_would_decide(
    place: ReportRecord, study: Study
) -> None:
    lines = summary(place.report(study))
    assert re.search(r"^Best: trial \d .* interval \[\.\d+, \.\d+\] on 400 windows, K = 40\.$", lines[0])
    assert any(re.search(r"expected to be luck: read \.\d", line) for line in lines)
    assert any(
        re.search(
            r"^By feature: .*undecided: (about|more than) [\d,]+ speakers in [\d,]+ clusters would decide",
            line,
        )
        for line in lines
    )
    assert any(line.startswith("By subset: clean") and line.endswith("decided.") for line in lines)


def test_few_clusters_claim_nothing(place: ReportRecord) -> None:
    study = place.study()
    found = {"low": 0.6, "high": 0.9, "windows": 90, "clusters": 4, "icc": 0.1, "n_eff": 60.0}
    place.add(study, 0.8, interval=found)
    assert any(line.startswith("Few clusters") for line in summary(place.report(study)))


def test_trials_judged_on_other_windows_stand_apart(place: ReportRecord) -> None:
    study = place.study()
    place.add(study, 0.7)
    place.add(study, 0.9)
    audits = study.optuna_study.user_attrs["audits"]
    second = study.trial(1)
    moved = {**second.config["data"], "seed": 5}
    study.describe(
        [*audits, {**audits[0], "config": moved, "manifests": {**audits[0]["manifests"], "val": "f" * 64}}],
        {},
        [],
    )
    trials = [study.trial(0), replace(second, config={**second.config, "data": moved})]
    study.trials = lambda: trials  # type: ignore[method-assign]
    report = place.report(study)
    assert [len(board.rows) for board in report.boards] == [1, 1]
    (note,) = report.notes
    assert "f" * 12 in note
    assert "none ranks against another's" in note


def test_the_matrix_has_the_best_trial_of_each_training_subset(place: ReportRecord, study: Study) -> None:
    (board,) = place.report(study).boards
    matrix = board.matrix
    assert matrix.columns == ("ami", "clean", "other")
    assert [row.subset for row in matrix.rows] == ["clean", "other"]
    assert matrix.rows[0].trial == board.best.trial
    assert [cell.few_clusters for cell in matrix.rows[0].cells] == [True, False, False]
    assert [(one.column, one.better, one.difference.verdict) for one in board.transfers] == [
        ("clean", "clean", "decided"), ("other", "clean", "decided"),
    ]  # fmt: skip
    text = matrix_text(matrix)
    assert "K = 4, few clusters" in text
    assert f"{matrix.rows[0].cells[1].value:.3f}" in text
    assert matrix_of([replace(trial, outcome={}) for trial in study.trials()]) is None


def test_the_matrix_is_drawn(place: ReportRecord, study: Study, tmp_path: Path) -> None:
    matrix = place.report(study).boards[0].matrix
    write_matrix(matrix, tmp_path, "voices, validation $1")
    assert (tmp_path / "matrix.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((tmp_path / "matrix.json").read_text()) == matrix.as_json()


# Two studies


def test_two_studies_on_the_same_windows_are_paired(place: ReportRecord, study: Study) -> None:
    other = place.study("second")
    place.add(other, 0.6, seed=9)
    found = compare_studies(
        ReportedStudy(place.report(study), study, place.reader(study)),
        ReportedStudy(place.report(other), other, place.reader(other)),
    ).against
    assert found.refusal == ""
    assert found.difference.decided
    assert found.difference.value > 0


def test_two_studies_on_other_windows_are_not_ranked(place: ReportRecord, study: Study) -> None:
    other = place.study("second", seed=3)
    place.add(other, 0.9, seed=9)
    report = compare_studies(
        ReportedStudy(place.report(study), study, place.reader(study)),
        ReportedStudy(place.report(other), other, place.reader(other)),
    )
    found = report.against
    assert found.difference is None
    assert "not ranked" in found.refusal
    assert "run the one that changed again" in found.advice
    assert ("manifest digest, val", "0" * 64, "3" * 64) in found.differing
    assert ("data.seed", "0", "3") in found.differing
    for text in (render_html(report), render_markdown(report)):
        assert "3" * 64 in text
        assert "not ranked" in text


# How it is read and written


def test_answers_come_from_the_spool_and_altered_ones_are_a_note(place: ReportRecord, study: Study) -> None:
    place.record.database.unlink()
    place.record.open()  # MLflow's database, which knows none of these trials
    report = make_report(place.record, study)
    assert report.boards == place.report(study).boards
    assert report.notes == ()
    spooled = place.record.spool / study.name
    (spooled / "00002/outputs/artifacts/predictions.npz").write_bytes(b"other")
    shutil.rmtree(spooled / "00001")
    notes = make_report(place.record, study).notes
    assert any("Trial 2" in note and "was altered" in note for note in notes)
    assert any("Trial 1" in note and "no run of trial 1" in note for note in notes)


def test_a_study_without_a_complete_trial_is_refused(place: ReportRecord) -> None:
    study = place.study()
    place.add(study, 0.5, state="failed")
    with pytest.raises(StudyError, match="no complete trial to report on"):
        make_report(place.record, study)
