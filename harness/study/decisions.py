"""What promotions decided about a study's trials: kept beside them in Optuna's journal, oldest first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness.study.study import Study

ATTRIBUTE = "decisions"

Verdict = Literal["promoted", "challenger", "refused"]


@dataclass(frozen=True)
class Decision:
    """How one promotion ended.

    time : when, ISO 8601
    policy : name of the policy whose guards judged it
    subject : the label of what was promoted: `trial 3`, `trial 3, seed 2`, `ensemble top2`
    registered_name, version : None where nothing was registered
    guards : those that failed, as JSON: name, level, ok, measured, bound, advice
    note : the verdict against the champion, or why nothing was registered
    fingerprint : of the subject's configuration; empty in decisions from before the field
    """

    time: str
    policy: str
    subject: str
    verdict: Verdict
    registered_name: str | None = None
    version: str | None = None
    guards: tuple[Mapping[str, Any], ...] = ()
    note: str = ""
    fingerprint: str = ""

    def is_about(self, label: str, fingerprint: str = "") -> bool:
        """Whether the subject is what bears this label, one of its seeds, or of the same configuration."""
        if fingerprint and self.fingerprint == fingerprint:
            return True
        return self.subject == label or self.subject.startswith(f"{label}, ")

    def as_json(self) -> dict[str, Any]:
        """Every field by its name: what the journal keeps and `--json` prints; `decisions_of` makes it again."""
        return {**asdict(self), "guards": [dict(guard) for guard in self.guards]}

    def __str__(self) -> str:
        under = f"on {self.time[:10]} under policy {self.policy}"
        registered = f"{self.registered_name} version {self.version}"
        note = f": {self.note}" if self.note else ""
        if self.verdict == "promoted":
            return f"{self.subject} was promoted as {registered} {under}{note}"
        if self.verdict == "challenger":
            return (
                f"{self.subject} was registered as {registered}, challenger and not champion, {under}{note}"
            )
        names = ", ".join(str(guard["name"]) for guard in self.guards)
        return f"{self.subject} was refused {under}{f' by {names}' if names else ''}{note}"


def decisions_of(study: Study) -> list[Decision]:
    """Every decision on a study, oldest first."""
    stored = study.optuna_study.user_attrs.get(ATTRIBUTE, [])
    return [Decision(**{**one, "guards": tuple(one["guards"])}) for one in stored]


def add_decision(study: Study, decision: Decision) -> None:
    """Append a decision; call it under `only_promotion`: two that read the list at once would lose one of theirs."""
    stored = study.optuna_study.user_attrs.get(ATTRIBUTE, [])
    study.optuna_study.set_user_attr(ATTRIBUTE, [*stored, decision.as_json()])
