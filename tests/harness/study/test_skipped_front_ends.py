"""Sweeps over speaker embeddings: arms without their file are skipped, files that cannot be exported are marked."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from harness.cli.exits import EXIT_REFUSED, exit_code_of
from harness.cli.main import cli
from harness.config.files.sweep_loader import load_sweep
from harness.config.files.yaml_file import SweepError
from harness.config.search_space import SearchSpace
from harness.config.sweep import Sweep
from harness.config.trial.trial_config import TrialConfig
from harness.execution.recovery import reconcile_study
from harness.study.ask import TrialAsker
from harness.study.skipped_front_ends import (
    FrontEndsMissingError,
    skip_unavailable_front_ends,
    skipped_front_ends,
)
from harness.study.storage.record import Record
from harness.study.study import Study, open_study
from models.front_ends.config import XVector
from tests.harness.places.asked_guards import promotable_guard


@pytest.fixture(scope="module")
def net(root: Path) -> ModuleType:
    sys.path.insert(0, str(root / "tests"))
    import embedding_network

    sys.path.remove(str(root / "tests"))
    return embedding_network


@pytest.fixture
def speaker(net: ModuleType, tmp_path: Path) -> dict[str, Any]:
    """A network (untrained: nobody listens here) and the parameters that name it."""
    path = tmp_path / "speaker.onnx"
    return {
        "xvector.path": str(path), "xvector.sha256": net.export(net.Tdnn(), path), "xvector.dim": net.DIM,
    }  # fmt: skip


def sweep(speaker: dict[str, Any], sampler: str = "grid", **parameters: Any) -> Sweep:
    parameters = {"feature": ["mfcc", "xvector"], "epochs": [3, 4], **speaker, **parameters}
    return Sweep.model_validate({"name": "x", "parameters": parameters, "sampler": sampler})


def looked_at(definition: Sweep) -> tuple[SearchSpace, list[str]]:
    """The space as a launch finds it, and what the view was told."""
    space, told = SearchSpace(definition), []
    skip_unavailable_front_ends(space, told.append)
    return space, told


def opened(record: Record, definition: Sweep) -> Study:
    study = open_study(record, definition)
    study.release()
    study.space = looked_at(definition)[0]
    return study


def test_every_file_of_the_space_is_looked_at_and_one_line_says_why_it_is_skipped(
    speaker: dict[str, Any], tmp_path: Path
) -> None:
    definition = sweep(speaker, **{"xvector.windows": ["sliding", "whole"]})
    space, told = looked_at(definition)
    assert [front_end.windows for front_end in space.external_front_ends()] == ["sliding", "whole"]
    assert (told, space.skipped, len(list(space.combinations() or []))) == ([], {}, 6)

    Path(speaker["xvector.path"]).unlink()
    space, told = looked_at(definition)
    (line,) = told
    assert line.startswith(
        f"skipped: xvector (xvector {speaker['xvector.sha256'][:12]}): no embedding file at"
    )
    assert len(space.skipped) == len(skipped_front_ends(space)) == 2
    assert [values["feature"] for values in space.combinations() or []] == ["mfcc", "mfcc"]
    assert {config.feature.kind for config in space.random_configs(20)} == {"mfcc"}
    assert space.sweep.digest() == definition.digest()  # the study stays the same one


def test_only_the_arm_whose_file_is_missing_is_skipped(speaker: dict[str, Any], tmp_path: Path) -> None:
    paths = [speaker["xvector.path"], str(tmp_path / "gone.onnx")]
    space, told = looked_at(sweep({**speaker, "xvector.path": paths}))
    assert len(told) == 1
    assert "gone.onnx" in told[0]
    assert [values.get("xvector.path") for values in space.combinations() or []] == [
        None,
        None,
        *2 * paths[:1],
    ]


def test_a_study_of_nothing_else_is_refused_as_by_the_gate(speaker: dict[str, Any]) -> None:
    Path(speaker["xvector.path"]).write_bytes(b"altered")
    with pytest.raises(
        FrontEndsMissingError, match=r"(?s)no trial was started\n  .*is another file than the stated one"
    ) as e:
        looked_at(sweep(speaker, feature="xvector"))
    assert exit_code_of(e.value) == EXIT_REFUSED


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe"])
def test_a_skipped_arm_costs_no_budget_and_is_trained_once_its_file_is_back(
    speaker: dict[str, Any], record: Record, sampler: str
) -> None:
    from optuna.trial import TrialState

    path = Path(speaker["xvector.path"])
    definition = sweep(speaker, sampler)
    path.rename(path.with_suffix(".away"))

    def run(study: Study) -> list[str]:
        """Ask until the space is exhausted, as a coordinator does."""
        asking, kinds = TrialAsker(study, 1), []
        for trial in study.trials():
            if trial.fingerprint:
                asking.record_fingerprint(trial.fingerprint, trial.number)
        while (asked := asking.next()) is not None:
            trial, values, config = asked
            trial.set_user_attr("values", dict(values))
            trial.set_user_attr("config", config.model_dump(mode="json"))
            trial.set_user_attr("fingerprint", config.fingerprint())
            study.optuna_study.tell(trial, 0.5, state=TrialState.COMPLETE)
            kinds.append(config.feature.kind)
        return kinds

    study = opened(record, definition)
    assert run(study) == ["mfcc", "mfcc"]
    assert study.spent() == 2
    skipped = [trial for trial in study.trials() if trial.state == "skipped"]
    assert all("no embedding file" in trial.reason for trial in skipped)
    assert {trial.state for trial in study.trials()} <= {"complete", "duplicate", "skipped"}
    path.with_suffix(".away").rename(path)
    again = opened(record, definition)
    assert again.resumed
    assert run(again) == ["xvector", "xvector"]
    assert again.spent() == 4


def test_an_interrupted_trial_of_a_skipped_arm_fails_with_the_reason(
    speaker: dict[str, Any], record: Record
) -> None:
    from optuna.trial import TrialState

    definition = sweep(speaker, feature=["xvector", "mfcc"])
    study = opened(record, definition)
    trial, _, config = TrialAsker(study, 1).next() or pytest.fail("nothing is asked")
    assert isinstance(config.feature, XVector)
    trial.set_user_attr("config", config.model_dump(mode="json"))
    trial.set_user_attr("fingerprint", config.fingerprint())
    study.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
    Path(speaker["xvector.path"]).unlink()
    study = opened(record, definition)
    assert len(reconcile_study(study, record)) == 1
    assert reconcile_study(study, record) == []
    (failed,) = study.trials()
    assert failed.state == "failed"
    assert failed.reason.startswith("skipped: no embedding file at")


def test_where_a_file_lies_is_no_part_of_a_configuration() -> None:
    there, here = (
        TrialConfig(feature=XVector(path=path, sha256=64 * "0")) for path in ("/there/e.onnx", "e.onnx")
    )
    assert there.fingerprint() == here.fingerprint()
    assert there.fingerprint() != TrialConfig(feature=XVector(path="e.onnx", sha256=64 * "1")).fingerprint()


def test_a_sweep_file_must_name_the_file_and_its_digest(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(
        "name: x\nparameters: {feature: [mfcc, xvector], xvector.path: e.onnx}\n"
    )
    with pytest.raises(
        SweepError, match=r"parameters\.xvector\.sha256: is required where feature is xvector"
    ):
        load_sweep(tmp_path / "x.yaml")


def test_the_guard_of_promotion_knows_trials_of_before() -> None:
    assert promotable_guard({}).ok
    assert promotable_guard({"promotable": "yes"}).ok
    refused = promotable_guard({"promotable": "no: batch 1"})
    assert (refused.ok, refused.level) == (False, "integrity")
    assert "no: batch 1" in str(refused)


SWEEP = """\
name: x
data: {corpus: demo, subset: clean, task: pseudo, variant: seen, train_windows: 240, val_windows: 96, test_windows: 96}
parameters:
  feature: xvector
  xvector.path: [one.onnx, gone.onnx]
  xvector.sha256: DIGEST
  xvector.dim: 32
  xvector.windows: whole
  width: 0.125
  epochs: 3
