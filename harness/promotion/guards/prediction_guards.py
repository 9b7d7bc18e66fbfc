"""Guards: what a model must not be, measured, with the bound beside it. A policy holds the bounds.

Integrity refuses, quality warns or refuses as the policy says, advice is only said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from harness.config.policy import Policy, QualityBounds
from harness.metrics.chance_level import judge
from harness.metrics.classification import binary_metrics, expected_calibration_error, softmax
from harness.metrics.intervals import ClusteredInterval
from harness.metrics.predictions import Predictions
from harness.promotion.guards.guard import Guard, Level

PLATEAU = 0.002


def prediction_guards(
    train: Predictions, val: Predictions, *val_accuracy: Sequence[float], policy: Policy
) -> list[Guard]:
    """Constant predictors, models that never learned, and plateaus at the class share.

    Parameters
    ----------
    val_accuracy : accuracy on the validation windows in every epoch, of each network that is in it
    """
    bounds = policy.integrity
    on_val = binary_metrics(val.logits, val.labels)
    on_train = binary_metrics(train.logits, train.labels)
    rate, recalls = on_val["predicted_positive"], (on_val["recall_0"], on_val["recall_1"])
    lower = train.interval("lower")
    return [
        Guard(
            "predicted-positive rate", "integrity",
            bounds.min_positive_rate <= rate <= bounds.max_positive_rate, f"{rate:.3f}",
            f"in [{bounds.min_positive_rate}, {bounds.max_positive_rate}]",
            "It predicts (nearly) one class whatever it hears: look at the labels and the learning rate.",
        ),
        Guard(
            "recall of each class", "integrity", min(recalls) >= bounds.min_recall,
            f"{recalls[0]:.3f} and {recalls[1]:.3f}", f">= {bounds.min_recall}",
            "One class is not recognised: train longer, or look at that class's windows.",
        ),
        *(_plateau(series, float(val.labels.mean())) for series in val_accuracy),
        Guard(
            "train balanced accuracy, lower bound", "integrity", lower.low > bounds.min_train_low, f"{lower.low:.3f}",
            f"> {bounds.min_train_low}",
            "It has not learned its own training windows: raise the learning rate, the width or the epochs.",
        ),
        Guard(
            "train cross-entropy", "integrity", on_train["loss"] <= bounds.max_train_loss, f"{on_train['loss']:.4f}",
            f"<= {bounds.max_train_loss:.4f}",
            "A coin pays .6931: it has not learned. Check the labels, then train longer.",
        ),
    ]  # fmt: skip


def _plateau(accuracy: Sequence[float], share_1: float) -> Guard:
    """Accuracy that stands still exactly where predicting one class would put it."""
    last = list(accuracy[-max(3, len(accuracy) // 2) :])
    stuck_at = [
        share for share in (share_1, 1 - share_1) if all(abs(value - share) <= PLATEAU for value in last)
    ]
    stuck = len(last) >= 3 and bool(stuck_at)
    return Guard(
        "plateau at the class share", "integrity", not stuck,
        f"the last {len(last)} epochs lie in [{min(last):.3f}, {max(last):.3f}]",
        f"not all at {share_1:.3f} or {1 - share_1:.3f}",
        "That is what always answering one class scores: look at the labels.",
    )  # fmt: skip


def gap_guard(train: Predictions, val: Predictions, policy: Policy) -> Guard:
    """Difference of balanced accuracy between training and validation windows, two-sided."""
    bounds = policy.quality
    values = [binary_metrics(part.logits, part.labels)["balanced_accuracy"] for part in (train, val)]
    gap = values[0] - values[1]
    error, clusters = _gap_error(train.interval(), val.interval())
    ok = bounds.min_gap <= gap <= bounds.max_gap
    outside = max(gap - bounds.max_gap, bounds.min_gap - gap)
    hard = not bounds.min_hard_gap <= gap <= bounds.max_hard_gap
    level: Level = "quality" if hard else _level(bounds, outside, error, clusters)
    advice = (
        "It has memorised its training windows: augment, shrink it, or train on more speakers."
        if gap > bounds.max_gap
        else "It does better on what it never saw: train longer, or look for training windows in the validation split."
    )
    return Guard(
        "train - validation gap", level, ok,
        f"{gap:+.3f} (standard error {error:.3f})", f"in [{bounds.min_gap}, {bounds.max_gap}]",
        advice + _within(level, clusters),
    )  # fmt: skip


def _gap_error(train: ClusteredInterval, val: ClusteredInterval) -> tuple[float, int]:
    """Standard error of the difference as if no cluster stood in both splits, and the fewer clusters."""
    variance = sum(one.value * (1 - one.value) / one.n_eff for one in (train, val))
    return math.sqrt(variance), min(train.clusters, val.clusters)


def _level(bounds: QualityBounds, outside: float, error: float, clusters: int) -> Level:
    """Quality where a value lies `outside` with the policy's certainty, advice where chance may explain it."""
    if bounds.certainty <= 0.5:  # the bare numbers: one cluster, which has no error to speak of, is no excuse
        return "quality"
    t = float(stdtrit(clusters - 1, bounds.certainty)) if clusters > 1 else math.inf
    return "advice" if 0 < outside <= t * error else "quality"


