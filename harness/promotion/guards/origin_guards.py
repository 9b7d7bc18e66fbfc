"""Guards of what a candidate comes from: what its trainings left, the data as they are now, the labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from data.audit.audit import audit
from harness.config.trial.trial_config import TrialConfig
from harness.promotion.guards.facts import CandidateFacts, StudyFacts, SubjectFacts
from harness.promotion.guards.rule import Finding, guard
from harness.study.trials import unexportable_reason

if TYPE_CHECKING:
    from data.audit.check import Check
    from data.preparation.prepare import Prepared


@guard(
    SubjectFacts,
    "one ONNX file",
    "integrity",
    advice="Its scores stand, but it cannot be served alone: name another trial with --run, or train with an embedding "
    "network that can be exported.",
)
def one_file(seen: SubjectFacts) -> Iterator[Finding]:
    """Whether the worker of each of its trials could make one ONNX file of it."""
    for member in seen.subject.members:
        reason = unexportable_reason(member.outcome)
        yield Finding(reason is None, reason or "yes", "yes")


@guard(StudyFacts, "data gate", "integrity", advice="What the check says.")
def data_gate(seen: StudyFacts) -> Iterator[Finding]:
    """The data gate once more, on the windows as they are now; each check is a guard of its own name."""
    for one in seen.prepared:
        for check in audit(one).checks:
            if check.level == "refuse":
                yield Finding(check.ok, _plain(check.measured), check.bound, _advice(check), name=check.name)


def _advice(check: Check) -> str:
    advice = f"{check.message[:1].upper()}{check.message[1:]}."
    if check.name.startswith("label share"):
        advice += " The gate let only balanced windows pass: restore the corpus, or prepare the data again."
    return advice


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        nested = any(isinstance(inner, dict) for inner in value.values())
        return ("; " if nested else ", ").join(
            f"{key}: {_plain(inner)}" if nested else f"{inner} {key}" for key, inner in value.items()
        )
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    return text[:12] if len(text) == 64 else text  # a digest


@guard(
    CandidateFacts,
    "label map",
    "integrity",
    advice="Labels have changed since the training, so no score means what it says: restore the corpus and the label "
    "rule, or run the sweep again under another name.",
)
def label_map(seen: CandidateFacts) -> Iterator[Finding]:
    """The label map of the training, wherever it was recorded, against that of now, and the labels against both."""
    for prepared in seen.prepared:
        recorded = dict(_recorded_maps(seen, prepared))
        yield judge_labels(recorded, prepared.label_map.digest, _relabelled(prepared))


def judge_labels(trained: Mapping[str, str], now: str, relabelled: int) -> Finding:
    """Whether the labels are the ones that were trained with.

    Parameters
    ----------
    trained : where a label map's digest was recorded -> that digest
    now : digest of the label map of the data as they are prepared now
    relabelled : windows whose label is not what the label map gives their speaker
    """
    other = {where: digest for where, digest in trained.items() if digest != now}
    found = [f"{digest[:12]} {where}" for where, digest in other.items()] + [f"{now[:12]} now"]
    measured = ", ".join(found) if other else f"digest {now[:12]}{'' if trained else ', recorded nowhere'}"
    if relabelled:
        measured += f"; {relabelled} windows have another label than their speaker's"
    return Finding(not other and not relabelled, measured, "the map it was trained with")


def _recorded_maps(seen: CandidateFacts, prepared: Prepared) -> Iterator[tuple[str, str]]:
    """What the worker saw, told in the outcome, and what the study's data gate saw."""
    for member in seen.subject.members:
        config = TrialConfig.from_record(member.config).data
        if "label_map" in member.outcome and config.digest() == prepared.config.digest():
            yield f"when {member.label} was trained", str(member.outcome["label_map"])
    own = prepared.config.model_dump(mode="json")
    for one in seen.study.optuna_study.user_attrs.get("audits", []):
        if one.get("config") == own and "label_map_digest" in one:
            yield "at the study's data gate", str(one["label_map_digest"])


def _relabelled(prepared: Prepared) -> int:
    """Windows whose label is not their speaker's class; of other tasks labels come from who speaks when."""
    if prepared.config.task != "pseudo":
        return 0
    classes = prepared.label_map.classes
    windows = (window for part in prepared.splits.values() for window in part.manifest.windows)
    return sum(window.label != classes.get(window.speaker) for window in windows)
