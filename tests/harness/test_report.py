"""The report: a study of trials as the coordinator leaves them, without training any."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from harness.against import compare
from harness.analysis import Answers, analyse
from harness.commands.report import command
from harness.controls import Control, Judgement, keep_control
from harness.matrix import matrix_of, matrix_text
from harness.record import Record
from harness.report import (
    document,
    load_answers,
    make_report,
    render_html,
    render_markdown,
    write_matrix,
    write_report,
)
from harness.report_text import big, cell, interval, plain, share, signed, summary
from harness.report_values import Report
from harness.spool import TrialSpool, sha256_of
from harness.statistics import clustered_interval
from harness.study import Study, StudyError, open_study
from harness.sweep import Sweep
from harness.trial_config import TrialConfig

CLUSTERS = np.repeat([f"s{k:02d}" for k in range(40)], 10)
LABELS = np.tile([0, 1], 200)
SUBSETS = np.where(np.arange(400) % 4 < 2, "clean", "other")
EVIL = "<script>alert(1)</script> | *clean* or `other`?"


def correct(accuracy: float, seed: int) -> np.ndarray:
    """Answers (window,) of which a share is right, some speakers better than others."""
    source = np.random.default_rng(seed)
    by_speaker = np.clip(accuracy + 0.15 * source.standard_normal(40), 0.02, 0.98)
    return source.random(400) < np.repeat(by_speaker, 10)


class Place:
    """A record with studies in it, made the way a coordinator makes them."""

    def __init__(self, root: Path) -> None:
        self.record = Record(root / "mlruns")
        for folder in (self.record.root, self.record.spool, self.record.locks, self.record.artifacts):
            folder.mkdir()
        self.record.database.touch()
        self.answers: dict[tuple[str, int], Answers] = {}

    def study(self, name: str = "voices", **data: Any) -> Study:
        sweep = Sweep.model_validate({
            "name": name, "description": EVIL, "data": {"evaluate_on": ["clean", "other"], **data},
            "parameters": {"feature": ["mfcc", "log_mel"], "subset": ["clean", "other"], "learning_rate": {"float": [1e-4, 1e-2], "log": True}},
            "budget": {"trials": 9},
        })  # fmt: skip
        study = open_study(self.record, sweep)
        study.release()
        return study

    def add(self, study: Study, accuracy: float, feature: str = "mfcc", subset: str = "clean", state: str = "complete",
            seed: int | None = None, **outcome: Any) -> int:  # fmt: skip
        number = len(study.trials())
        values = {"feature": feature, "subset": subset, "learning_rate": 0.001 * (number + 1)}
        config = study.space.config(values)
        if "audits" not in study.optuna_study.user_attrs:
            study.describe(
                [], {"version.diarization-harness": "0.1.0", "mlflow.source.git.commit": "c0ffee" * 6}, []
            )
        self._audit(study, config)
        attrs: dict[str, Any] = {
            "name": f"{number:03d} {subset} {feature}", "values": values, "config": config.model_dump(mode="json"),
            "fingerprint": config.fingerprint(),
        }  # fmt: skip
        if state in ("complete", "pruned"):
            right = correct(accuracy, seed if seed is not None else number)
            self.answers[study.name, number] = Answers(right, CLUSTERS, SUBSETS)
            attrs["outcome"] = {**self._outcome(right), **outcome}
            attrs["outcome"]["sha256"] = {"predictions.npz": self._spool(study, number, right)}
        if state != "complete":
            attrs["reason"] = {
                "pruned": "the median pruner stopped it",
                "failed": "configuration: <b>no</b> memory",
            }[state]
        score = attrs["outcome"]["score"] if state == "complete" else None
        ended = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}[
            state
        ]
        study.optuna_study.add_trial(optuna.trial.create_trial(state=ended, value=score, user_attrs=attrs))
        return number

    def _outcome(self, right: np.ndarray) -> dict[str, Any]:
        value = float(right.mean())
        found = clustered_interval(right, CLUSTERS)
        val = [0.5, value - 0.05, value, value, value, value - 0.01, value]
        by_subset = {}
        for name in ("clean", "other"):
            part = clustered_interval(right[name == SUBSETS], CLUSTERS[name == SUBSETS])
            by_subset[name] = {
                "balanced_accuracy": part.value,
                "low": part.low,
                "high": part.high,
                "windows": part.windows,
                "clusters": part.clusters,
            }
        by_subset["ami"] = {"balanced_accuracy": 0.6, "low": 0.4, "high": 0.8, "windows": 90, "clusters": 4}
        return {
            "state": "complete", "score": value, "best_epoch": 3, "epochs": 7, "lag1": 0.3, "device": "cpu",
            "at_best": {"val/balanced_accuracy": value, "gap": 0.07, "val/predicted_positive": 0.5}, "by_subset": by_subset,
            "interval": {"low": found.low, "high": found.high, "windows": 400, "clusters": 40, "icc": found.icc, "n_eff": found.n_eff},
            "curves": {"train": [0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99], "val": val}, "val_accuracy": val,
        }  # fmt: skip

    def _spool(self, study: Study, number: int, right: np.ndarray) -> str:
        folder = TrialSpool(self.record.spool / study.name / f"{number:05d}").artifacts
        folder.mkdir(parents=True)
        logits = np.zeros((400, 2), np.float32)
        logits[np.arange(400), np.where(right, LABELS, 1 - LABELS)] = 1
        np.savez_compressed(
            folder / "predictions.npz",
            val_logits=logits,
            val_labels=LABELS,
            val_clusters=CLUSTERS,
            val_subsets=SUBSETS,
        )
        return sha256_of(folder / "predictions.npz")

    def _audit(self, study: Study, config: TrialConfig) -> None:
        audits = list(study.optuna_study.user_attrs["audits"])
        data = config.data.model_dump(mode="json")
        if any(one["config"] == data for one in audits):
            return
        counted = {
            label: {
                "windows": 200,
                "speakers": 20,
                "sexes": {"F": {"windows": 120, "speakers": 12}, "M": {"windows": 80, "speakers": 8}},
            }
            for label in ("0", "1")
        }
        audits.append({
            "data": f"demo {data['subset']}", "config": data, "split_rule": "speaker-disjoint", "flags": ["a flag"], "examined": 9, "lost": [],
            "label_map_digest": "ab" * 32, "ok": True, "histograms": {split: counted for split in ("train", "val", "test")},
            "manifests": {"train": data["subset"] * 9, "val": f"{data['seed']:064d}", "test": "7" * 64},
            "checks": [{"name": "clusters val", "ok": True, "measured": 40, "bound": "", "message": "val: K = 40 clusters", "level": "warn"}],
        })  # fmt: skip
        study.describe(audits, study.optuna_study.user_attrs["code"], [])

    def report(self, study: Study, **more: Any) -> Report:
        return analyse(study, self.reader(study), created="2026-01-02T03:04:05+00:00", **more)

    def reader(self, study: Study):
        return lambda trial: self.answers.get((study.name, trial.number))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def study(place: Place) -> Study:
    """Two front ends near each other, one subset far behind, one trial pruned and one failed."""
    study = place.study()
    place.add(study, 0.80, "mfcc", "clean", seed=1)
    place.add(study, 0.79, "log_mel", "clean", seed=2)
    place.add(study, 0.55, "mfcc", "other", seed=3)
    place.add(study, 0.5, "log_mel", "other", state="pruned")
    place.add(study, 0.5, "log_mel", "clean", state="failed")
    return study


# What it says


def test_trials_are_ranked_and_held_against_the_best(place: Place, study: Study) -> None:
    (board,) = place.report(study).boards
    scores = [row.score for row in board.rows]
    assert scores == sorted(scores, reverse=True)
    assert [row.rank for row in board.rows] == [1, 2, 3]
    assert board.best.to_best is None
    first = place.answers[study.name, board.best.trial]
    for row in board.rows[1:]:
        assert row.to_best == place.answers[study.name, row.trial].minus(first)
        assert row.to_best.value == pytest.approx(row.score - board.best.score)
    assert [row.to_best.verdict for row in board.rows[1:]] == ["undecided", "decided"]
    assert (board.best.peak_epoch, board.best.epochs, board.best.final_train) == (4, 7, 0.99)
    assert board.best.macs > 1e6


def test_the_best_of_many_is_less_than_it_seems(place: Place, study: Study) -> None:
    (board,) = place.report(study).boards
    assert board.compared == 4  # complete and pruned: each was a look
    assert board.luck > 0
    assert board.discounted == board.best.score - board.luck


def test_groups_show_the_best_of_each_value(place: Place, study: Study) -> None:
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
    place: Place, study: Study
) -> None:
    lines = summary(place.report(study))
    assert re.search(r"^Best: trial \d .* interval \[\.\d+, \.\d+\] on 400 windows, K = 40\.$", lines[0])
    assert any(re.search(r"expected to be luck: read \.\d", line) for line in lines)
    assert any(
        re.search(r"^By feature: .*undecided: (about|more than) [\d,]+ speakers would decide\.$", line)
        for line in lines
    )
    assert any(line.startswith("By subset: clean") and line.endswith("decided.") for line in lines)


def test_few_clusters_claim_nothing(place: Place) -> None:
    study = place.study()
    found = {"low": 0.6, "high": 0.9, "windows": 90, "clusters": 4, "icc": 0.1, "n_eff": 60.0}
    place.add(study, 0.8, interval=found)
    assert any(line.startswith("Few clusters") for line in summary(place.report(study)))


def test_trials_judged_on_other_windows_stand_apart(place: Place) -> None:
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


def test_the_matrix_has_the_best_trial_of_each_training_subset(place: Place, study: Study) -> None:
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


def test_the_matrix_is_drawn(place: Place, study: Study, tmp_path: Path) -> None:
    matrix = place.report(study).boards[0].matrix
    write_matrix(matrix, tmp_path, "voices, validation $1")
    assert (tmp_path / "matrix.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((tmp_path / "matrix.json").read_text()) == matrix.as_json()


# Two studies


def test_two_studies_on_the_same_windows_are_paired(place: Place, study: Study) -> None:
    other = place.study("second")
    place.add(other, 0.6, seed=9)
    found = compare(
        place.report(study), study, place.reader(study), place.report(other), other, place.reader(other)
    ).against
    assert found.refusal == ""
    assert found.difference.decided
    assert found.difference.value > 0


def test_two_studies_on_other_windows_are_not_ranked(place: Place, study: Study) -> None:
    other = place.study("second", seed=3)
    place.add(other, 0.9, seed=9)
    report = compare(
        place.report(study), study, place.reader(study), place.report(other), other, place.reader(other)
    )
    found = report.against
    assert found.difference is None
    assert "not ranked" in found.refusal
    assert "run the one that changed again" in found.advice
    assert ("manifest digest, val", "0" * 64, f"{3:064d}") in found.differing
    assert ("data.seed", "0", "3") in found.differing
    for text in (render_html(report), render_markdown(report)):
        assert f"{3:064d}" in text
        assert "not ranked" in text


# How it is read and written


def test_answers_come_from_the_spool_and_altered_ones_are_a_note(place: Place, study: Study) -> None:
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


def test_a_study_without_a_complete_trial_is_refused(place: Place) -> None:
    study = place.study()
    place.add(study, 0.5, state="failed")
    with pytest.raises(StudyError, match="no complete trial to report on"):
        make_report(place.record, study)


EVALUATIONS = {
    "11111111": [
        {"trial": 0, "name": "a", "values": {"f1": 0.61, "protocol": "collar 0 s", "digest": "1" * 64}}
    ],
    "22222222": [
        {"trial": 0, "name": "a", "values": {"f1": 0.83, "protocol": "collar .25 s", "digest": "2" * 64}}
    ],
}


@pytest.fixture
def full(place: Place, study: Study) -> Report:
    """A report with everything in it that a report can have."""
    keep_control(study, Control("unseen", Judgement("sound", 0.51, 0.41, 400, 40)))
    keep_control(study, Control("shuffled_labels", Judgement("broken", 0.81, 0.71, 400, 40)))
    other = place.study("second", seed=3)
    place.add(other, 0.9, seed=9)
    report = place.report(study, evaluations=EVALUATIONS, notes=["A note."])
    return compare(report, study, place.reader(study), place.report(other), other, place.reader(other))


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
            "evaluations", "notes", "against", "summary", "rules"} == set(stored)  # fmt: skip
    assert stored["against"]["difference"] is None
    assert stored["boards"][0]["rows"][1]["to_best"]["verdict"] == "undecided"
    assert sorted(path.name for path in paths["html"].parent.iterdir()) == [
        "report.html",
        "report.json",
        "report.md",
    ]


def test_a_report_of_an_earlier_version_lacks_what_was_not_recorded(place: Place, study: Study) -> None:
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
    assert [big(value) for value in (12.8e9, 85.3e6, 2_264, 12, None)] == [
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
    found = load_answers(tmp_path / "predictions.npz")
    assert (found.correct.tolist(), found.subsets) == ([True, False], None)
    np.savez(tmp_path / "bad.npz", val_logits=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="pickle"):
        load_answers(tmp_path / "bad.npz")


# The whole way: a sweep writes it, and the command finds everything again without a server

SWEEP = """\
name: told
data: {corpus: demo, train_windows: 120, val_windows: 96, test_windows: 96}
parameters: {feature: [mfcc, log_mel], width: 0.0625, epochs: 2}
sampler: grid
pruner: none
budget: {trials: 2}
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_sweep_leaves_its_report_and_the_command_writes_it_again(tmp_path: Path, demo_cache: Path) -> None:
    (tmp_path / "told.yaml").write_text(SWEEP)
    environment = {**os.environ, "HARNESS_CACHE": str(demo_cache), "NO_COLOR": "1"}

    def run(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "harness.cli", *words], cwd=tmp_path, env=environment, text=True,
            capture_output=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    swept = run("sweep", "told.yaml")
    assert "warning: the report" not in swept
    assert "report:  harness report told" in swept
    (left,) = tmp_path.glob("mlruns/artifacts/*/*/artifacts/report/report.json")
    assert {path.name for path in left.parent.iterdir()} == {"report.html", "report.json", "report.md"}
    log = (tmp_path / "mlruns/server.log").stat()
    told = json.loads(run("report", "told.yaml", "--json"))
    assert set(told) == {"study", "against", "html", "markdown", "json", "summary"}
    assert (tmp_path / "mlruns/server.log").stat().st_mtime_ns == log.st_mtime_ns  # no server was started
    again, first = (json.loads(path.read_text("utf-8")) for path in (tmp_path / told["json"], left))
    assert {**again, "created": ""} == {**first, "created": ""}
    assert told["summary"] == again["summary"]
    assert (
        again["boards"][0]["rows"][1]["to_best"]["windows"] == 96
    )  # predictions came from MLflow's artifacts
    assert again["data"][0]["histograms"]["train"]["0"]["windows"] == 60
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlruns", "reports", "told.yaml"]
    assert "did you mean told" in json.loads(run("report", "tolt", "--json", code=2))["error"]
