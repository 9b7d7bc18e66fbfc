"""The report as pages: HTML, Markdown, JSON, in a browser and at the end of a sweep."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.cli.commands.report import command
from harness.metrics.chance_level import ChanceTestResult
from harness.reporting.analysis import analyse
from harness.reporting.compare_studies import ReportedStudy, compare_studies
from harness.reporting.document import Report
from harness.reporting.page.wording import cell, format_count, interval, plain, share, signed, summary
from harness.reporting.report import document, load_correctness, render_html, render_markdown, write_report
from harness.study.controls import Control, keep_control
from harness.study.study import Study
from tests.harness.conftest import FinishedSweep
from tests.harness.places.report_study import ReportRecord

EVALUATIONS = {
    "11111111": [{"run": "trial 0", "values": {"f1": 0.61, "protocol": "collar 0 s", "digest": "1" * 64}}],
    "22222222": [{"run": "trial 0", "values": {"f1": 0.83, "protocol": "collar .25 s", "digest": "2" * 64}}],
}


@pytest.fixture
def full(place: ReportRecord, study: Study) -> Report:
    """A report with everything in it that a report can have."""
    keep_control(study, Control("unseen", ChanceTestResult("sound", 0.51, 0.41, 400, 40)))
    keep_control(study, Control("shuffled_labels", ChanceTestResult("broken", 0.81, 0.71, 400, 40)))
    other = place.study("second", seed=3)
    place.add(other, 0.9, seed=9)
    report = place.report(study, evaluations=EVALUATIONS, notes=["A note."])
    return compare_studies(
        ReportedStudy(report, study, place.reader(study)),
        ReportedStudy(place.report(other), other, place.reader(other)),
    )


def test_the_page_is_one_file_that_loads_nothing(full: Report) -> None:
    page = render_html(full)
    without_namespaces = page.replace("http://www.w3.org/", "")
    assert not re.search(
        r"https?:|<script|<link(?! rel=\"icon\" href=\"data:)|@import|url\((?!#)", without_namespaces
    )
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;b&gt;no&lt;/b&gt; memory" in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {target for target in re.findall(r'href="#([^"]+)"', page)} <= set(ids)
    assert page.count("BROKEN CONTROL") == 1


def test_markdown_says_the_same(full: Report) -> None:
    text = render_markdown(full)
    assert "<script>" not in text
    for line in summary(full):
        assert cell(line) in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for head, rule in itertools.pairwise(rows):
        if set(rule) <= set("|-:"):
            assert len(re.split(r"(?<!\\)\|", head)) == len(rule.split("|"))
    assert "collar 0 s" in text
    assert "\n\n\n\n" not in text


def test_numbers_of_different_protocols_never_share_a_table(full: Report) -> None:
    page = render_html(full)
    section = page[page.index('id="meetings"') : page.index('id="incomplete"')]
    tables = re.findall(r"<table.*?</table>", section, flags=re.DOTALL)
    assert len(tables) == 2
    assert [("0.610" in table, "0.830" in table) for table in tables] == [(True, False), (False, True)]


def test_the_json_is_plain_and_complete(full: Report, tmp_path: Path) -> None:
    paths = write_report(full, tmp_path / "deep" / "folder")
    stored = json.loads(paths["json"].read_text("utf-8"))
    assert stored == json.loads(json.dumps(document(full)))
    assert {"study", "created", "asked", "code", "data", "counts", "boards", "incomplete", "skipped", "controls",
            "ensembles", "evaluations", "notes", "against", "summary", "rules"} == set(stored)  # fmt: skip
    assert stored["against"]["difference"] is None
    assert stored["boards"][0]["rows"][1]["to_best"]["verdict"] == "undecided"
    assert sorted(path.name for path in paths["html"].parent.iterdir()) == [
        "report.html",
        "report.json",
        "report.md",
    ]


def test_a_report_of_an_earlier_version_lacks_what_was_not_recorded(
    place: ReportRecord, study: Study
) -> None:
    for key in ("audits", "code", "skipped"):
        study.storage.set_study_user_attr(study.optuna_study._study_id, key, [] if key != "code" else {})
    trials = [
        replace(one, outcome={k: v for k, v in one.outcome.items() if k not in ("curves", "by_subset")})
        for one in study.trials()
    ]
    study.trials = lambda: trials  # type: ignore[method-assign]
    report = analyse(study, lambda trial: None, created="2026-01-02T03:04:05+00:00")
    assert report.boards[0].val_digest == "not recorded"
    assert report.boards[0].best.final_train is None
    assert "were not recorded" in render_html(report)
    assert "No trial was scored by subset" in render_markdown(report)


def test_numbers_as_they_are_written() -> None:
    assert [share(value) for value in (0.9141, 1.0, 0, None)] == [".914", "1.000", ".000", "–"]
    assert [signed(value) for value in (0.0161, -0.12, None)] == ["+.016", "−.120", "–"]
    assert interval(-0.1, 0.2, difference=True) == "[−.100, +.200]"
    assert [format_count(value) for value in (12.8e9, 85.3e6, 2_264, 12, None)] == [
        "12.8 G",
        "85.3 M",
        "2.26 k",
        "12",
        "–",
    ]
    assert plain({"type": "tpe", "startup_trials": 10}) == "tpe (startup_trials: 10)"
    assert plain({"value": 0.5, "when": {}}) == "0.5"
    assert cell("a | b\n<c>") == "a \\| b &lt;c>"
    assert command.help.startswith("Write what STUDY says")


@pytest.mark.needs_browser
def test_a_browser_shows_every_section_and_asks_for_nothing(
    full: Report, tmp_path: Path, browser: Path
) -> None:
    from playwright.sync_api import sync_playwright

    paths = write_report(full, tmp_path)
    stored = json.loads(paths["json"].read_text("utf-8"))
    said: list[str] = []
    asked: list[str] = []
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page(viewport={"width": 1200, "height": 900})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(paths["html"].as_uri())
        sections = page.locator("section").evaluate_all(
            "all => all.filter(one => one.offsetHeight > 40).map(one => one.id)"
        )
        ranked = page.locator("#leaderboard tbody tr").evaluate_all(
            "rows => rows.map(row => [...row.cells].map(cell => cell.innerText.trim()))"
        )
        letters = page.locator("#matrix svg text").all_text_contents()
        fits = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.screenshot(path=tmp_path / "report.png", full_page=True)
        chromium.close()
    assert said == []
    assert asked == [paths["html"].as_uri()]
    assert sections == ["summary", "asked", "leaderboard", "groups", "curves", "matrix", "meetings", "incomplete", "against", "data", "reading"]  # fmt: skip
    (board,) = stored["boards"]
    assert [row[1] for row in ranked] == [str(row["trial"]) for row in board["rows"]]
    for shown, row in zip(ranked, board["rows"], strict=True):
        assert share(row["score"]) in shown
        assert any(interval(row["low"], row["high"]) in text for text in shown)
    cells = [cell for row in board["matrix"]["rows"] for cell in row["test"].values()]
    assert {share(cell["balanced_accuracy"]) for cell in cells} <= set(letters)
    assert sum("few clusters" in text for text in letters) == 2
    assert fits


def test_answers_are_read_without_pickle(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "predictions.npz",
        val_logits=np.array([[0, 1], [1, 0]]),
        val_labels=[1, 1],
        val_clusters=["a", "b"],
    )
    found = load_correctness(tmp_path / "predictions.npz")
    assert (found.correct.tolist(), found.subsets) == ([True, False], None)
    np.savez(tmp_path / "bad.npz", val_logits=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="pickle"):
        load_correctness(tmp_path / "bad.npz")


# The whole way: a sweep writes it, and the command finds everything again without a server


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_sweep_leaves_its_report_and_the_command_writes_it_again(
    told: FinishedSweep, tmp_path: Path, demo_cache: Path
) -> None:
    shutil.copytree(told.folder, tmp_path, dirs_exist_ok=True)
    environment = {**os.environ, "HARNESS_CACHE": str(demo_cache), "NO_COLOR": "1"}

    def run(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "harness.cli.main", *words], cwd=tmp_path, env=environment, text=True,
            capture_output=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    assert "warning: the report" not in told.stdout
    assert "report:  harness report told" in told.stdout
    (left,) = tmp_path.glob("mlruns/artifacts/*/*/artifacts/report/report.json")
    assert {path.name for path in left.parent.iterdir()} == {"report.html", "report.json", "report.md"}
    log = (tmp_path / "mlruns/server.log").stat()
    shown = json.loads(run("report", "told.yaml", "--json"))
    assert set(shown) == {"study", "against", "html", "markdown", "json", "summary"}
    assert (tmp_path / "mlruns/server.log").stat().st_mtime_ns == log.st_mtime_ns  # no server was started
    again, first = (json.loads(path.read_text("utf-8")) for path in (tmp_path / shown["json"], left))
    assert {**again, "created": ""} == {**first, "created": ""}
    assert shown["summary"] == again["summary"]
    assert (
        again["boards"][0]["rows"][1]["to_best"]["windows"] == 96
    )  # predictions came from MLflow's artifacts
    assert again["data"][0]["histograms"]["train"]["0"]["windows"] == 60
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlruns", "reports", "told.yaml"]
    assert "did you mean told" in json.loads(run("report", "tolt", "--json", code=2))["error"]
