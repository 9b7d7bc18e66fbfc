"""Guards: what a model must not be, measured, with the bound beside it. Integrity refuses, quality warns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from harness.controls import Control, judge
from harness.metrics import binary_metrics
from harness.statistics import ClusteredInterval, clustered_interval

Level = Literal["integrity", "quality"]

POSITIVE_RATE = (0.1, 0.9)
MIN_RECALL = 0.3
MAX_TRAIN_LOSS = math.log(2) - 0.02  # nats; ln 2 is what a coin pays
PLATEAU = 0.002
GAP = (-0.05, 0.10)
MIN_TEST_LOWER = 0.55
MIN_CLUSTERS = 10
MAX_ECE = 0.05
MAX_P99_MS = 10.0


@dataclass(frozen=True)
class Guard:
    """One question about a model, its answer and what to do about it."""

    name: str
    level: Level
    ok: bool
    measured: str
    bound: str
    advice: str

    def __str__(self) -> str:
        if self.ok:
            return f"{self.name}: {self.measured} (wanted {self.bound})"
        return f"{self.name}: {self.measured}, wanted {self.bound}. {self.advice}"

    def as_json(self) -> dict[str, Any]:
        """The fields of evidence.json."""
        return asdict(self)


@dataclass(frozen=True)
class Predictions:
    """Logits (window, 2), labels (window,) and clusters (window,) of one split."""

    logits: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    clusters: Sequence[str]

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each window is classified as its label says."""
        return np.asarray(self.logits.argmax(axis=1) == self.labels)

    def interval(self, side: Literal["two", "lower"] = "two") -> ClusteredInterval:
        """Share of correct windows with its clustered interval (balanced accuracy where classes are balanced)."""
        return clustered_interval(self.correct, self.clusters, side=side)


