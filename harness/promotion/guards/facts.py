"""What guards look at: the class that a guard names is also when it is asked.

Before the frozen test is opened the guards of SubjectFacts and StudyFacts are asked again, of CandidateFacts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from data.tasks import TASKS
from harness.metrics.predictions import Predictions

if TYPE_CHECKING:
    from data.parts import Split
    from data.preparation.prepare import Prepared
    from harness.config.policy import Policy
    from harness.promotion.bundle.latency import Latency
    from harness.promotion.registry.champion import ChallengerComparison
    from harness.selection.candidate import Candidate
    from harness.study.choose_trial import Subject
    from harness.study.confirmation.conclusion import Confirmation
    from harness.study.study import Study


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What every guard knows: the policy, whose bounds it reads. `when` is said in the table of guards."""

    when: ClassVar[str]
    policy: Policy


@dataclass(frozen=True, kw_only=True)
class SubjectFacts(Facts):
    """The trial or ensemble that is to be promoted."""

    when = "before its files are fetched, and again before the frozen test is opened"
    subject: Subject


@dataclass(frozen=True, kw_only=True)
class StudyFacts(Facts):
    """The study, and its data as they are now, one for each data configuration."""

    when = "before a confirmation trains, and before the frozen test is opened"
    study: Study
    prepared: Sequence[Prepared]


@dataclass(frozen=True)
class Parity:
    """The exported file held against torch on real windows.

    Attributes
    ----------
    difference : the largest absolute difference of logits; NaN where either gives one
    same_classes : whether the larger logit is the same one in every window
    windows : how many were compared
    """

    difference: float
    same_classes: bool
    windows: int


@dataclass(frozen=True, kw_only=True)
class CandidateFacts(SubjectFacts, StudyFacts):
    """A candidate and its exported file.

    Attributes
    ----------
    latency : of that file on the policy's device, or why it could not be measured there
    confirmation : the one whose seed the subject is; None where it is none
    faster : latencies of other files of the model, to recommend one that is within the bound
    """

    when = "before the frozen test is opened"
    candidate: Candidate
    model: Path
    parity: Parity
    latency: Latency | str
    confirmation: Confirmation | None
    faster: Mapping[str, Latency] = field(default_factory=dict)

    @cached_property
    def train(self) -> Predictions:
        """The run's own predictions, of the weights that are promoted, on its training windows (predictions.npz)."""
        return self._stored("train")

    @cached_property
    def val(self) -> Predictions:
        """The same on the validation windows, by which the epoch and the trial were chosen."""
        return self._stored("val")

    @property
    def val_accuracies(self) -> list[list[float]]:
        """Accuracy (0 to 1) on the validation windows, of each network that is in it a list with every epoch."""
        return [list(member.outcome["val_accuracy"]) for member in self.subject.members]

    def _stored(self, split: Split) -> Predictions:
        with np.load(self.candidate.folder / "predictions.npz", allow_pickle=False) as stored:
            logits, labels, clusters = (
                stored[f"{split}_{part}"] for part in ("logits", "labels", "clusters")
            )
        return Predictions(logits, labels, list(clusters))


@dataclass(frozen=True, kw_only=True)
class FrozenTestFacts(Facts):
    """What the candidate said to the frozen test, which it had never met: logits (window, class) and the labels."""

    when = "after the frozen test was opened"
    candidate: Candidate
    test: Predictions

    @property
    def negative_control(self) -> bool:
        """Whether its task is one on which nothing can be learned: then it must score chance, not beat it."""
        data = self.candidate.data
        return TASKS[data.task].negative_control(data.variant)


@dataclass(frozen=True, kw_only=True)
class ContestFacts(Facts):
    """How it did against its opponent.

    Attributes
    ----------
    comparison : on the frozen test; a text says why there is nothing to compare with
    is_champion : whether the opponent holds the alias; else it is the confirmed baseline
    """

    when = "when it meets the champion, or the confirmed baseline where there is none"
    comparison: ChallengerComparison | str
    is_champion: bool = False
