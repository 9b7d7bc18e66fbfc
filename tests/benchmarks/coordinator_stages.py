"""What the coordinator's process does for a trial, by stage: its own thread and the writer's."""

from __future__ import annotations

from tests.benchmarks.bench_worker import FIGURES
from tests.benchmarks.stages import Stages


def watch_coordinator(stages: Stages) -> None:
    """Count its parts in this process, from now on."""
    from mlflow import MlflowClient
    from optuna.study import Study as OptunaStudy
    from optuna.trial import Trial

    from harness.execution import coordinator
    from harness.execution.executors import local
    from harness.execution.runs import jobs, trial_runs
    from harness.study import ask
    from harness.study.storage import trial_spool
    from harness.tracking import experiment, upload, writer

    for name, owner, attributes in (
        ("ask", ask.TrialAsker, ("next",)),
        ("ask: attributes of the trial", Trial, ("set_user_attr",)),
        ("start, dispatch", trial_runs.TrialRuns, ("_begin_trial", "_run_of")),
        ("start, dispatch", coordinator.Coordinator, ("_start",)),
        ("job, trial.json", jobs.Jobs, ("make",)),
        ("json, spooled", trial_spool.TrialSpool, ("write",)),
        ("wait for workers", local.LocalExecutor, ("poll",)),
        ("epoch: report, prune", trial_runs.TrialRuns, ("epoch_done",)),
        ("told: outcome, verdict", trial_runs.TrialRuns, ("completed",)),
        ("tell", OptunaStudy, ("tell",)),
        ("writer: run, params", experiment.Tracking, ("run",)),
        ("writer: datasets", experiment.Tracking, ("_log_datasets",)),
        ("writer: epochs", experiment.Tracking, ("_log_epochs",)),
        ("writer: artifacts", experiment.Tracking, ("_log_outputs",)),
        (FIGURES, upload, ("_write_image",)),
        ("writer: end", experiment.Tracking, ("end",)),
        ("writer: rest", experiment.Tracking, ("store_trial",)),
        ("writer: spool removed", trial_spool.TrialSpool, ("remove",)),
        ("writer: around", writer.Writer, ("_store",)),
        *(
            (f"request: {call}", MlflowClient, (call,))
            for call in ("create_run", "log_batch", "log_inputs", "get_run", "search_runs", "log_artifacts",
                         "set_terminated", "set_tag")
        ),
    ):  # fmt: skip
        for attribute in attributes:
            stages.watch(name, owner, attribute)
