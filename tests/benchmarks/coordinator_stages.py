"""What the coordinator's process does for a trial, by stage: its own thread and the writer's."""

from __future__ import annotations

from tests.benchmarks.bench_worker import FIGURES
from tests.benchmarks.stages import Stages


def watch_coordinator(stages: Stages) -> None:
    """Count its parts in this process, from now on."""
    from mlflow import MlflowClient
    from optuna.study import Study as OptunaStudy
    from optuna.trial import Trial

    from harness import asking, coordinator, jobs, run_outputs, spool, tracking, writer
    from harness.executors import local

    for name, owner, attributes in (
        ("ask", asking.Asking, ("next",)),
        ("ask: attributes of the trial", Trial, ("set_user_attr",)),
        ("start, dispatch", coordinator.Coordinator, ("_begin", "_dispatch")),
        ("job, trial.json", jobs.Jobs, ("make",)),
        ("json, spooled", spool.TrialSpool, ("write",)),
        ("wait for workers", local.LocalExecutor, ("poll",)),
        ("epoch: report, prune", coordinator.Coordinator, ("_on_epoch",)),
        ("told: outcome, verdict", coordinator.Coordinator, ("_on_done",)),
        ("tell", OptunaStudy, ("tell",)),
        ("writer: run, params", tracking.Tracking, ("run",)),
        ("writer: datasets", tracking.Tracking, ("_log_datasets",)),
        ("writer: epochs", tracking.Tracking, ("_log_epochs",)),
        ("writer: artifacts", tracking.Tracking, ("_log_outputs",)),
        (FIGURES, run_outputs, ("_write_image",)),
        ("writer: end", tracking.Tracking, ("end",)),
        ("writer: rest", tracking.Tracking, ("store_trial",)),
        ("writer: spool removed", spool.TrialSpool, ("remove",)),
        ("writer: around", writer.Writer, ("_store",)),
        *(
            (f"request: {call}", MlflowClient, (call,))
            for call in ("create_run", "log_batch", "log_inputs", "get_run", "search_runs", "log_artifacts",
                         "set_terminated", "set_tag")
        ),
    ):  # fmt: skip
        for attribute in attributes:
            stages.watch(name, owner, attribute)