sampler: grid
pruner: none
budget: {trials: 2}
workers: 1
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_network_that_cannot_be_exported_is_compared_and_not_promoted(
    net: ModuleType,
    tmp_path: Path,
    demo_cache: Path,
    new_record: Callable[[Path], Record],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    new_record(tmp_path / "mlruns")
    digest = net.export(net.trained(), tmp_path / "one.onnx", batch=False)
    (tmp_path / "x.yaml").write_text(SWEEP.replace("DIGEST", digest))

    done = subprocess.run(
        [sys.executable, "-P", "-m", "harness.cli.main", "sweep", "x.yaml", "--json"], cwd=tmp_path, capture_output=True,
        text=True, check=False, env={**os.environ, "HARNESS_CACHE": str(demo_cache), "NO_COLOR": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["exhausted"]
    assert result["spent"] == 1
    assert [trial["state"] for trial in result["trials"] if trial["state"] != "skipped"] == ["complete"]
    (skipped,) = result["skipped"]
    assert (skipped["feature"], skipped["path"]) == ("xvector", "gone.onnx")
    assert "no embedding file at gone.onnx" in skipped["reason"]

    with sqlite3.connect(tmp_path / "mlruns" / "mlflow.db") as database:
        rows = database.execute("SELECT key, value FROM tags WHERE key LIKE 'harness.%'").fetchall()
    database.close()
    tags = dict(rows)
    assert tags["harness.external_data"] == f"xvector {digest[:12]}"
    assert tags["harness.promotable"].startswith(
        "no: the embedding network one.onnx takes one window at a time"
    )
    assert "gone.onnx" in tags["harness.skipped"]

    monkeypatch.chdir(tmp_path)
    refusal = CliRunner().invoke(cli, ["promote", "x", "--json"])
    assert refusal.exit_code == EXIT_REFUSED
    refused = json.loads(refusal.stdout)
    assert "takes one window at a time" in refused["error"]
    assert "nothing was changed" in refused["error"]
    assert not (tmp_path / "promoted").exists()
