"""A study as the coordinator leaves it, for the tests of reports; nothing is trained."""

from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from harness.config.sweep import Sweep
from harness.config.trial.trial_config import TrialConfig
from harness.core.files import sha256_of
from harness.metrics.intervals import clustered_interval
from harness.reporting.analysis import WindowCorrectness, analyse
from harness.reporting.document import Report
from harness.study.storage.record import Record
from harness.study.storage.trial_spool import TrialSpool
from harness.study.study import Study, open_study

CLUSTERS = np.repeat([f"s{k:02d}" for k in range(40)], 10)
LABELS = np.tile([0, 1], 200)
SUBSETS = np.where(np.arange(400) % 4 < 2, "clean", "other")
EVIL = "<script>alert(1)</script> | *clean* or `other`?"


def correct(accuracy: float, seed: int) -> np.ndarray:
    """Answers (window,) of which a share is right, some speakers better than others."""
    source = np.random.default_rng(seed)
    by_speaker = np.clip(accuracy + 0.15 * source.standard_normal(40), 0.02, 0.98)
    return source.random(400) < np.repeat(by_speaker, 10)


class ReportRecord:
    """A record with studies in it, made the way a coordinator makes them."""

    def __init__(self, root: Path) -> None:
        self.record = Record(root / "mlruns")
        for folder in (self.record.root, self.record.spool, self.record.locks, self.record.artifacts):
            folder.mkdir()
        self.record.database.touch()
        self.answers: dict[tuple[str, int], WindowCorrectness] = {}

    def study(self, name: str = "voices", **data: Any) -> Study:
        sweep = Sweep.model_validate({
            "name": name, "description": EVIL, "data": {"evaluate_on": ["clean", "other"], **data},
            "parameters": {"feature": ["mfcc", "log_mel"], "subset": ["clean", "other"], "learning_rate": {"float": [1e-4, 1e-2], "log": True}},
            "budget": {"trials": 9},
        })  # fmt: skip
        study = open_study(self.record, sweep)
        study.release()
        return study

    def add(self, study: Study, accuracy: float, feature: str = "mfcc", subset: str = "clean", state: str = "complete",
            seed: int | None = None, **outcome: Any) -> int:  # fmt: skip
        number = len(study.trials())
        values = {"feature": feature, "subset": subset, "learning_rate": 0.001 * (number + 1)}
        config = study.space.config(values)
        if "audits" not in study.optuna_study.user_attrs:
            study.describe(
                [], {"version.diarization-harness": "0.1.0", "mlflow.source.git.commit": "c0ffee" * 6}, []
            )
        self._audit(study, config)
        attrs: dict[str, Any] = {
            "name": f"{number:03d} {subset} {feature}", "values": values, "config": config.model_dump(mode="json"),
            "fingerprint": config.fingerprint(),
        }  # fmt: skip
        if state in ("complete", "pruned"):
            right = correct(accuracy, seed if seed is not None else number)
            self.answers[study.name, number] = WindowCorrectness(right, CLUSTERS, SUBSETS)
            attrs["outcome"] = {**self._outcome(right), **outcome}
            attrs["outcome"]["sha256"] = {"predictions.npz": self._spool(study, number, right)}
        if state != "complete":
            attrs["reason"] = {
                "pruned": "the median pruner stopped it",
                "failed": "configuration: <b>no</b> memory",
            }[state]
        score = attrs["outcome"]["score"] if state == "complete" else None
        ended = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}[
            state
        ]
        study.optuna_study.add_trial(optuna.trial.create_trial(state=ended, value=score, user_attrs=attrs))
        return number

    def two_front_ends(self) -> Study:
        """Two front ends near each other, one subset far behind, one trial pruned and one failed."""
        study = self.study()
        self.add(study, 0.80, "mfcc", "clean", seed=1)
        self.add(study, 0.79, "log_mel", "clean", seed=2)
        self.add(study, 0.55, "mfcc", "other", seed=3)
        self.add(study, 0.5, "log_mel", "other", state="pruned")
        self.add(study, 0.5, "log_mel", "clean", state="failed")
        return study

    def _outcome(self, right: np.ndarray) -> dict[str, Any]:
        value = float(right.mean())
        found = clustered_interval(right, CLUSTERS)
        val = [0.5, value - 0.05, value, value, value, value - 0.01, value]
        by_subset = {}
        for name in ("clean", "other"):
            part = clustered_interval(right[name == SUBSETS], CLUSTERS[name == SUBSETS])
            by_subset[name] = {
                "balanced_accuracy": part.value,
                "low": part.low,
                "high": part.high,
                "windows": part.windows,
                "clusters": part.clusters,
            }
        by_subset["ami"] = {"balanced_accuracy": 0.6, "low": 0.4, "high": 0.8, "windows": 90, "clusters": 4}
        return {
            "state": "complete", "score": value, "best_epoch": 3, "epochs": 7, "lag1": 0.3, "device": "cpu",
            "at_best": {"val/balanced_accuracy": value, "gap": 0.07, "val/predicted_positive": 0.5}, "by_subset": by_subset,
            "interval": {"low": found.low, "high": found.high, "windows": 400, "clusters": 40, "icc": found.icc, "n_eff": found.n_eff},
            "curves": {"train": [0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99], "val": val}, "val_accuracy": val,
        }  # fmt: skip

    def _spool(self, study: Study, number: int, right: np.ndarray) -> str:
        folder = TrialSpool(self.record.spool / study.name / f"{number:05d}").artifacts
        folder.mkdir(parents=True)
        logits = np.zeros((400, 2), np.float32)
        logits[np.arange(400), np.where(right, LABELS, 1 - LABELS)] = 1
        np.savez_compressed(
            folder / "predictions.npz",
            val_logits=logits,
            val_labels=LABELS,
            val_clusters=CLUSTERS,
            val_subsets=SUBSETS,
        )
        return sha256_of(folder / "predictions.npz")

    def _audit(self, study: Study, config: TrialConfig) -> None:
        audits = list(study.optuna_study.user_attrs["audits"])
        data = config.data.model_dump(mode="json")
        if any(one["config"] == data for one in audits):
            return
        counted = {
            label: {
                "windows": 200,
                "speakers": 20,
                "sexes": {"F": {"windows": 120, "speakers": 12}, "M": {"windows": 80, "speakers": 8}},
            }
            for label in ("0", "1")
        }
        count = {"windows": 200, "clusters": 40, "speakers": 120}
        audits.append({
            "evidence": {split: {"": count, "clean": count, "other": count} for split in ("train", "val", "test")},
            "data": f"demo {data['subset']}", "config": data, "split_rule": "speaker-disjoint", "flags": ["a flag"], "examined": 9, "lost": [],
            "label_map_digest": "ab" * 32, "ok": True, "histograms": {split: counted for split in ("train", "val", "test")},
            "manifests": {"train": data["subset"] * 9, "val": f"{data['seed']:x}" * 64, "test": "7" * 64},
            "checks": [{"name": "clusters val", "ok": True, "measured": 40, "bound": "", "message": "val: K = 40 clusters", "level": "warn"}],
        })  # fmt: skip
        study.describe(audits, study.optuna_study.user_attrs["code"], [])

    def report(self, study: Study, **more: Any) -> Report:
        return analyse(study, self.reader(study), created="2026-01-02T03:04:05+00:00", **more)

    def reader(self, study: Study):
        return lambda trial: self.answers.get((study.name, trial.number))
