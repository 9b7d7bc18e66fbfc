"""Laws of the benchmarks of the harness's own cost: stages add up, and the arms do the same work."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sqlalchemy import create_engine, text

from harness.config.trial.training_config import TrainingConfig
from harness.training.fit import Split, fit
from models.networks.cnn import FastDiarizationModel
from models.networks.config import CnnConfig
from tests.benchmarks import b05_packing, b09_tracking
from tests.benchmarks.b01_loop import bare_parameters, sizes
from tests.benchmarks.baselines import bare_loop
from tests.benchmarks.bench_worker import fixed_logits
from tests.benchmarks.scale import FULL, QUICK, Scale
from tests.benchmarks.stage_table import per_trial_ms, stages_ms
from tests.benchmarks.stages import Stages
from tests.benchmarks.transactions import counted

TINY = TrainingConfig(epochs=2, batch_size=8, learning_rate=3e-3, train_score_windows=8)


def busy(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_every_second_is_counted_in_one_stage() -> None:
    stages = Stages()
    start = time.thread_time()
    with stages.stage("outer"):
        busy(0.01)
        with stages.stage("inner"):
            busy(0.02)
    spent = time.thread_time() - start
    taken = stages.taken()
    assert taken["inner"][0] >= 0.02
    assert taken["outer"][0] >= 0.01
    assert taken["outer"][0] + taken["inner"][0] == pytest.approx(spent, abs=0.002)
    assert stages.taken() == {}


def test_a_stage_is_counted_where_its_function_raises() -> None:
    class Owner:
        def work(self) -> None:
            busy(0.005)
            raise ValueError("no")

    stages = Stages()
    stages.watch("work", Owner, "work")
    with pytest.raises(ValueError, match="no"):
        Owner().work()
    assert stages.taken()["work"][0] >= 0.005


def test_a_table_is_in_milliseconds_a_trial_the_largest_first() -> None:
    lines = "\n".join(json.dumps({"a": [0.001, wall], "b": [0.002, 0.004]}) for wall in (0.001, 0.003, 0.5))
    assert stages_ms(lines) == {"b": {"cpu_ms": 2, "wall_ms": 4}, "a": {"cpu_ms": 1, "wall_ms": 3}}
    assert per_trial_ms({"a": (0.01, 0.02)}, 10) == {"a": {"cpu_ms": 1, "wall_ms": 2}}


def windows(count: int) -> tuple[bare_loop.Windows, Split]:
    labels = torch.arange(count) % 2
    features = torch.randn(count, 6, 33, generator=torch.Generator().manual_seed(count))
    return bare_loop.Windows(features, labels), Split(features, labels, ["one"] * count)


def test_the_bare_loop_ends_with_the_weights_of_the_harness() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        (bare_train, train), (bare_val, val) = windows(24), windows(16)
        torch.manual_seed(5)
        model = FastDiarizationModel(6, CnnConfig(width=0.0625), num_frames=33)
        result = fit(model, train, val, TINY, seed=5, device=torch.device("cpu"))
        accuracies, states = bare_loop.train(
            bare_train, bare_val, epochs=2, learning_rate=3e-3, weight_decay=1e-2, warmup_share=0.1,
            batch_size=8, width=0.0625, seed=5, scored=8,
        )  # fmt: skip
    finally:
        torch.set_num_threads(threads)
    assert accuracies == [report.metrics["val/accuracy"] for report in result.reports]
    assert bare_loop.digest(states[result.best_epoch]) == bare_loop.digest(result.best_state)
    assert bare_loop.digest(states[0]) != bare_loop.digest(states[1])


@pytest.mark.parametrize("scale", [FULL, QUICK])
def test_both_arms_of_the_loop_are_given_the_same_training(scale: Scale) -> None:
    given = bare_parameters(sizes(scale)[1])
    assert set(given) == {
        "epochs", "learning_rate", "weight_decay", "warmup_share", "batch_size", "width", "seed", "scored",
    }  # fmt: skip


def test_transactions_that_only_read_are_not_counted(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'store.db'}")

    def run() -> None:
        with engine.begin() as connection:
            connection.execute(text("create table t (x int)"))
        with engine.begin() as connection:
            connection.execute(text("insert into t values (1)"))
            connection.execute(text("update t set x = 2"))
        with engine.begin() as connection:
            connection.execute(text("select * from t"))

    assert counted(run) == 1
    assert counted(lambda: None) == 0
    engine.dispose()


def test_packed_and_serial_trials_must_agree_exactly_and_the_naive_ones_nearly() -> None:
    def arm(*scores: float) -> b05_packing.Packing:
        packing = object.__new__(b05_packing.Packing)
        packing.scores = list(scores)
        return packing

    same = arm(0.5, 0.75)
    b05_packing.require_agreement(same, arm(0.5, 0.75), same, arm(0.55, 0.75))
    with pytest.raises(RuntimeError, match="packed"):
        b05_packing.require_agreement(same, arm(0.5, 0.76), same, same)
    with pytest.raises(RuntimeError, match="threads"):
        b05_packing.require_agreement(same, same, same, arm(0.5, 0.9))


def test_the_rows_of_a_run_are_a_trial_s() -> None:
    rows = b09_tracking.rows_of(3)
    assert rows.points == 3 * len(rows.epochs[0]) == 60
    assert len({json.dumps(epoch) for epoch in rows.epochs}) == 3


def test_logits_of_a_zero_step_trial_are_the_same_everywhere() -> None:
    assert fixed_logits(48).shape == (48, 2)
    assert np.array_equal(fixed_logits(48), fixed_logits(48))
