"""Fresh seeds as one stack: of an arm, and of arms that differ in rate and decay only."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow.entities import ViewType

from data.preparation.prepare import prepare
from harness.cli.main import cli
from harness.core.files import write_json
from harness.core.seeds import derived_seed
from harness.study.confirmation.conclusion import confirmation_of
from harness.study.storage.record import Record
from harness.study.study import load_study
from harness.training.job import Job
from harness.training.trial import open_device, run_trial
from tests.harness.places.untrained_study import finished_study, outcome

SWEEP = {
    "parameters": {"feature": "mfcc", "width": 0.125, "epochs": 9, "learning_rate": [0.004, 0.005]},
    "baseline": {"learning_rate": 0.004},
    "stack": 4,
}
VALUES = {"feature": "mfcc", "width": 0.125, "epochs": 9}
LOSS = "train/running_loss"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")  # SQLAlchemy, of MLflow
def test_seeds_of_alike_finalists_are_trained_at_once_and_learn_as_each_alone(
    tmp_path: Path, demo_cache: Path, new_record: Callable[[Path], Record]
) -> None:
    record = new_record(tmp_path / "mlruns")
    trials = [
        ({**VALUES, "learning_rate": rate}, outcome(score)) for rate, score in ((0.004, 0.6), (0.005, 0.7))
    ]
    study = finished_study(record, trials, **SWEEP)
    prepared = prepare(study.sweep.data, data_root=None, cache=demo_cache)
    digests = {split: part.manifest.digest for split, part in prepared.splits.items()}
    study.optuna_study.set_user_attr("manifests", {study.sweep.data.digest(): digests})
    place = ("--record", str(record.root), "--cache", str(demo_cache))
    done = CliRunner().invoke(
        cli, ["confirm", "told", "--finalists", "2", "--seeds", "2", "--workers", "1", "--json", *place]
    )
    assert done.exit_code == 0, done.output
    confirmed = confirmation_of(load_study(record, "told"))
    assert confirmed is not None
    found = [one for finalist in confirmed.finalists for one in finalist.replicates]
    assert [one.outcome["stack"] for one in found] == [4] * 4
    logged = losses(record)
    for one in found:
        folder = tmp_path / f"alone-{one.key.replace('/', '-')}"
        write_json(folder / "trial.json", {"run_name": "alone"})
        seed = derived_seed("training", study.sweep.seed, one.replicate)
        job = Job(
            0, dict(one.config), str(prepared.folder), str(folder), str(demo_cache), seed,
            {"run_id": "x", "versions": {}},
        )  # fmt: skip
        alone: list[float] = []

        def end_after_three(epoch: int, metrics: Mapping[str, float], seen: list[float] = alone) -> bool:
            seen.append(metrics[LOSS])
            return len(seen) == 3

        run_trial(job, open_device("cpu"), end_after_three, lambda: False)
        # float32's rounding, which every further epoch multiplies: test_training_stack has the law, in
        # float64. Another rate is off by 0.002 in the first epoch, another seed by 0.005.
        assert logged[one.key][:1] == pytest.approx(alone[:1], abs=5e-4)
        assert logged[one.key][:3] == pytest.approx(alone, abs=0.02)


def losses(record: Record) -> dict[str, list[float]]:
    """The training loss of every epoch, by the key of the run."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(f"sqlite:///{record.database}", "mlflow-artifacts:/")
    (experiment,) = store.search_experiments(filter_string="tags.`harness.study` = 'told'")
    found = {
        run.data.tags["harness.key"]: [
            point.value
            for point in sorted(store.get_metric_history(run.info.run_id, LOSS), key=lambda one: one.step)
        ]
        for run in store.search_runs([experiment.experiment_id], "", ViewType.ACTIVE_ONLY)
    }
    store.engine.dispose()
    return found
