"""How the run of a trial, a control or a replicate ends in MLflow: its status, its reason, its summary."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.config.trial.trial_config import TrialConfig
from harness.study.confirmation.definition import ConfirmedConfig, results_of
from harness.study.confirmation.replicate import replicate_of
from harness.study.controls import Control, controls_left, controls_of
from harness.study.storage.trial_spool import TrialSpool
from harness.study.trials import TrialSummary

if TYPE_CHECKING:
    from harness.config.trial.trial_config import ControlName
    from harness.study.study import Study


def verdict_of_left_replicate(study: Study, header: Mapping[str, Any]) -> dict[str, Any] | None:
    """How the run of a training ends that a dead process left; None where the next `harness confirm` goes on."""
    tags = header["tags"]
    seed = int(tags["harness.replicate"])
    result = results_of(study).get((tags["harness.fingerprint"], seed))
    if result is None:
        return None
    confirmed = ConfirmedConfig(header["run_name"], TrialConfig.from_record(header["config"]), {})
    return verdict_of(replicate_of(study, confirmed, seed, result), header)


def verdict_of_left_control(study: Study, spool: TrialSpool, name: ControlName) -> dict[str, Any] | None:
    """How the run of a control ends that a dead coordinator left; None where the next launch goes on with it."""
    if name in controls_left(study):
        return None
    ended = [control for control in controls_of(study) if control.name == name]
    return verdict_of_control(spool, ended[0] if ended else Control(name, None, "taken out of the sweep"))


def verdict_of_control(spool: TrialSpool, control: Control) -> dict[str, Any]:
    """How the control's run ends in MLflow. It has no `best/` metric: it stands in no ranking."""
    status = "FINISHED" if control.judgement else "FAILED"
    return _verdict(status, _control_tags(control, spool.read("outcome") or {}), _control_metrics(control))


def _control_tags(control: Control, outcome: Mapping[str, Any]) -> dict[str, str]:
    tags = {
        "harness.state": "complete" if control.judgement else "failed",
        "harness.verdict": control.verdict,
        "harness.reason": str(control),
    }
    if control.judgement is not None and outcome:
        tags |= {"harness.device": outcome["device"], **_digest_tags(outcome.get("sha256", {}))}
    return tags


def _control_metrics(control: Control) -> dict[str, float]:
    """What the control was judged by, in its own family of metrics; none where it was not."""
    if control.judgement is None:
        return {}
    names = ("value", "low", "windows", "clusters")
    return {f"control/{name}": float(getattr(control.judgement, name)) for name in names}


def verdict_of(trial: TrialSummary, header: Mapping[str, Any]) -> dict[str, Any]:
    """How a told trial's run ends in MLflow: its true status, its reason, its summary.

    MLflow knows no pruned run: such a one is KILLED, everything else that is not complete FAILED.
    `header` is the content of its spool's trial.json: nobody needs the corpus to end a run.
    """
    status = {"complete": "FINISHED", "pruned": "KILLED"}.get(trial.state, "FAILED")
    metrics = {**_trial_metrics(trial.outcome), **header.get("label_shares", {})}
    return _verdict(status, _trial_tags(trial, header), metrics)


def _trial_tags(trial: TrialSummary, header: Mapping[str, Any]) -> dict[str, str]:
    """How the trial ended, in words; of an outcome also where it was trained, and its files' digests."""
    tags = {"harness.state": trial.state, "harness.reason": trial.reason}
    if outcome := trial.outcome:
        tags["harness.device"] = outcome["device"]
        if outcome.get("notes"):
            tags["harness.notes"] = "; ".join(outcome["notes"])
        if "stack" in outcome:  # trials that it was trained with, itself among them
            tags["harness.stack"] = str(outcome["stack"])
        if "promotable" in outcome:
            tags["harness.promotable"] = outcome["promotable"]
        tags |= _digest_tags(outcome["sha256"])
    if attempt := header.get("tags", {}).get("harness.attempt"):
        tags["harness.attempt"] = attempt
    return tags


def _trial_metrics(outcome: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of the epoch that holds the score, with the interval around it; none without an outcome."""
    if not outcome:
        return {}
    at_best, interval = outcome["at_best"], outcome["interval"]
    metrics = {f"best/{name.replace('/', '_')}": value for name, value in at_best.items()}
    metrics |= {"best/score": outcome["score"], "best/epoch": outcome["best_epoch"]}
    metrics |= {f"best/{name}": interval[name] for name in ("low", "high", "clusters", "n_eff", "windows")}
    metrics["labels/predicted/share_1"] = at_best["val/predicted_positive"]
    for subset, scores in outcome.get("by_subset", {}).items():
        metrics[f"val/{subset}/balanced_accuracy"] = scores["balanced_accuracy"]
    return metrics


def _digest_tags(digests: Mapping[str, str]) -> dict[str, str]:
    """The sha256 of each file that will be loaded again, by the file's name."""
    return {f"harness.sha256.{name}": digest for name, digest in digests.items()}


def _verdict(status: str, tags: dict[str, str], metrics: dict[str, float]) -> dict[str, Any]:
    """The content of a spool's verdict.json: `Tracking.store_trial` ends the run by it, at this moment."""
    return {"status": status, "tags": tags, "metrics": metrics, "time_ms": int(time.time() * 1000)}
