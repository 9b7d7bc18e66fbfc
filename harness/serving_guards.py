"""Guards of what stands beside the predictions: labels, controls, the exported file, the confirmation, the champion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.controls import Control
from harness.guards import Guard
from harness.latency import Latency
from harness.policy import LatencyBound, Policy

if TYPE_CHECKING:
    from harness.champion import Contest

FASTER = (
    "a smaller width is cheaper, and a spectral front end (mfcc, log_mel) about 50 times cheaper than the raw "
    "waveform, which takes 107 to 140 ms on one CPU core"
)
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def cluster_guard(clusters: int, policy: Policy) -> Guard:
    """Whether the test has clusters enough to claim anything; counted before it is opened."""
    bound = policy.quality.min_clusters
    return Guard(
        "clusters in the test", "quality", clusters >= bound, f"K = {clusters}", f">= {bound}",
        "Few clusters: this proves that the path works, not that the model does. Take parts with more speakers.",
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


def label_map_guard(trained: Mapping[str, str], now: str, relabelled: int) -> Guard:
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
    return Guard(
        "label map", "integrity", not other and not relabelled, measured, "the map it was trained with",
        "Labels have changed since the training, so no score means what it says: restore the corpus and the label "
        "rule, or run the sweep again under another name.",
    )  # fmt: skip


def provider_guard(latency: Latency | str, bound: LatencyBound) -> Guard:
    """Whether the file was timed on the policy's device; a text says why it could not be."""
    wanted = PROVIDERS[bound.device]
    used = latency if isinstance(latency, str) else latency.provider
    return Guard(
        "serving provider", "quality", used == wanted, used, wanted,
        "Promote on a machine that has the target device, or name the one that it will serve on in the policy's "
        "latency.device.",
    )  # fmt: skip


def speed_guard(
    latency: Latency | str, bound: LatencyBound, faster: Mapping[str, Latency] | None = None
) -> Guard:
    """Time of one window from waveform to logits on the exported file; binds on the target device alone.

    Parameters
    ----------
    faster : other files of the same model and what they take, of which those within the bound are recommended
    """
    name, wanted = "latency P99, batch 1", f"< {bound.max_p99_ms:g} ms on {bound.device}"
    if isinstance(latency, str) or latency.provider != PROVIDERS[bound.device]:
        return Guard(
            name, "quality", False, f"not measured on {bound.device}", wanted,
            "It says nothing until it is timed on the device that it will serve on.",
        )  # fmt: skip
    better = [
        f"{file} takes {one.p99_ms:.1f} ms"
        for file, one in (faster or {}).items()
        if one.p99_ms < bound.max_p99_ms
    ]
    advice = f"Measure again on an idle machine; {FASTER}."
    return Guard(
        name, "quality", latency.p99_ms < bound.max_p99_ms, f"{latency.p99_ms:.1f} ms on {latency.provider}", wanted,
        f"{advice} Of this bundle, {' and '.join(better)}." if better else advice,
    )  # fmt: skip


def parity_guard(max_difference: float, same_argmax: bool, windows: int, bound: float) -> Guard:
    """Whether the exported file says what the trained network said; NaN does not."""
    return Guard(
        "ONNX against torch", "integrity", windows > 0 and same_argmax and max_difference <= bound,
        f"{max_difference:.1e} on the logits of {windows} windows, {'same' if same_argmax else 'other'} classes",
        f"<= {bound:.0e} and the same classes", "The export is broken: report it with the study's sweep file.",
    )  # fmt: skip


def confirmation_guard(confirmed: bool) -> Guard:
    """Whether the configuration was retrained on fresh seeds; asked where the policy requires it."""
    return Guard(
        "confirmed on fresh seeds", "quality", confirmed, "yes" if confirmed else "no", "yes",
        "The best of many trials owes part of its score to luck: run `harness confirm STUDY`, or promote with "
        "--confirm.",
    )  # fmt: skip


def champion_guard(contest: Contest) -> Guard:
    """Whether it has shown to be better than the champion, or as good and cheaper."""
    return Guard(
        "against the champion", "quality", contest.wins, contest.text, "better, or non-inferior and cheaper",
        "The champion stays. Keep this one as the challenger, or confirm and test on more speakers.",
    )  # fmt: skip
