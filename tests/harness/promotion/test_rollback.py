"""Registered models and versions that somebody else made, read straight from a database: no server is needed."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from harness.promotion.registry.champion import fetch_champion, macs_of
from harness.promotion.rollback import RollbackError, model_named
from harness.study.storage.record import Record
from harness.tracking.artifacts import ArtifactError
from harness.tracking.experiment import Tracking, connect
from tests.harness.places.registry_record import specification, write_bundle

# What MLflow uses of SQLAlchemy is deprecated there, and it leaves its connections open.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def client(
    new_record: Callable[[Path], Record], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MlflowClient]:
    """A client of a record's database; artifacts go into a folder beside it."""
    folder = tmp_path_factory.mktemp("versions")
    with contextlib.chdir(folder):
        yield connect(f"sqlite:///{new_record(folder / 'mlruns').database}")


@pytest.fixture
def tracking(client: MlflowClient) -> Tracking:
    return Tracking(client, "sweep", identity="i" * 32)


def test_the_only_model_need_not_be_named(client: MlflowClient) -> None:
    with pytest.raises(RollbackError, match="no model is registered in this record: `harness promote STUDY`"):
        model_named(client, None)
    client.create_registered_model("overlap-any")
    assert model_named(client, None) == "overlap-any"
    client.create_registered_model("overlap-seen")
    with pytest.raises(
        RollbackError, match="several models are registered, name one: overlap-any, overlap-seen"
    ):
        model_named(client, None)
    assert model_named(client, "overlap-seen") == "overlap-seen"
    with pytest.raises(RollbackError, match="registered are: overlap-any, overlap-seen"):
        model_named(client, "speaker")


def test_a_champion_from_before_bundles_were_sealed_is_taken_with_a_note(
    tracking: Tracking, tmp_path: Path
) -> None:
    client, name = tracking.client, "older-model"
    run = tracking.run(
        "older", "promote trial 0", {"harness.kind": "promotion", "harness.source_run": "f" * 32}
    )
    client.log_artifacts(run, str(write_bundle(tmp_path / "older", 99)), "bundle")
    tracking.end(run, "FINISHED", {}, {})
    client.create_registered_model(name)
    client.create_model_version(name, f"runs:/{run}/bundle", run, tags={"harness.test_manifest": "e" * 64})
    client.set_registered_model_alias(name, "champion", "1")
    champion = fetch_champion(tracking, name, tmp_path / "bundle")
    assert champion is not None
    assert (champion.registered.source_run, champion.registered.trusted) == ("f" * 32, True)
    assert "held against its own SHA256SUMS only" in champion.notes[0]
    assert champion.macs == macs_of(specification(99))


def test_a_champion_registered_by_hand_cannot_be_compared_with(tracking: Tracking, tmp_path: Path) -> None:
    name = "by-hand"
    tracking.client.create_registered_model(name)
    tracking.client.create_model_version(name, "s3://models/somewhere")
    tracking.client.set_registered_model_alias(name, "champion", "1")
    with pytest.raises(ArtifactError, match="registered by hand"):
        fetch_champion(tracking, name, tmp_path / "bundle")
