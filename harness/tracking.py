"""MLflow as the record's shop window: experiments, runs, metrics, artifacts, always by explicit run id.

`store_trial` is idempotent: it may be killed or repeated anywhere and leaves one run with every epoch once.
"""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from harness.failpoints import failpoint
from harness.once import once
from harness.outage import ForeignServerError, TrackingError
from harness.record import quiet_environment
from harness.spool import TrialSpool

if TYPE_CHECKING:
    from mlflow import MlflowClient

# A tag's value and a parameter's may have at most this many characters.
MAX_TAG = 5_000
MAX_PARAM = 6_000
BATCH_METRICS = 1_000
BATCH_ROWS = 100
# The tag by which the UI knows that a run has images.
LOGGED_IMAGES = "mlflow.loggedImages"


def connect(uri: str) -> MlflowClient:
    """A client that gives up within seconds instead of minutes, and tells nobody about us."""
    for name, value in quiet_environment().items():
        if name.startswith("MLFLOW_") or name in ("DO_NOT_TRACK", "GIT_PYTHON_REFRESH"):
            os.environ.setdefault(name, value)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    # An MLflow server waits 20 s for its database: what it does after its client gave up would be done twice.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    _pass_by_proxies(uri)
    import logging

    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # else a line for each repetition
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _pass_by_proxies(uri: str) -> None:
    """The web proxy of a company knows no server of this machine."""
    host = urlsplit(uri).hostname
    if host in ("127.0.0.1", "localhost"):
        around = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        if host not in around.split(","):
            os.environ["no_proxy"] = ",".join(filter(None, (around, host)))


def study_links(client: MlflowClient, url: str) -> dict[str, str]:
    """For each study the address of its trials in the UI, best score first, newest study first."""
    query = "searchFilter={}&orderByKey={}&orderByAsc=false".format(
        quote("tags.`harness.kind` = 'trial'"), quote("metrics.`best/score`")
    )
    found = client.search_experiments(
        filter_string="tags.`harness.study` != ''", order_by=["creation_time DESC"]
    )
    return {str(one.name): f"{url}/#/experiments/{one.experiment_id}/runs?{query}" for one in found}


