"""`python ray_tune.py JOB.json`: a study by Ray Tune with Optuna's search, reused actors and MLflow, as its guide has it.

Trials run one after another in one actor, which Tune keeps for the next trial; the data comes from the object store
once. JOB.json: data (folder), trials, rates (low, high), recipe, width, tracking_uri, experiment, storage, scratch.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import mlflow
import ray
from ray import tune
from ray.air.integrations.mlflow import setup_mlflow
from ray.tune.search.optuna import OptunaSearch

from tests.benchmarks.baselines.peer_trial import SCORE, Cached, leave_behind, training
from tests.benchmarks.baselines.plain_training import Recipe

OBJECT_STORE_BYTES = 200_000_000


class Trial(tune.Trainable):  # type: ignore[misc]
    """One configuration after another, in one actor.

    A class, not a function: Tune gives every function a thread of its own, and torch's exporter crashes in the second.
    """

    def setup(self, config: dict[str, Any], cached: Cached, job: dict[str, Any]) -> None:
        """Take the data from the object store, once, and begin the first trial."""
        self.cached, self.job = cached, job
        self._begin(config)

    def step(self) -> dict[str, Any]:
        """Train one epoch; the last one leaves the trial's files behind."""
        metrics = next(self.epochs)
        mlflow.log_metrics(metrics, step=self.iteration)
        done = self.iteration + 1 == self.job["recipe"]["epochs"]
        if done:
            leave_behind(self.model, self.cached, Path(self.logdir))
            mlflow.end_run()
        return {SCORE: metrics[SCORE], "done": done}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin the next trial."""
        mlflow.end_run()  # of a trial that was stopped before its last epoch
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        """End the run of a trial that did not come to its end."""
        mlflow.end_run()

    def _begin(self, config: dict[str, Any]) -> None:
        recipe = Recipe(learning_rate=config["learning_rate"], **self.job["recipe"])
        self.model, self.epochs = training(self.cached, recipe, self.job["width"])
        setup_mlflow(
            config,
            tracking_uri=self.job["tracking_uri"],
            experiment_name=self.job["experiment"],
            run_name=self.trial_name,
        )


def main(job: dict[str, Any]) -> None:
    """Run the study on a cluster of this process's own, on loopback."""
    ray.init(
        address="local",
        num_cpus=len(os.sched_getaffinity(0)),
        include_dashboard=False,
        _temp_dir=job["scratch"],
        object_store_memory=OBJECT_STORE_BYTES,
    )
    try:
        tuner = tune.Tuner(
            tune.with_parameters(Trial, cached=Cached.load(Path(job["data"])), job=job),
            param_space={"learning_rate": tune.loguniform(*job["rates"])},
            tune_config=tune.TuneConfig(
                metric=SCORE,
                mode="max",
                search_alg=OptunaSearch(seed=job["recipe"]["seed"]),
                num_samples=job["trials"],
                max_concurrent_trials=1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="peers",
                storage_path=job["storage"],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=1,
            ),
        )
        results = tuner.fit()
        if results.errors:
            raise results.errors[0]
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
