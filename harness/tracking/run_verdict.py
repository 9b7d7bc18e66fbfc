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
    fingerprint, seed = (
        header["tags"]["harness.fingerprint"],
        int(header["tags"]["harness.replicate"]),
    )
    result = results_of(study).get((fingerprint, seed))
    if result is None:
        return None
    arm = ConfirmedConfig(header["run_name"], TrialConfig.model_validate(header["config"]), {})
    return verdict_of(replicate_of(study, arm, seed, result), header)


def verdict_of_left_control(study: Study, spool: TrialSpool, name: ControlName) -> dict[str, Any] | None:
    """How the run of a control ends that a dead coordinator left; None where the next launch goes on with it."""
    if name in controls_left(study):
        return None
    ended = [control for control in controls_of(study) if control.name == name]
    return verdict_of_control(spool, ended[0] if ended else Control(name, None, "taken out of the sweep"))


def verdict_of_control(spool: TrialSpool, control: Control) -> dict[str, Any]:
    """How the control's run ends in MLflow. It has no `best/` metric: it stands in no ranking."""
    outcome, judgement = spool.read("outcome") or {}, control.judgement
    tags = {
        "harness.state": "complete" if judgement else "failed",
        "harness.verdict": control.verdict,
        "harness.reason": str(control),
    }
    metrics: dict[str, float] = {}
    if judgement is not None:
        names = ("value", "low", "windows", "clusters")
        metrics = {f"control/{name}": float(getattr(judgement, name)) for name in names}
        tags |= {"harness.device": outcome["device"]} if outcome else {}
        tags |= {f"harness.sha256.{name}": digest for name, digest in outcome.get("sha256", {}).items()}
    status = "FINISHED" if judgement else "FAILED"
    return {"status": status, "tags": tags, "metrics": metrics, "time_ms": int(time.time() * 1000)}


def verdict_of(trial: TrialSummary, header: Mapping[str, Any]) -> dict[str, Any]:
    """How a told trial's run ends in MLflow: its true status, its reason, its summary.

    `header` is the content of its spool's trial.json: nobody needs the corpus to end a run.
    """
    status = {"complete": "FINISHED", "pruned": "KILLED"}.get(trial.state, "FAILED")
    tags = {"harness.state": trial.state, "harness.reason": trial.reason}
    metrics: dict[str, float] = {}
    outcome = trial.outcome
    if outcome:
        interval = outcome["interval"]
        metrics = {f"best/{name.replace('/', '_')}": value for name, value in outcome["at_best"].items()}
        metrics |= {
            "best/score": outcome["score"], "best/epoch": outcome["best_epoch"], "best/low": interval["low"],
            "best/high": interval["high"], "best/clusters": interval["clusters"], "best/n_eff": interval["n_eff"],
            "best/windows": interval["windows"],
            "labels/predicted/share_1": outcome["at_best"]["val/predicted_positive"],
            **{
                f"val/{subset}/balanced_accuracy": scores["balanced_accuracy"]
                for subset, scores in outcome.get("by_subset", {}).items()
            },
        }  # fmt: skip
        tags["harness.device"] = outcome["device"]
        if outcome.get("notes"):
            tags["harness.notes"] = "; ".join(outcome["notes"])
        if "stack" in outcome:
            tags["harness.stack"] = str(
                outcome["stack"]
            )  # trials that it was trained with, itself among them
        if "promotable" in outcome:
            tags["harness.promotable"] = outcome["promotable"]
        tags |= {f"harness.sha256.{name}": digest for name, digest in outcome["sha256"].items()}
    metrics |= header.get("label_shares", {})
    if attempt := header.get("tags", {}).get("harness.attempt"):
        tags["harness.attempt"] = attempt
    return {"status": status, "tags": tags, "metrics": metrics, "time_ms": int(time.time() * 1000)}
