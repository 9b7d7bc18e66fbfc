"""Ensembles of a study: kept beside its trials in Optuna's journal, for they are no trials of the search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.study.study import Study
from harness.study.trials import TrialSummary

ATTRIBUTE = "ensembles"
# Tag `harness.kind` of an ensemble's run.
KIND = "ensemble"
# Tag of an ensemble's run, and a line of its card.
OPTIMISM = (
    "its members were chosen by their scores on these very validation windows, so its own score flatters it "
    "by at least as much as theirs: read the test's interval"
)


@dataclass(frozen=True)
class EnsembleSummary:
    """Several trials of a study averaged; it is read and promoted as a trial is.

    name : unique in the study; one that is saved again under it replaces the one before
    run_id : of its own run in MLflow; `member_runs` are those of its members, in their order
    fingerprint : of what it is made of
    outcome : as a trial's, of one look: there were no epochs to choose from
    """

    name: str
    run_id: str
    members: tuple[TrialSummary, ...]
    member_runs: tuple[str, ...]
    fingerprint: str
    outcome: Mapping[str, Any]

    @property
    def label(self) -> str:
        """What messages call it: `ensemble 3+5`."""
        return f"ensemble {self.name}"

    @property
    def configuration(self) -> str:
        """What it is made of, in a line: its members with their names, less the number that these begin with."""
        return "mean probability of " + ", ".join(f"{one.label} ({one.name[4:]})" for one in self.members)

    @property
    def score(self) -> float:
        """Balanced accuracy on the validation windows; one look, without epochs to choose from."""
        return float(self.outcome["score"])

    @property
    def epochs(self) -> int:
        """Epochs of the member that was trained longest."""
        return max(member.epochs for member in self.members)

    def as_json(self) -> dict[str, Any]:
        """The fields that `--json` prints: those of a trial, and two of its own."""
        return {
            "number": None,
            "state": "complete",
            "name": self.name,
            "score": self.score,
            "epochs": self.epochs,
            "reason": "",
            "parameters": {},
            "interval": self.outcome["interval"],
            "best_epoch": None,
            "fingerprint": self.fingerprint,
            "run_id": self.run_id,
            "members": [member.number for member in self.members],
        }


def ensembles_of(study: Study) -> list[EnsembleSummary]:
    """Every ensemble of a study, oldest first."""
    stored = study.optuna_study.user_attrs.get(ATTRIBUTE, [])
    if not stored:
        return []
    trials = {trial.number: trial for trial in study.trials()}
    return [_from_stored(one, trials) for one in stored]


def _from_stored(stored: Mapping[str, Any], trials: Mapping[int, TrialSummary]) -> EnsembleSummary:
    return EnsembleSummary(
        name=stored["name"],
        run_id=stored["run_id"],
        members=tuple(trials[number] for number in stored["members"]),
        member_runs=tuple(stored["member_runs"]),
        fingerprint=stored["fingerprint"],
        outcome=stored["outcome"],
    )


def ensemble_named(study: Study, word: str | None) -> EnsembleSummary | None:
    """The ensemble of this name or MLflow run id, if the study has it."""
    found = [one for one in ensembles_of(study) if word in (one.name, one.run_id)]
    return found[0] if found else None


def save_ensemble(study: Study, ensemble: EnsembleSummary) -> None:
    """Store an ensemble, in the place of one of the same name; call it under the study's lock."""
    others = [one for one in study.optuna_study.user_attrs.get(ATTRIBUTE, []) if one["name"] != ensemble.name]
    row = {
        "name": ensemble.name,
        "run_id": ensemble.run_id,
        "fingerprint": ensemble.fingerprint,
        "outcome": dict(ensemble.outcome),
        "members": [member.number for member in ensemble.members],
        "member_runs": list(ensemble.member_runs),
    }
    study.optuna_study.set_user_attr(ATTRIBUTE, [*others, row])
