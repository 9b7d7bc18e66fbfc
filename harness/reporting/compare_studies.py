"""Two studies held against each other: ranked where they saw the same windows, refused where they did not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.reporting.analysis import CorrectnessOf, WindowCorrectness, with_speakers
from harness.reporting.document import Report, StudyComparison
from harness.study.study import NOT_RECORDED, Study, manifests_of
from harness.study.trials import TrialSummary

ADVICE = (
    "Give both sweep files the same data section (or at least the same corpus, parts, task, evaluate_on, "
    "val_windows and seed of it), run the one that changed again, and compare those."
)


@dataclass(frozen=True)
class ReportedStudy:
    """A study with its report, and where its trials' answers to the validation windows are read."""

    report: Report
    study: Study
    answers: CorrectnessOf

    def answers_of(self, trial: TrialSummary) -> WindowCorrectness | None:
        """Which windows a trial got right, with how many speakers they are of; None where that is not known."""
        return with_speakers(self.study, self.answers)(trial)


def compare_studies(this: ReportedStudy, other: ReportedStudy) -> Report:
    """The report of `this` study with the best of the other one beside its own best.

    Scores on different windows say nothing of which is better, so there is a difference where the manifests of the
    validation windows are the same, and a refusal with advice where they are not.
    """
    ours, theirs = _best(this.study), _best(other.study)
    digests = (manifests_of(this.study, ours), manifests_of(other.study, theirs))
    same = digests[0].get("val", NOT_RECORDED) == digests[1].get("val", "") != NOT_RECORDED
    names = (f"{this.report.study}, trial {ours.number}", f"{other.report.study}, trial {theirs.number}")
    difference, refusal, advice = None, "", ""
    differing: tuple[tuple[str, str, str], ...] = ()
    if same:
        left, right = this.answers_of(ours), other.answers_of(theirs)
        difference = left.difference_from(right) if left and right else None
        if difference is None:
            refusal = "The windows are the same, but the answers to them are not both in the record."
            advice = "Run both sweeps again: a launch stores in MLflow what is left of its trials."
    else:
        refusal = (
            "The two were judged on different validation windows, so which score is higher says nothing: "
            "they are not ranked."
        )
        advice = ADVICE
        differing = tuple(_differences(digests, ours.config.get("data", {}), theirs.config.get("data", {})))
    against = StudyComparison(
        other=other.report.study,
        ours=f"{names[0]}: {ours.score or 0:.3f}",
        theirs=f"{names[1]}: {theirs.score or 0:.3f}",
        difference=difference,
        refusal=refusal,
        advice=advice,
        differing=differing,
    )
    return replace(this.report, against=against)


def _best(study: Study) -> TrialSummary:
    best = study.best()
    assert best is not None, "a study without a complete trial has no report"
    return best


def _differences(
    digests: tuple[Mapping[str, str], Mapping[str, str]], ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
    """What differs, ours and theirs: manifest digests, then fields of the data section."""
    rows = [
        (
            f"manifest digest, {split}",
            digests[0].get(split, NOT_RECORDED),
            digests[1].get(split, NOT_RECORDED),
        )
        for split in ("train", "val", "test")
    ]
    fields = sorted({*ours, *theirs})
    rows += [(f"data.{name}", _text(ours.get(name)), _text(theirs.get(name))) for name in fields]
    return [row for row in rows if row[1] != row[2]]


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
