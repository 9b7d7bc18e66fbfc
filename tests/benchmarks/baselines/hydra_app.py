"""`python hydra_app.py --multirun job=JOB.json`: a study by Hydra's Optuna sweeper (conf/peers.yaml) and MLflow.

Hydra's basic launcher runs the trials one after another in this process, so the data is loaded once. JOB.json as
ray_tune.py has it; number of trials and rates are overrides on the command line, as Hydra wants it.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import mlflow
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from tests.benchmarks.baselines.peer_trial import SCORE, Cached, leave_behind, training
from tests.benchmarks.baselines.plain_training import Recipe


@cache
def opened(path: str) -> tuple[dict[str, Any], Cached]:
    """The job and its data, read by the first trial."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    mlflow.set_tracking_uri(job["tracking_uri"])
    mlflow.set_experiment(job["experiment"])
    return job, Cached.load(Path(job["data"]))


@hydra.main(version_base="1.3", config_path="conf", config_name="peers")  # type: ignore[untyped-decorator]
def main(config: DictConfig) -> float:
    """Train one configuration; its score is what the sweeper maximises."""
    job, cached = opened(config.job)
    folder = Path(HydraConfig.get().runtime.output_dir)
    recipe = Recipe(learning_rate=config.learning_rate, **job["recipe"])
    metrics: dict[str, float] = {}
    with mlflow.start_run():
        mlflow.log_params({"learning_rate": config.learning_rate})
        model, epochs = training(cached, recipe, job["width"])
        for epoch, metrics in enumerate(epochs):
            mlflow.log_metrics(metrics, step=epoch)
        leave_behind(model, cached, folder)
    return metrics[SCORE]


if __name__ == "__main__":
    main()
