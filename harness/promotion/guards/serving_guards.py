"""Guards of what stands beside the predictions: labels, controls, the exported file, the confirmation, the champion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.config.policy import ConfirmationRule, LatencyBound, Policy
from harness.promotion.bundle.latency import Latency
from harness.promotion.guards.guard import Guard
from harness.study.controls import Control
from harness.study.trials import unexportable_reason

if TYPE_CHECKING:
    from harness.promotion.registry.champion import ChallengerComparison
    from harness.study.confirmation.conclusion import Confirmation
    from harness.study.trials import TrialSummary

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
    reason = unexportable_reason(outcome)
    return Guard(
        "one ONNX file", "integrity", reason is None, reason or "yes", "yes",
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
        if one.within(bound.max_p99_ms)
    ]
    advice = f"Measure again on an idle machine; {FASTER}."
    return Guard(
        name, "quality", latency.within(bound.max_p99_ms), f"{latency.p99_ms:.1f} ms on {latency.provider}", wanted,
        f"{advice} Of this bundle, {' and '.join(better)}." if better else advice,
    )  # fmt: skip


def parity_guard(max_difference: float, same_argmax: bool, windows: int, bound: float) -> Guard:
    """Whether the exported file says what the trained network said; NaN does not."""
    return Guard(
        "ONNX against torch", "integrity", windows > 0 and same_argmax and max_difference <= bound,
        f"{max_difference:.1e} on the logits of {windows} windows, {'same' if same_argmax else 'other'} classes",
        f"<= {bound:.0e} and the same classes", "The export is broken: report it with the study's sweep file.",
    )  # fmt: skip


def confirmation_guard(
    confirmation: Confirmation | None, rule: ConfirmationRule, able: Sequence[TrialSummary] = (), *,
    ensemble: bool = False,
) -> Guard:  # fmt: skip
    """Whether the subject was chosen on fresh seeds, and on as much as the policy asks for.

    Of a confirmation for which somebody named the finalist only the seeds are counted: there was nothing to choose.

    Parameters
    ----------
    confirmation : the one whose seed the subject is; None where it is none
    able : the study's trials that could be finalists today, one a configuration
    ensemble : whether the subject is one
    """
    wanted = min(rule.finalists, len(able))
    bound = f">= {rule.seeds} seeds, >= {_many(wanted, 'finalist')}"
    if confirmation is None:
        return Guard("confirmed on fresh seeds", "quality", False, "no", bound, _unconfirmed(ensemble))
    finalists = [one for one in confirmation.finalists if one.trial is not None and not one.is_added]
    measured = f"{confirmation.seeds} seeds, {_many(len(finalists), 'finalist')}"
    ok, over = confirmation.seeds >= rule.seeds, []
    if confirmation.named:
        measured, bound = f"{confirmation.seeds} seeds of the trial that was named", f">= {rule.seeds} seeds"
    else:
        over = _overtaking(confirmation, able)
        ok = ok and len(finalists) >= wanted and not over
    if over:
        measured += f"; {over[0].label} is none of them, and scores {over[0].score:.3f} in the sweep"
        bound += ", no other trial above the last of them"
    command = (
        f"harness confirm {confirmation.study} --finalists {rule.finalists} --seeds {rule.seeds}"
        if not confirmation.named
        else f"harness confirm {confirmation.study} --run {finalists[0].trial} --seeds {rule.seeds}"
    )
    return Guard(
        "confirmed on fresh seeds", "quality", ok, measured, bound,
        f"Run `{command}`, or promote with --confirm: what was trained on a fresh seed is not trained again.",
    )  # fmt: skip


def _unconfirmed(ensemble: bool) -> str:
    if ensemble:
        return (
            "Fresh seeds are for configurations, and an ensemble averages weights that are there: confirm and promote "
            "one of its members, or name a policy with confirmation.required: false."
        )
    return (
        "The best of many trials owes part of its score to luck: run `harness confirm STUDY`, or promote with "
        "--confirm."
    )


def _overtaking(confirmation: Confirmation, able: Sequence[TrialSummary]) -> list[TrialSummary]:
    """Trials that are no finalists and score more in the sweep than the last of the finalists."""
    known = {one.fingerprint for one in confirmation.finalists}
    chosen = [one for one in confirmation.finalists if not one.is_added]
    last = min((one.sweep_score for one in chosen if one.sweep_score is not None), default=1.0)
    return [one for one in able if one.fingerprint not in known and (one.score or 0.0) > last]


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def champion_guard(contest: ChallengerComparison, *, is_champion: bool, policy: Policy) -> Guard:
    """Whether it has shown to be better than its opponent, or as good and cheaper."""
    if not is_champion:
        return _baseline_guard(contest.wins, contest.text, policy)
    advice = "The champion stays. Keep this one as the challenger, or confirm and test on more speakers."
    if contest.verdict == "not comparable":
        advice = (
            "No test can decide between them. Under a policy whose quality guards warn this one is registered as the "
            "challenger; `harness rollback NAME --to VERSION` puts the alias on it by hand."
        )
    return Guard(
        "against the champion", "quality", contest.wins, contest.text, "better, or non-inferior and cheaper", advice
    )  # fmt: skip


def no_baseline_guard(reason: str, policy: Policy) -> Guard:
    """That nobody is there to beat: no champion, and a confirmed baseline that cannot be compared with."""
    return _baseline_guard(False, f"cannot be compared: {reason}", policy)


def _baseline_guard(ok: bool, measured: str, policy: Policy) -> Guard:
    what_now = (
        "search further or test on more speakers, or promote under a policy whose quality guards warn."
        if policy.quality.on_failure == "refuse"
        else "it becomes champion all the same, since there is none."
    )
    return Guard(
        "against the baseline", "quality", ok, measured, "better, or non-inferior and cheaper",
        f"Nothing shows that the search was worth more than the baseline: {what_now}",
    )  # fmt: skip
