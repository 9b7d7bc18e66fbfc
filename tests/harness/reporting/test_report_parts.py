"""What a report says of meetings, ensembles, flags and small data; and how it refuses."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from data.config import DataConfig
from data.preparation.prepare import prepare
from harness.execution.data_gate import split_counts
from harness.reporting.compare_studies import ReportedStudy, compare_studies
from harness.reporting.meeting_tables import tables_of
from harness.reporting.output_folder import ReportError, require_folder
from harness.reporting.page.charts import PANELS, drawn_rows
from harness.reporting.page.wording import effective, summary
from harness.reporting.report import document, make_report, render_html, render_markdown, write_report
from harness.study.ensembles import OPTIMISM, EnsembleSummary, save_ensemble
from harness.study.study import Study
from tests.harness.places.report_study import ReportRecord

MEETINGS = {
    "3" * 8: [
        {"run": "trial 0", "values": {
            "recall": 0.51234, "f1": 0.61234, "clusters": 4.0, "detection_error_rate": 0.7, "precision": 0.4,
            "flags": "only the clusters tell; chosen on these", "protocol": "protocol 33333333: overlap on ami dev (lists, 4 meetings)",
        }},
        {"run": "ensemble 0+1", "values": {"f1": 0.7, "clusters": 12.0}},
    ]
}  # fmt: skip
TESTED = {
    "4" * 8: [
        {
            "run": "trial 0",
            "values": {"f1": 0.5, "protocol": "protocol 44444444: overlap on ami test (lists, 4 meetings)"},
        }
    ]
}


def test_meetings_say_what_qualifies_their_numbers(place: ReportRecord, study: Study) -> None:
    (table,) = tables_of(MEETINGS)
    assert table.metrics == ("f1", "precision", "recall", "detection_error_rate", "clusters")
    assert table.rows == (
        (
            "trial 0",
            ("0.612", "0.400", "0.512", "0.700", "4, few clusters"),
            "only the clusters tell; chosen on these",
        ),
        ("ensemble 0+1", ("0.700", "–", "–", "–", "12"), ""),
    )
    report = place.report(study, evaluations=MEETINGS)
    assert "| trial 0 | 0.612 | 0.400 | 0.512 | 0.700 | 4, few clusters | only" in render_markdown(report)
    assert "ensemble 0+1" in render_html(report)


def test_the_page_does_not_call_a_test_closed_that_was_opened(place: ReportRecord, study: Study) -> None:
    opened = "Meetings of a test part were opened"
    assert opened not in render_html(place.report(study, evaluations=MEETINGS))
    assert opened in render_html(place.report(study, evaluations=MEETINGS | TESTED))


def test_ensembles_stand_beside_the_trials(place: ReportRecord, study: Study) -> None:
    assert "Ensembles" not in render_markdown(place.report(study))
    members = tuple(study.trials()[:2])
    outcome = {"score": 0.85, "interval": {"low": 0.8, "high": 0.9, "windows": 400, "clusters": 40}}
    save_ensemble(study, EnsembleSummary("0+1", "a" * 32, members, ("b", "c"), "d" * 64, outcome))
    report = place.report(study)
    assert [one["members"] for one in document(report)["ensembles"]] == [[0, 1]]
    assert "| 0+1 | 0, 1 | .850 | [.800, .900] | 400 | 40 |" in render_markdown(report)
    assert OPTIMISM[:40] in render_html(report)
    assert [row.trial for row in report.boards[0].rows] == [
        row.trial for row in place.report(study).boards[0].rows
    ]


def test_each_flag_is_said_once(place: ReportRecord, study: Study) -> None:
    audits = [dict(one) for one in study.optuna_study.user_attrs["audits"]]
    assert len(audits) == 2
    audits[1]["flags"] = [*audits[1]["flags"], "train of other: fewer than 3 speakers"]
    study.describe(audits, {}, [])
    text = render_markdown(place.report(study))
    assert text.count("flag: a flag") == 1
    assert "flag: train of other: fewer than 3 speakers (demo other)" in text
    assert render_html(place.report(study)).count("<li>a flag</li>") == 1


def test_the_summary_says_what_limits_the_scores(place: ReportRecord, study: Study) -> None:
    lines = summary(place.report(study))
    pool = (
        "ami (90 windows, K = 4, few clusters), clean (200 windows, K = 40) and other (200 windows, K = 40)"
    )
    assert any(line.startswith(f"The validation windows are a pool of {pool}") for line in lines)
    audits = [dict(one) for one in study.optuna_study.user_attrs["audits"]]
    counted = {"windows": 50, "clusters": 2, "speakers": 2}
    audits[1]["evidence"] = {**audits[1]["evidence"], "train": {"": counted}}
    audits[1]["flags"] = ["train of other: fewer than 3 speakers", "val: other gives 4 of 9 windows"]
    study.describe(audits, {}, [])
    lines = summary(place.report(study))
    assert sum("2 speakers" in line for line in lines if line.startswith("Training on other has ")) == 1
    assert sum("fewer than 3 speakers" in line for line in lines) == 1


def test_a_pool_says_what_it_is_made_of(place: ReportRecord, study: Study) -> None:
    (line,) = [line for line in summary(place.report(study)) if line.startswith("It leads trial")]
    assert re.search(r"over clean \(200 windows, K = 40: \S+, \w+\) and other \(200 windows, K = 40: ", line)


def test_every_arm_has_a_learning_curve(place: ReportRecord) -> None:
    study = place.study()
    for seed in range(PANELS + 1):
        place.add(study, 0.9, "mfcc", "clean", seed=seed)
    place.add(study, 0.6, "log_mel", "clean", seed=20)
    place.add(study, 0.5, "mfcc", "other", seed=21)
    report = place.report(study)
    (board,) = report.boards
    drawn = drawn_rows(board)
    assert len(drawn) == PANELS
    assert {7, 8} <= {row.trial for row in drawn}
    assert drawn[0] == board.best
    assert list(drawn) == sorted(drawn, key=lambda row: row.rank)
    for text in (render_html(report), render_markdown(report)):
        assert f"{PANELS} of 9 complete trials" in text
    assert "In report.html" in render_markdown(report)


def test_a_constant_predictor_is_no_plateau(place: ReportRecord) -> None:
    study = place.study()
    place.add(study, 0.5, at_best={"val/balanced_accuracy": 0.5, "val/predicted_positive": 1.0})
    (finding,) = place.report(study).boards[0].best.findings
    assert finding.rule == "constant predictor"


def test_settings_without_effect_are_not_shown() -> None:
    assert effective({"type": "grid", "startup_trials": 10}) == "grid"
    assert effective({"type": "none", "warmup_epochs": 3}) == "none"
    assert effective({"type": "median", "startup_trials": 5, "warmup_epochs": 3, "reduction_factor": 3}) == (
        "median (startup_trials: 5, warmup_epochs: 3)"
    )


def test_the_answer_of_two_studies_is_in_the_summary(place: ReportRecord, study: Study) -> None:
    def against(**data: int) -> tuple[str, dict]:
        other = place.study(f"second{len(data)}", **data)
        place.add(other, 0.6, seed=9)
        report = compare_studies(
            ReportedStudy(place.report(study), study, place.reader(study)),
            ReportedStudy(place.report(other), other, place.reader(other)),
        )
        return summary(report)[-1], document(report)["against"]

    line, stored = against()
    assert line.startswith("Against second0 (")
    assert "decided" in line
    assert {"verdict", "remedy", "decided", "columns"} <= set(stored["difference"])
    assert stored["difference"]["speakers"] == 120
    line, stored = against(seed=3)
    assert "not ranked" in line
    assert f"Differing: manifest digest, val {'0' * 12} and {'3' * 12}; " in line
    assert "fields data.seed" in line
    assert stored["difference"] is None


def test_a_study_is_not_held_against_itself(place: ReportRecord, study: Study) -> None:
    with pytest.raises(ReportError, match="against itself says nothing"):
        make_report(place.record, study, study)


def test_a_folder_that_cannot_be_written_is_one_line_before_the_work(
    place: ReportRecord, study: Study, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ReportError, match="file is not a folder: give another --output"):
        require_folder(tmp_path / "file" / "deep" / study.name)
    require_folder(tmp_path / "not" / "yet")
    assert not (tmp_path / "not").exists()
    command = [
        "report",
        study.name,
        "--record",
        str(place.record.root),
        "--output",
        str(tmp_path / "file" / "deep"),
    ]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "harness.cli.main", *command], cwd=tmp_path, env={**os.environ, "NO_COLOR": "1"},
        text=True, capture_output=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert "--output" in line
    with pytest.raises(ReportError, match="give another --output"):  # where even root may not write
        write_report(place.report(study), Path("/proc/nowhere"))


def test_evidence_counts_people(demo_cache: Path) -> None:
    config = DataConfig(corpus="demo", train_windows=120, val_windows=96, test_windows=96)
    manifest = prepare(config, data_root=None, cache=demo_cache).splits["val"].manifest
    counted = split_counts(manifest)
    assert json.loads(json.dumps(counted)) == counted
    assert (
        counted[""]["windows"] == len(manifest) == sum(of["windows"] for name, of in counted.items() if name)
    )
    assert counted[""]["clusters"] == len(set(manifest.clusters()))
    assert counted[""]["speakers"] >= counted[""]["clusters"]
