"""MLflow as the record's shop window: experiments, runs, metrics, artifacts, always by explicit run id.

`store_trial` is idempotent: it may be killed or repeated anywhere and leaves one run with every epoch once.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from harness.core.failpoints import failpoint
from harness.study.storage.trial_spool import TrialSpool
from harness.tracking.client import connect as connect
from harness.tracking.create_once import create_once
from harness.tracking.errors import ForeignServerError, TrackingError
from harness.tracking.upload import folder_of, place_outputs, upload_outputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, Run, RunTag

# A tag's value and a parameter's may have at most this many characters.
MAX_TAG = 5_000
MAX_PARAM = 6_000
# A request takes so many parameters, metrics and tags together, and of them so many parameters.
BATCH_ROWS = 1_000
BATCH_PARAMS = 100


def study_links(client: MlflowClient, url: str) -> dict[str, str]:
    """For each study's name the address of its trials in the UI at `url`, best score first; newest study first."""
    query = "searchFilter={}&orderByKey={}&orderByAsc=false".format(
        quote("tags.`harness.kind` = 'trial'"), quote("metrics.`best/score`")
    )
    found = client.search_experiments(
        filter_string="tags.`harness.study` != ''", order_by=["creation_time DESC"]
    )
    return {str(one.name): f"{url}/#/experiments/{one.experiment_id}/runs?{query}" for one in found}


