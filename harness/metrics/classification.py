"""Metrics of a two-class classifier from its logits, in numpy: one definition for every epoch and test."""

import numpy as np
import numpy.typing as npt

from harness.core.errors import InputError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class MetricsError(InputError):
    """Logits or labels that have no metrics; the message says which and why."""


def softmax(logits: npt.ArrayLike) -> Floats:
    """Probabilities of logits, both (window, class) float64: `exp(z_c) / sum_k exp(z_k)`, without overflow."""
    return np.asarray(np.exp(_log_softmax(np.asarray(logits, dtype=np.float64))))


def binary_metrics(logits: npt.ArrayLike, labels: npt.ArrayLike) -> dict[str, float]:
    """Metrics of one split, all over windows: clusters play no part here, and intervals are `clustered_interval`'s.

    ``loss`` (mean cross-entropy, nats), ``accuracy``, ``balanced_accuracy`` (mean of the recalls),
    ``auc`` (ties count half), ``recall_0``, ``recall_1``, ``predicted_positive`` (share predicted 1).
    The prediction is the larger logit; equal logits are class 0, as argmax has it.

    Parameters
    ----------
    logits : (window, 2) finite
    labels : (window,) of 0 or 1, both present

    Raises
    ------
    MetricsError
        Other shapes, no window, a logit that is not finite, a label that is not 0 or 1, one class alone.
    """
    scores, truth = _checked(logits, labels)
    predicted = scores.argmax(axis=1)
    recalls = [float((predicted[truth == label] == label).mean()) for label in (0, 1)]
    log_probabilities = _log_softmax(scores)
    return {
        "loss": float(-log_probabilities[np.arange(len(truth)), truth].mean()),
        "accuracy": float((predicted == truth).mean()),
        "balanced_accuracy": (recalls[0] + recalls[1]) / 2,
        "auc": _auc(scores[:, 1] - scores[:, 0], truth),
        "recall_0": recalls[0],
        "recall_1": recalls[1],
        "predicted_positive": float(predicted.mean()),
    }


def roc_points(logits: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Receiver operating characteristic: false and true positive rates, (point,) each, from (0, 0) to (1, 1).

    The score of a window is the difference of its logits. One point per distinct score, so the trapezoid area under
    it is ``auc`` exactly. Arguments and errors are those of `binary_metrics`.
    """
    scores, truth = _checked(logits, labels)
    difference = scores[:, 1] - scores[:, 0]
    order = np.argsort(-difference, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(difference[order])), len(order) - 1)
    positives = np.cumsum(truth[order])[ends]
    negatives = ends + 1 - positives
    false = np.concatenate([[0.0], negatives / negatives[-1]])
    return false, np.concatenate([[0.0], positives / positives[-1]])


def expected_calibration_error(probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over ``bins`` equal bins (Guo et al. 2017).

    ``sum_b |B_b|/n |accuracy(B_b) - confidence(B_b)|``; confidence is the larger class's probability.
    A calibrated model is above 0 too: the noise of each bin counts as distance, the more the fewer windows it holds.

    Parameters
    ----------
    probabilities : (window, 2), or (window,) of class 1
    labels : (window,) of 0 or 1
    bins : of equal width over [0, 1], each with its upper end

    Raises
    ------
    MetricsError
        No bin, a probability outside [0, 1], or shapes and labels that `binary_metrics` refuses.
    """
    given = np.asarray(probabilities, dtype=np.float64)
    both = np.stack([1 - given, given], axis=1) if given.ndim == 1 else given
    if bins < 1:
        raise MetricsError(f"bins must be at least 1, not {bins}")
    if not np.all((both >= 0) & (both <= 1)):
        raise MetricsError("probabilities must lie in [0, 1]; apply softmax to logits first")
    truth = _labels(labels, both)
    confidence = both.max(axis=1)
    right = (both.argmax(axis=1) == truth).astype(np.float64)
    # bins are (lower, upper]; a confidence of exactly 0 cannot occur, the larger of two is >= .5
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    excess = np.bincount(index, weights=right - confidence, minlength=bins)
    return float(np.abs(excess).sum() / len(truth))


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _auc(scores: Floats, truth: Integers) -> float:
    """Mann-Whitney U over its maximum, with mid-ranks for ties."""
    _, index, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mid_ranks = np.cumsum(counts) - (counts - 1) / 2
    positives = int(truth.sum())
    rank_sum = float(mid_ranks[index][truth == 1].sum())
    above = rank_sum - positives * (positives + 1) / 2
    return above / (positives * (len(truth) - positives))


def _checked(logits: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats, Integers]:
    scores = np.asarray(logits, dtype=np.float64)
    truth = _labels(labels, scores)
    if not np.isfinite(scores).all():
        raise MetricsError(f"{int((~np.isfinite(scores)).sum())} of {scores.size} logits are not finite")
    if truth.min() == truth.max():
        raise MetricsError(
            f"all {len(truth)} labels are {truth[0]}: recall and AUC need windows of both classes"
        )
    return scores, truth


def _labels(labels: npt.ArrayLike, scores: Floats) -> Integers:
    truth = np.asarray(labels)
    if scores.ndim != 2 or scores.shape[1] != 2 or truth.shape != scores.shape[:1] or not len(truth):
        raise MetricsError(
            f"want (window, 2) and (window,) with at least one window, not {scores.shape} and {truth.shape}"
        )
    wrong = truth[(truth != 0) & (truth != 1)]
    if len(wrong):
        raise MetricsError(f"a label is 0 or 1, not {wrong[0]}")
    return truth.astype(np.int64)