class Tracking:
    """One study's runs in one MLflow experiment."""

    def __init__(
        self, client: MlflowClient, study: str, description: str = "", identity: str | None = None
    ) -> None:
        self.client = client
        self.study = study
        # A team's server may know another study of the same name, of another record: names are not keys.
        self.identity = identity or study
        self.experiment_id = self._experiment(description)
        self.parent: str | None = None
        self._run_ids: dict[str, str] = {}
        self._described: set[str] = set()
        self._epochs_stored: dict[str, int] = {}

    def _experiment(self, description: str) -> str:
        tags = {
            "harness.study": self.study,
            "harness.identity": self.identity,
            "mlflow.note.content": description[:MAX_TAG],
            "mlflow.experimentKind": "custom_model_development",  # the UI opens on runs, not on chat traces
        }
        for name in (self.study, f"{self.study} ({self.identity[:8]})"):
            found = self.client.get_experiment_by_name(name)
            if found is None:
                return once(partial(self._create_experiment, name, tags), partial(self._own_experiment, name))
            if found.name != name:
                raise ForeignServerError(f"asked for the experiment {name!r}, it names {found.name!r}")
            if found.tags.get("harness.identity") == self.identity:
                if found.lifecycle_stage == "deleted":  # by hand, in the UI; its study goes on
                    self.client.restore_experiment(found.experiment_id)
                return str(found.experiment_id)
        raise TrackingError(
            f"MLflow has other experiments called {self.study!r}: give the study another --name"
        )

    def _create_experiment(self, name: str, tags: dict[str, str]) -> str:
        return str(self.client.create_experiment(name, tags=tags))

    def _own_experiment(self, name: str) -> str | None:
        found = self.client.get_experiment_by_name(name)
        ours = found is not None and found.tags.get("harness.identity") == self.identity
        return str(found.experiment_id) if found is not None and ours else None

    def trial_key(self, number: int) -> str:
        """What makes the run of a trial findable, whoever made it."""
        return f"{self.identity}/trial/{number}"

    def end_orphans(self, kind: str) -> list[str]:
        """End the runs of this kind that a killed process left running; call it under that kind's lock.

        Returns their names.
        """
        orphans = self._running(kind)
        for run_id in orphans:
            self.end(run_id, "KILLED", {"harness.state": "abandoned"}, {})
        return list(orphans.values())

    def pause_orphans(self, kind: str) -> list[str]:
        """Show trainings of this kind that nobody runs as waiting, as `pause_run` does; their names."""
        orphans = self._running(kind)
        for run_id in orphans:
            self._pause(run_id)
        return list(orphans.values())

    def _running(self, kind: str) -> dict[str, str]:
        """Id and name of every run of this kind that is shown as running."""
        running = f"tags.`harness.kind` = '{kind}' and attributes.status = 'RUNNING'"
        runs = self.client.search_runs([self.experiment_id], running)
        return {str(run.info.run_id): str(run.info.run_name) for run in runs}

    def find(self, key: str) -> str | None:
        """The id of the run that carries this key, if the record has it."""
        runs = self.client.search_runs(
            [self.experiment_id],
            f"tags.`harness.key` = '{key}'",
            max_results=1,
            order_by=["attributes.start_time"],
        )
        return str(runs[0].info.run_id) if runs else None

    def has_run(self, run_id: str) -> bool:
        """Whether this is the id of a run of the study."""
        query = f"attributes.run_id = '{run_id}'"
        return run_id.isalnum() and bool(self.client.search_runs([self.experiment_id], query, max_results=1))

    def latest(self, kind: str) -> str | None:
        """The id of the run of this kind that was started last."""
        runs = self.client.search_runs(
            [self.experiment_id],
            f"tags.`harness.kind` = '{kind}'",
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )
        return str(runs[0].info.run_id) if runs else None

    def trial_of(self, run_id: str) -> str | None:
        """The number of the trial that a run of this study records."""
        runs = self.client.search_runs(
            [self.experiment_id], f"attributes.run_id = '{run_id}'" if run_id.isalnum() else "", max_results=1
        )
        found = [run for run in runs if run.info.run_id == run_id]
        tags = found[0].data.tags if found else {}
        # A confirmation repeats a trial on another seed, a promotion speaks of one: neither is the trial.
        return tags.get("harness.trial") if tags.get("harness.kind") == "trial" else None

    def run(
        self,
        key: str,
        name: str,
        tags: dict[str, str],
        params: dict[str, Any] | None = None,
        start_ms: int | None = None,
    ) -> str:
        """The run of this key, made if it is not there yet (a lost answer must not make it twice)."""
        from mlflow.entities import Param, RunTag

        run_id = self._run_ids.get(key) or self.find(key)
        if run_id is None:
            parent = {"mlflow.parentRunId": self.parent} if self.parent else {}
            marks = {**{k: v[:MAX_TAG] for k, v in tags.items()}, **parent, "harness.key": key}

            def create() -> str:
                made = self.client.create_run(
                    self.experiment_id, start_time=start_ms, run_name=name, tags=marks
                )
                return str(made.info.run_id)

            run_id = once(create, lambda: self.find(key))
            failpoint("tracking.run_created")
        elif key not in self._run_ids:
            self.client.log_batch(run_id, tags=[RunTag(k, v[:MAX_TAG]) for k, v in tags.items()])
        if key not in self._run_ids and params:
            rows = [Param(name, str(value)[:MAX_PARAM]) for name, value in sorted(params.items())]
            for start in range(0, len(rows), BATCH_ROWS):
                self.client.log_batch(run_id, params=rows[start : start + BATCH_ROWS])
        self._run_ids[key] = run_id
        return run_id

    def store_trial(self, spool: TrialSpool) -> bool:
        """Bring the run of a spooled trial up to date; true when it is complete and ended."""
        trial = spool.read("trial")
        assert trial is not None, f"{spool.folder} has no trial.json"
        key = trial.get("key") or self.trial_key(trial["number"])  # an ensemble brings its own
        run_id = self.run(key, trial["run_name"], trial["tags"], trial["params"], trial["time_ms"])
        if key not in self._described:
            self._log_datasets(run_id, trial["datasets"])
            self._set_running(run_id)
            self._described.add(key)
            failpoint("tracking.described")
        self._log_epochs(key, run_id, spool)
        failpoint("tracking.epochs_stored")
        verdict = spool.read("verdict")
        if verdict is None:
            return False
        self._log_outputs(run_id, spool)
        failpoint("tracking.artifacts_stored")
        self._keep_only(run_id, key)
        self.end(run_id, verdict["status"], verdict["tags"], verdict["metrics"], verdict["time_ms"])
        return True

    def end(
        self,
        run_id: str,
        status: str,
        tags: dict[str, str],
        metrics: dict[str, float],
        time_ms: int | None = None,
    ) -> None:
        """Write the last tags and metrics, then the status: FINISHED, KILLED or FAILED."""
        from mlflow.entities import Metric, RunTag

        time_ms = time_ms or int(time.time() * 1000)
        self.client.log_batch(
            run_id,
            metrics=[Metric(name, value, time_ms, 0) for name, value in sorted(metrics.items())],
            tags=[RunTag(name, str(value)[:MAX_TAG]) for name, value in sorted(tags.items())],
        )
        failpoint("tracking.tagged")
        self.client.set_terminated(run_id, status=status, end_time=time_ms)
        failpoint("tracking.ended")

    def pause(self, number: int) -> None:
        """Show an interrupted trial's run as waiting, not as running."""
        self.pause_run(self.trial_key(number))

    def pause_run(self, key: str) -> None:
        """The same for the run of any key."""
        run_id = self.find(key)
        if run_id is not None:
            self._pause(run_id)

    def _pause(self, run_id: str) -> None:
        self.client.set_tag(run_id, "harness.state", "interrupted")
        self.client.update_run(run_id, status="SCHEDULED")

    def _set_running(self, run_id: str) -> None:
        if self.client.get_run(run_id).info.status != "RUNNING":
            self.client.update_run(run_id, status="RUNNING")

    def _log_datasets(self, run_id: str, datasets: list[dict[str, str]]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(
                    name=row["name"],
                    digest=row["digest"][:36],
                    source_type="harness",
                    source=row["source"],
                    profile=row["profile"],
                ),
                tags=[InputTag("mlflow.data.context", row["context"])],
            )
            for row in datasets
        ]
        self.client.log_inputs(run_id, inputs)

    def _log_epochs(self, key: str, run_id: str, spool: TrialSpool) -> None:
        from mlflow.entities import Metric

        events = spool.epochs()
        new = events[self._epochs_stored.get(key, 0) :]
        rows = [
            Metric(name, value, event["time_ms"], event["epoch"])
            for event in new
            for name, value in sorted(event["metrics"].items())
        ]
        for start in range(0, len(rows), BATCH_METRICS):
            self.client.log_batch(run_id, metrics=rows[start : start + BATCH_METRICS])
        self._epochs_stored[key] = len(events)

    def _keep_only(self, run_id: str, key: str) -> None:
        """Remove other runs of this key: a server that stood still made what its client had given up and made again."""
        for run in self.client.search_runs([self.experiment_id], f"tags.`harness.key` = '{key}'"):
            if run.info.run_id != run_id:
                self.client.delete_run(run.info.run_id)

    def _log_outputs(self, run_id: str, spool: TrialSpool) -> None:
        if spool.artifacts.is_dir():
            self.client.log_artifacts(run_id, str(spool.artifacts))
        images = sorted(spool.images.glob("*.png")) if spool.images.is_dir() else []
        if images:
            with tempfile.TemporaryDirectory(prefix="harness-images-") as scratch:
                for path in images:
                    _write_image(path, Path(scratch))
                self.client.log_artifacts(run_id, scratch, "images")
            self.client.set_tag(run_id, LOGGED_IMAGES, "true")


def _write_image(path: Path, folder: Path) -> None:
    """A PNG in the two files that MLflow's image grid is made of.

    As `MlflowClient.log_image`, whose names differ each time: what is stored once more would stand there twice.
    """
    from mlflow.tracking.multimedia import compress_image_size
    from PIL import Image

    name = f"{path.stem}+step+0+timestamp+0+{uuid.uuid5(uuid.NAMESPACE_URL, path.stem)}"
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    image.save(folder / f"{name}.png")
    compress_image_size(image).save(folder / f"{name}+compressed.webp")
