"""What `harness why` answers, as tests ask it: of a study that nobody trained."""

from typing import Any

from harness.config.sweep import Sweep
from harness.reporting.explain.why import explain_trial
from harness.study.storage.record import Record
from harness.study.study import Study, open_study
from tests.harness.places.report_study import ReportRecord


def study_of(record: Record, name: str = "voices", **changes: Any) -> Study:
    sweep = {
        "name": name,
        "parameters": {"learning_rate": {"float": [1e-4, 1e-2], "log": True}, "epochs": 27},
        "budget": {"trials": 9},
    }
    study = open_study(record, Sweep.model_validate(sweep | changes))
    study.release()
    return study


def asked(place: ReportRecord, study: Study, word: str, is_run: bool = False) -> Any:
    return explain_trial(place.record, study, word, is_run=is_run)


def text_of(answer: Any) -> str:
    return "\n".join(answer.lines())