def _within(level: Level, clusters: int) -> str:
    said = f" Its sampling error may explain it ({clusters} clusters), so it is not refused."
    return said if level == "advice" else ""


def frozen_guards(test: Predictions, policy: Policy, *, negative_control: bool = False) -> list[Guard]:
    """What the frozen test says; of a negative control, that nothing was there to be learned."""
    if negative_control:
        return [_control_guard(test)]
    low, bound = test.interval("lower").low, policy.quality.min_test_low
    return [
        Guard(
            "test balanced accuracy, lower bound", "quality", low > bound, f"{low:.3f}", f"> {bound}",
            "Nothing shows that it beats chance on the test windows: train on more speakers, or test on more.",
        ),
        ece_guard(test, policy),
    ]  # fmt: skip


def ece_guard(test: Predictions, policy: Policy) -> Guard:
    """Whether probabilities may be taken literally: fails above max_ece, is spoken of above warn_ece."""
    bounds = policy.quality
    ece = expected_calibration_error(softmax(test.logits), test.labels)
    error, clusters = _ece_error(test), len(set(test.clusters))
    outside = ece - bounds.max_ece
    level: Level = _level(bounds, outside, error, clusters) if outside > 0 else "advice"
    ok = ece <= min(bounds.warn_ece, bounds.max_ece)
    said = _within(level, clusters) if outside > 0 else ""
    return Guard(
        "calibration error (ECE)", "quality" if ok else level, ok, f"{ece:.3f} (standard error {error:.3f})",
        f"<= {bounds.max_ece}, better <= {bounds.warn_ece}",
        "Its probabilities are not to be taken literally: decide by the larger class, or train with more weight decay "
        "or augmentation." + said,
    )  # fmt: skip


def _ece_error(test: Predictions) -> float:
    """Jackknife over clusters (Efron 1982): sqrt((K-1)/K sum (e_k - mean)^2), e_k without cluster k."""
    probabilities, names = softmax(test.logits), np.asarray(test.clusters)
    kept = [names != name for name in np.unique(names)]
    if len(kept) < 2:
        return math.inf
    without = np.array([expected_calibration_error(probabilities[one], test.labels[one]) for one in kept])
    return math.sqrt((len(kept) - 1) / len(kept) * float(((without - without.mean()) ** 2).sum()))


def _control_guard(test: Predictions) -> Guard:
    """A control that beats chance beyond doubt has heard the answer somewhere; few clusters say nothing."""
    judgement = judge(test.correct, test.clusters)
    return Guard(
        "negative control at chance", "quality", judgement.verdict != "broken",
        f"lower bound {judgement.low:.3f} (99.9 %)", "<= .5",
        "Something leaks: on this task nothing can be learned. Trust no other study of this corpus.",
    )  # fmt: skip