def prediction_guards(train: Predictions, val: Predictions, *val_accuracy: Sequence[float]) -> list[Guard]:
    """Constant predictors, models that never learned, and plateaus at the class share.

    Parameters
    ----------
    val_accuracy : accuracy on the validation windows in every epoch, of each network that is in it
    """
    on_val = binary_metrics(val.logits, val.labels)
    on_train = binary_metrics(train.logits, train.labels)
    rate, recalls = on_val["predicted_positive"], (on_val["recall_0"], on_val["recall_1"])
    lower = train.interval("lower")
    return [
        Guard(
            "predicted-positive rate", "integrity", POSITIVE_RATE[0] <= rate <= POSITIVE_RATE[1], f"{rate:.3f}",
            f"in [{POSITIVE_RATE[0]}, {POSITIVE_RATE[1]}]",
            "It predicts (nearly) one class whatever it hears: look at the labels and the learning rate.",
        ),
        Guard(
            "recall of each class", "integrity", min(recalls) >= MIN_RECALL, f"{recalls[0]:.3f} and {recalls[1]:.3f}",
            f">= {MIN_RECALL}", "One class is not recognised: train longer, or look at that class's windows.",
        ),
        *(_plateau(series, float(val.labels.mean())) for series in val_accuracy),
        Guard(
            "train balanced accuracy, lower bound", "integrity", lower.low > 0.5, f"{lower.low:.3f}", "> .5",
            "It has not learned its own training windows: raise the learning rate, the width or the epochs.",
        ),
        Guard(
            "train cross-entropy", "integrity", on_train["loss"] <= MAX_TRAIN_LOSS, f"{on_train['loss']:.4f}",
            f"<= {MAX_TRAIN_LOSS:.4f}", "A coin pays .6931: it has not learned. Check the labels, then train longer.",
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


def gap_guard(train: Predictions, val: Predictions) -> Guard:
    """Difference of balanced accuracy between training and validation windows, two-sided."""
    values = [binary_metrics(part.logits, part.labels)["balanced_accuracy"] for part in (train, val)]
    gap = values[0] - values[1]
    advice = (
        "It has memorised its training windows." if gap > GAP[1] else "It does better on what it never saw."
    )
    return Guard(
        "train - validation gap",
        "quality",
        GAP[0] <= gap <= GAP[1],
        f"{gap:+.3f}",
        f"in [{GAP[0]}, {GAP[1]}]",
        advice,
    )


def frozen_test_guards(test: Predictions, ece: float, *, negative_control: bool = False) -> list[Guard]:
    """What the frozen test says; of a negative control, that nothing was there to be learned."""
    interval = test.interval("lower")
    if negative_control:
        return [_control_guard(test), _cluster_guard(interval)]
    return [
        Guard(
            "test balanced accuracy, lower bound", "quality", interval.low > MIN_TEST_LOWER, f"{interval.low:.3f}",
            f"> {MIN_TEST_LOWER}", "Nothing shows that it beats chance on the test windows.",
        ),
        _cluster_guard(interval),
        Guard(
            "calibration error (ECE)", "quality", ece <= MAX_ECE, f"{ece:.3f}", f"<= {MAX_ECE}",
            "Its probabilities are not to be taken literally.",
        ),
    ]  # fmt: skip


def _cluster_guard(interval: ClusteredInterval) -> Guard:
    return Guard(
        "clusters in the test", "quality", interval.clusters >= MIN_CLUSTERS, f"K = {interval.clusters}",
        f">= {MIN_CLUSTERS}", "Few clusters: this proves that the path works, not that the model does.",
    )  # fmt: skip


def _control_guard(test: Predictions) -> Guard:
    """A control that beats chance beyond doubt has heard the answer somewhere; few clusters say nothing."""
    judgement = judge(test.correct, test.clusters)
    return Guard(
        "negative control at chance", "quality", judgement.verdict != "broken",
        f"lower bound {judgement.low:.3f} (99.9 %)", "<= .5",
        "Something leaks: on this task nothing can be learned. Trust no other study of this corpus.",
    )  # fmt: skip


def study_control_guards(controls: Sequence[Control]) -> list[Guard]:
    """What the study's own negative controls scored; none where it has none."""
    return [
        Guard(
            f"negative control {control.name}", "quality", control.verdict != "broken",
            f"{control.verdict}, {control.judgement.numbers if control.judgement else control.reason}",
            "lower bound <= .5",
            "Something leaks: nothing can be learned there. Trust no score of this study.",
        )
        for control in controls
    ]  # fmt: skip


def promotable_guard(outcome: Mapping[str, Any]) -> Guard:
    """Whether a trial's worker could make one ONNX file of it: `promotable` is yes, or `no: ` and the reason."""
    promotable = str(outcome.get("promotable", "yes"))  # trials from before the field were always exported
    return Guard(
        "one ONNX file", "integrity", promotable == "yes", promotable, "yes",
        "Its scores stand, but it cannot be served alone: name another trial with --run, or train with an embedding "
        "network that can be exported.",
    )  # fmt: skip


def latency_guard(p99_ms: float, provider: str) -> Guard:
    """Time of one window from waveform to logits on the exported file."""
    return Guard(
        "latency P99, batch 1", "quality", p99_ms < MAX_P99_MS, f"{p99_ms:.1f} ms on {provider}",
        f"< {MAX_P99_MS:.0f} ms",
        "Measure again on an idle machine; a smaller width is cheaper, and a spectral front end (mfcc, log_mel) about "
        "50 times cheaper than the raw waveform.",
    )  # fmt: skip


def parity_guard(max_difference: float, same_argmax: bool, windows: int, bound: float) -> Guard:
    """Whether the exported file says what the trained network said."""
    return Guard(
        "ONNX against torch", "integrity", same_argmax and max_difference <= bound,
        f"{max_difference:.1e} on the logits of {windows} windows, {'same' if same_argmax else 'other'} classes",
        f"<= {bound:.0e} and the same classes", "The export is broken: report it with the study's sweep file.",
    )  # fmt: skip
