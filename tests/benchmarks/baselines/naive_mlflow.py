"""Runs logged by MLflow's fluent API: as its tutorials begin, and as its documentation recommends for speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def log_by_value(
    uri: str, params: Mapping[str, str], tags: Mapping[str, str], epochs: Sequence[Mapping[str, float]]
) -> str:
    """Log each parameter, tag and value by a call of its own; the run's id."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("naive")
    with mlflow.start_run() as run:
        for name, value in params.items():
            mlflow.log_param(name, value)
        for name, value in tags.items():
            mlflow.set_tag(name, value)
        for epoch, metrics in enumerate(epochs):
            for name, number in metrics.items():
                mlflow.log_metric(name, number, step=epoch)
    return str(run.info.run_id)


def log_by_epoch(
    uri: str, params: Mapping[str, str], tags: Mapping[str, str], epochs: Sequence[Mapping[str, float]]
) -> str:
    """Log parameters and tags at once, and the values of an epoch at once; the run's id."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("naive")
    with mlflow.start_run() as run:
        mlflow.log_params(dict(params))
        mlflow.set_tags(dict(tags))
        for epoch, metrics in enumerate(epochs):
            mlflow.log_metrics(dict(metrics), step=epoch)
    return str(run.info.run_id)
