"""Guards of what a network says: on its own windows, through its exported file, and to the frozen test."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.special import stdtrit

from harness.config.policy import QualityBounds
from harness.metrics.chance_level import judge_against_chance
from harness.metrics.classification import binary_metrics, expected_calibration_error, softmax
from harness.metrics.intervals import ClusteredInterval
from harness.metrics.predictions import Predictions
from harness.promotion.guards.facts import CandidateFacts, FrozenTestFacts
from harness.promotion.guards.guard import Level
from harness.promotion.guards.rule import Finding, guard

PLATEAU = 0.002


@guard(
    CandidateFacts,
    "predicted-positive rate",
    "integrity",
    bounds=["integrity.min_positive_rate", "integrity.max_positive_rate"],
    advice="It predicts (nearly) one class whatever it hears: look at the labels and the learning rate.",
)
def positive_rate(seen: CandidateFacts) -> Iterator[Finding]:
    """Share of validation windows that are called 1."""
    bounds, rate = seen.policy.integrity, _metrics(seen.val)["predicted_positive"]
    ok = bounds.min_positive_rate <= rate <= bounds.max_positive_rate
    yield Finding(ok, f"{rate:.3f}", f"in [{bounds.min_positive_rate}, {bounds.max_positive_rate}]")


@guard(
    CandidateFacts,
    "recall of each class",
    "integrity",
    bounds=["integrity.min_recall"],
    advice="One class is not recognised: train longer, or look at that class's windows.",
)
def recall(seen: CandidateFacts) -> Iterator[Finding]:
    """Recall of each class on validation windows."""
    bound, found = seen.policy.integrity.min_recall, _metrics(seen.val)
    recalls = found["recall_0"], found["recall_1"]
    yield Finding(min(recalls) >= bound, f"{recalls[0]:.3f} and {recalls[1]:.3f}", f">= {bound}")


@guard(
    CandidateFacts,
    "plateau at the class share",
    "integrity",
    advice="That is what always answering one class scores: look at the labels.",
)
def plateau(seen: CandidateFacts) -> Iterator[Finding]:
    """Validation accuracy of each network that stands still exactly where predicting one class would put it."""
    share_1 = float(seen.val.labels.mean())
    for accuracy in seen.val_accuracies:
        yield _plateau(accuracy, share_1)


def _plateau(accuracy: Sequence[float], share_1: float) -> Finding:
    last = list(accuracy[-max(3, len(accuracy) // 2) :])
    stuck_at = [
        share for share in (share_1, 1 - share_1) if all(abs(value - share) <= PLATEAU for value in last)
    ]
    stuck = len(last) >= 3 and bool(stuck_at)
    measured = f"the last {len(last)} epochs lie in [{min(last):.3f}, {max(last):.3f}]"
    return Finding(not stuck, measured, f"not all at {share_1:.3f} or {1 - share_1:.3f}")


@guard(
    CandidateFacts,
    "train balanced accuracy, lower bound",
    "integrity",
    bounds=["integrity.min_train_low"],
    advice="It has not learned its own training windows: raise the learning rate, the width or the epochs.",
)
def train_accuracy(seen: CandidateFacts) -> Iterator[Finding]:
    """Balanced accuracy on training windows: its one-sided 95 % lower bound."""
    low, bound = seen.train.interval("lower").low, seen.policy.integrity.min_train_low
    yield Finding(low > bound, f"{low:.3f}", f"> {bound}")


@guard(
    CandidateFacts,
    "train cross-entropy",
    "integrity",
    bounds=["integrity.max_train_loss"],
    advice="A coin pays .6931: it has not learned. Check the labels, then train longer.",
)
def train_loss(seen: CandidateFacts) -> Iterator[Finding]:
    """Cross-entropy on training windows, in nats.

    Always answering one half costs ln 2 = .6931 nats a window, whatever the label is.
    """
    loss, bound = _metrics(seen.train)["loss"], seen.policy.integrity.max_train_loss
    yield Finding(loss <= bound, f"{loss:.4f}", f"<= {bound:.4f}")


MEMORISED = "It has memorised its training windows: augment, shrink it, or train on more speakers."
BACKWARDS = (
    "It does better on what it never saw: train longer, or look for training windows in the validation split."
)


@guard(
    CandidateFacts,
    "train - validation gap",
    "quality",
    bounds=[
        "quality.min_gap",
        "quality.max_gap",
        "quality.min_hard_gap",
        "quality.max_hard_gap",
        "quality.certainty",
    ],
    advice=MEMORISED,
)
def gap(seen: CandidateFacts) -> Iterator[Finding]:
    """Difference of balanced accuracy between training and validation windows, two-sided.

    Within `min_gap` and `max_gap` it passes. Beyond them it fails as advice where sampling error may explain it, and
    as quality where that cannot, or where it lies beyond `min_hard_gap` or `max_hard_gap`.
    """
    bounds = seen.policy.quality
    values = [_metrics(part)["balanced_accuracy"] for part in (seen.train, seen.val)]
    gap = values[0] - values[1]
    error, clusters = _gap_error(seen.train.interval(), seen.val.interval())
    outside = max(gap - bounds.max_gap, bounds.min_gap - gap)
    hard = not bounds.min_hard_gap <= gap <= bounds.max_hard_gap
    level: Level = "quality" if hard else _level(bounds, outside, error, clusters)
    yield Finding(
        bounds.min_gap <= gap <= bounds.max_gap,
        f"{gap:+.3f} (standard error {error:.3f})",
        f"in [{bounds.min_gap}, {bounds.max_gap}]",
        (MEMORISED if gap > bounds.max_gap else BACKWARDS) + _within(level, clusters),
        level,
    )


def _metrics(one: Predictions) -> dict[str, float]:
    return binary_metrics(one.logits, one.labels)


def _gap_error(train: ClusteredInterval, val: ClusteredInterval) -> tuple[float, int]:
    """Standard error of the difference as if no cluster stood in both splits, and the fewer clusters.

    Of independent shares the variances p (1 - p) / n_eff add up; n_eff is the number of independent windows that the
    clustered ones are worth.
    """
    variance = sum(one.value * (1 - one.value) / one.n_eff for one in (train, val))
    return math.sqrt(variance), min(train.clusters, val.clusters)


def _level(bounds: QualityBounds, outside: float, error: float, clusters: int) -> Level:
    """Quality where a value lies `outside` with the policy's certainty, advice where chance may explain it.

    Chance explains what is within t standard errors of the bound: Student's t with K - 1 degrees of freedom at
    `certainty`, one-sided, since K clusters estimate the error.
    """
    if bounds.certainty <= 0.5:  # the bare numbers: one cluster, which has no error to speak of, is no excuse
        return "quality"
    t = float(stdtrit(clusters - 1, bounds.certainty)) if clusters > 1 else math.inf
    return "advice" if 0 < outside <= t * error else "quality"


def _within(level: Level, clusters: int) -> str:
    said = f" Its sampling error may explain it ({clusters} clusters), so it is not refused."
    return said if level == "advice" else ""


@guard(
    CandidateFacts,
    "ONNX against torch",
    "integrity",
    bounds=["integrity.max_logit_difference"],
    advice="The export is broken: report it with the study's sweep file.",
)
def parity(seen: CandidateFacts) -> Iterator[Finding]:
    """Whether the exported file says what the trained network said, on validation windows; NaN does not.

    The bound is on the largest absolute difference of logits, which have no unit.
    """
    found, bound = seen.parity, seen.policy.integrity.max_logit_difference
    classes = "same" if found.same_classes else "other"
    yield Finding(
        found.windows > 0 and found.same_classes and found.difference <= bound,
        f"{found.difference:.1e} on the logits of {found.windows} windows, {classes} classes",
        f"<= {bound:.0e} and the same classes",
    )


@guard(
    FrozenTestFacts,
    "test balanced accuracy, lower bound",
    "quality",
    bounds=["quality.min_test_low"],
    advice="Nothing shows that it beats chance on the test windows: train on more speakers, or test on more.",
)
def frozen_accuracy(seen: FrozenTestFacts) -> Iterator[Finding]:
    """Balanced accuracy on the frozen test: its one-sided 95 % lower bound."""
    if not seen.negative_control:
        low, bound = seen.test.interval("lower").low, seen.policy.quality.min_test_low
        yield Finding(low > bound, f"{low:.3f}", f"> {bound}")


LITERALLY = (
    "Its probabilities are not to be taken literally: decide by the larger class, or train with more weight decay or "
    "augmentation."
)


@guard(
    FrozenTestFacts,
    "calibration error (ECE)",
    "quality",
    bounds=["quality.max_ece", "quality.warn_ece", "quality.certainty"],
    advice=LITERALLY,
)
def calibration(seen: FrozenTestFacts) -> Iterator[Finding]:
    """Whether probabilities may be taken literally: fails above max_ece, is spoken of above warn_ece.

    Above max_ece too it is only spoken of where sampling error may explain the excess. A negative control, on which
    nothing can be learned, is not asked.
    """
    if seen.negative_control:
        return
    bounds, test = seen.policy.quality, seen.test
    ece = expected_calibration_error(softmax(test.logits), test.labels)
    error, clusters = _ece_error(test), len(set(test.clusters))
    outside = ece - bounds.max_ece
    level: Level = _level(bounds, outside, error, clusters) if outside > 0 else "advice"
    ok = ece <= min(bounds.warn_ece, bounds.max_ece)
    said = _within(level, clusters) if outside > 0 else ""
    yield Finding(
        ok,
        f"{ece:.3f} (standard error {error:.3f})",
        f"<= {bounds.max_ece}, better <= {bounds.warn_ece}",
        LITERALLY + said,
        "quality" if ok else level,
    )


def _ece_error(test: Predictions) -> float:
    """Jackknife over clusters (Efron 1982): sqrt((K-1)/K sum (e_k - mean)^2), e_k without cluster k."""
    probabilities, names = softmax(test.logits), np.asarray(test.clusters)
    kept = [names != name for name in np.unique(names)]
    if len(kept) < 2:
        return math.inf
    without = np.array([expected_calibration_error(probabilities[one], test.labels[one]) for one in kept])
    return math.sqrt((len(kept) - 1) / len(kept) * float(((without - without.mean()) ** 2).sum()))


@guard(
    FrozenTestFacts,
    "negative control at chance",
    "quality",
    advice="Something leaks: on this task nothing can be learned. Trust no other study of this corpus.",
)
def at_chance(seen: FrozenTestFacts) -> Iterator[Finding]:
    """A control that beats chance beyond doubt has heard the answer somewhere; few clusters say nothing."""
    if seen.negative_control:
        judgement = judge_against_chance(seen.test.correct, seen.test.clusters)
        yield Finding(judgement.verdict != "broken", f"lower bound {judgement.low:.3f} (99.9 %)", "<= .5")