class Tracking:
    """One study's runs in one MLflow experiment, which is made, or taken up again, at once.

    Every run carries its key as a tag, so a launch that was killed and the next one write one and the same run.
    Opening it may raise TrackingError (studies of other records have both names that the experiment could have) and
    ForeignServerError (what answers is no MLflow server).

    parent : id of the run under which new runs are shown; None for none
    served : folder from which the server serves artifacts, where it is the record's own; None elsewhere
    """

    def __init__(
        self, client: MlflowClient, study: str, description: str = "", identity: str | None = None
    ) -> None:
        self.client = client
        self.study = study
        # A team's server may know another study of the same name, of another record: names are not keys.
        self.identity = identity or study
        self.experiment_id = self._experiment(description)
        self.parent: str | None = None
        self.served: Path | None = None
        self._run_ids: dict[str, str] = {}
        self._artifact_uris: dict[str, str] = {}  # by run
        self._made: set[str] = set()  # runs made here, and ...
        self._only: set[str] = set()  # ... those of which there can be no second one of their key
        self._answer_lost: set[str] = set()  # keys of which a run may still come that was asked for before
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
                return create_once(
                    partial(self._create_experiment, name, tags), partial(self._own_experiment, name)
                )
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
        """The value of the tag `harness.key` of a trial's run: the same in every process, so that any finds it."""
        return f"{self.identity}/trial/{number}"

    def end_orphans(self, kind: str) -> list[str]:
        """End the runs of this kind that a killed process left running, as KILLED; their names.

        Call it under that kind's lock: a run whose process lives looks the same.
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
        """The id of the run that carries this key, of several the one that was started first; None: there is none."""
        query, oldest = f"tags.`harness.key` = '{key}'", ["attributes.start_time"]
        runs = self.client.search_runs([self.experiment_id], query, max_results=1, order_by=oldest)
        return self._known(runs[0]) if runs else None

    def _known(self, run: Run) -> str:
        run_id = str(run.info.run_id)
        self._artifact_uris[run_id] = str(run.info.artifact_uri)
        return run_id

    def has_run(self, run_id: str) -> bool:
        """Whether this is the id of a run of the study; text that could be no id asks nobody."""
        query = f"attributes.run_id = '{run_id}'"
        return run_id.isalnum() and bool(self.client.search_runs([self.experiment_id], query, max_results=1))

    def latest(self, kind: str) -> str | None:
        """The id of the run of this kind that was started last; None: the study has none."""
        query, newest = f"tags.`harness.kind` = '{kind}'", ["attributes.start_time DESC"]
        runs = self.client.search_runs([self.experiment_id], query, max_results=1, order_by=newest)
        return str(runs[0].info.run_id) if runs else None

    def trial_of(self, run_id: str) -> str | None:
        """The number of the trial that a run of this study records, as its tag has it; None: it records none."""
        runs = self.client.search_runs(
            [self.experiment_id], f"attributes.run_id = '{run_id}'" if run_id.isalnum() else "", max_results=1
        )
        found = [run for run in runs if run.info.run_id == run_id]
        tags = found[0].data.tags if found else {}
        # A confirmation repeats a trial on another seed, a promotion speaks of one: neither is the trial.
        return tags.get("harness.trial") if tags.get("harness.kind") == "trial" else None

    def run(
        self, key: str, name: str, tags: dict[str, str], start_ms: int | None = None, *, new: bool = False
    ) -> str:
        """The id of the run of this key, made if it is not there yet (a lost answer must not make it twice).

        Parameters
        ----------
        tags : of the run, also of one that another process made
        start_ms : when it began, in ms since 1970; None: now
        new : nobody ever asked the record's own server for it: it is not looked for
        """
        never_asked = new and self.served is not None
        remembered = self._run_ids.get(key)
        run_id = remembered or (None if never_asked else self.find(key))
        if run_id is None:
            create = partial(self._create_run, key, name, tags, start_ms)
            run_id = create_once(create, partial(self._find_unanswered, key))
            if never_asked and key not in self._answer_lost:
                self._only.add(run_id)
            failpoint("tracking.run_created")
        elif remembered is None:
            self.client.log_batch(run_id, tags=_tags(tags))
        self._run_ids[key] = run_id
        return run_id

    def _create_run(self, key: str, name: str, tags: dict[str, str], start_ms: int | None) -> str:
        parent = {"mlflow.parentRunId": self.parent} if self.parent else {}
        marks = {**{k: v[:MAX_TAG] for k, v in tags.items()}, **parent, "harness.key": key}
        run = self.client.create_run(self.experiment_id, start_time=start_ms, run_name=name, tags=marks)
        made = self._known(run)
        self._made.add(made)
        return made

    def _find_unanswered(self, key: str) -> str | None:
        """Look for the run that a request without an answer may have made; it may also be made later still."""
        self._answer_lost.add(key)
        return self.find(key)

    def store_trial(self, spool: TrialSpool, *, new: bool = False) -> bool:
        """Bring the run of a spooled trial up to date; true when it is complete and ended.

        The order is: artifacts, parameters with new epochs and the verdict, datasets, status. Killed between any two,
        the next call repeats what it cannot know to be there, and MLflow holds it once.

        `new` as in `run`: only whoever began the trial, and hands it over for the first time, may say so.
        """
        verdict = spool.read("verdict")  # before the epochs, all of which are there when it is
        trial = spool.read("trial")
        assert trial is not None, f"{spool.folder} has no trial.json"
        key = trial.get("key") or self.trial_key(trial["number"])  # an ensemble brings its own
        run_id = self.run(key, trial["run_name"], trial["tags"], trial["time_ms"], new=new)
        first = key not in self._described
        if verdict is not None:
            verdict = {**verdict, "tags": {**verdict["tags"], **self._log_outputs(run_id, spool)}}
            failpoint("tracking.artifacts_stored")
        self._log_epochs(key, run_id, spool, trial["params"] if first else {}, verdict)
        failpoint("tracking.epochs_stored")
        if first:
            self._log_datasets(run_id, trial["datasets"])
            if run_id not in self._made:
                self._set_running(run_id)
            self._described.add(key)
            failpoint("tracking.described")
        if verdict is None:
            return False
        if run_id not in self._only:
            self._keep_only(run_id, key)
        self._terminate(run_id, verdict["status"], verdict["time_ms"])
        return True

    def end(
        self,
        run_id: str,
        status: str,
        tags: dict[str, str],
        metrics: dict[str, float],
        time_ms: int | None = None,
    ) -> None:
        """Write the last tags and metrics (at step 0), then the status: FINISHED, KILLED or FAILED.

        The status is last: a run that has ended has everything. `time_ms` is since 1970; None: now.
        """
        time_ms = time_ms or int(time.time() * 1000)
        self._log_rows(run_id, (), _last_metrics(metrics, time_ms), _tags(tags))
        self._terminate(run_id, status, time_ms)

    def _terminate(self, run_id: str, status: str, time_ms: int) -> None:
        failpoint("tracking.tagged")
        self.client.set_terminated(run_id, status=status, end_time=time_ms)
        failpoint("tracking.ended")

    def pause(self, number: int) -> None:
        """Show an interrupted trial's run as waiting (MLflow's SCHEDULED), not as running; without a run: nothing."""
        self.pause_run(self.trial_key(number))

    def pause_run(self, key: str) -> None:
        """Do the same as `pause` for the run of any key."""
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

        inputs = []
        for row in datasets:
            dataset = Dataset(
                row["name"], row["digest"][:36], "harness", row["source"], profile=row["profile"]
            )
            inputs.append(DatasetInput(dataset, tags=[InputTag("mlflow.data.context", row["context"])]))
        self.client.log_inputs(run_id, inputs)

    def _log_epochs(
        self, key: str, run_id: str, spool: TrialSpool, params: dict[str, Any], verdict: dict[str, Any] | None
    ) -> None:
        """Log the parameters, the epochs that are new, and the verdict's metrics and tags."""
        from mlflow.entities import Metric, Param

        events = spool.epochs()
        new = events[self._epochs_stored.get(key, 0) :]
        metrics = [
            Metric(name, value, event["time_ms"], event["epoch"])
            for event in new
            for name, value in sorted(event["metrics"].items())
        ]
        tags = []
        if verdict is not None:
            metrics += _last_metrics(verdict["metrics"], verdict["time_ms"])
            tags = _tags(verdict["tags"])
        rows = [Param(name, str(value)[:MAX_PARAM]) for name, value in sorted(params.items())]
        self._log_rows(run_id, rows, metrics, tags)
        self._epochs_stored[key] = len(events)

    def _log_rows(
        self, run_id: str, params: Sequence[Param], metrics: Sequence[Metric], tags: Sequence[RunTag]
    ) -> None:
        """In as few requests as it takes, the tags in the last."""
        while params or metrics or tags:
            now, params = params[:BATCH_PARAMS], params[BATCH_PARAMS:]
            room = BATCH_ROWS - len(now)
            some, metrics = metrics[:room], metrics[room:]
            last = not (params or metrics) and len(some) + len(tags) <= room
            self.client.log_batch(run_id, params=now, metrics=some, tags=tags if last else [])
            if last:
                return

    def _keep_only(self, run_id: str, key: str) -> None:
        """Remove other runs of this key: a server that stood still made what its client had given up and made again."""
        for run in self.client.search_runs([self.experiment_id], f"tags.`harness.key` = '{key}'"):
            if run.info.run_id != run_id:
                self.client.delete_run(run.info.run_id)

    def _log_outputs(self, run_id: str, spool: TrialSpool) -> dict[str, str]:
        """Store artifacts and images; tags that speak of them."""
        uri = self._artifact_uris.get(run_id)
        folder = folder_of(self.served, uri) if self.served is not None and uri is not None else None
        if folder is None:
            return upload_outputs(self.client, run_id, spool)
        return place_outputs(folder, spool)


def _last_metrics(metrics: dict[str, float], time_ms: int) -> list[Metric]:
    """How a run ended, at step 0."""
    from mlflow.entities import Metric

    return [Metric(name, value, time_ms, 0) for name, value in sorted(metrics.items())]


def _tags(tags: dict[str, str]) -> list[RunTag]:
    from mlflow.entities import RunTag

    return [RunTag(name, str(value)[:MAX_TAG]) for name, value in sorted(tags.items())]
