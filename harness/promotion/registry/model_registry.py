"""MLflow's model registry: one registered model a task and variant, its champion under an alias.

    promotion run -> bundle -> model -> version -> all read back, `verified` -> challenger
        -> the champion looked at once more -> previous -> champion

Killed between any two steps, the alias `champion` names the old version or the new one, and an alias never
names a version that was not read back from the server.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.failpoints import failpoint
from harness.core.files import sha256_of
from harness.metrics.intervals import ClusteredInterval
from harness.promotion.bundle.files import MODEL
from harness.promotion.registry.fetch_bundle import fetch_bundle
from harness.promotion.registry.logged_model import logged_model
from harness.promotion.registry.model_versions import (
    ABANDONED,
    BUNDLE,
    CHALLENGER,
    CHAMPION,
    MACS,
    MANIFEST,
    PREVIOUS,
    REGISTERED,
    REPLACES,
    SOURCE_RUN,
    STATE,
    STUDY,
    VERIFIED,
    RegisteredVersion,
    raw_versions,
    version_by_alias,
)
from harness.promotion.registry.model_versions import champion_of as _champion_of
from harness.study.storage.promotion_lock import PromotionError
from harness.tracking.artifacts import ArtifactError
from harness.tracking.create_once import create_once
from harness.tracking.experiment import MAX_TAG, Tracking

# What a promotion run's STATE says at its end.
PROMOTED = "promoted"


@dataclass(frozen=True)
class Registration:
    """A sealed bundle and what the registry is to say about it.

    Attributes
    ----------
    name : the registered model, one a task and variant
    source_run : the MLflow run that trained it
    subject_tags : name the trial or ensemble, on the run and on the version
    bundle, bundle_digest : the folder, and sha256 of its SHA256SUMS
    test : balanced accuracy on the frozen test, with its interval
    manifest : digest of the test windows
    macs : multiply-accumulates of one window
    stamp : `confirmed` or `unconfirmed`
    tags : more for the run, such as the code's version
    """

    name: str
    source_run: str
    study: str
    subject_tags: Mapping[str, str]
    bundle: Path
    bundle_digest: str
    test: ClusteredInterval
    manifest: str
    macs: int
    stamp: str
    tags: Mapping[str, str]


def champion_of(tracking: Tracking, name: str) -> RegisteredVersion | None:
    """The version that holds the alias `champion`, asked of the server now; None where there is none."""
    return _champion_of(tracking.client, name)


def register(tracking: Tracking, new: Registration, *, wins: bool, seen_champion: str | None) -> str:
    """Log the bundle in a promotion run, register it, read it back, and crown it if it wins; its version.

    Call it under `only_promotion`, after `tracking.end_orphans("promotion")`. The same bundle registered again goes
    on where a killed process stopped. MLflow cannot set an alias on a condition: of two records on one server that
    crown within the milliseconds between the last look and the alias, the later one wins unseen.

    Parameters
    ----------
    seen_champion : version of the champion that it was compared with, None where there was none

    Raises
    ------
    PromotionError
        The champion is another one by now; the version stays `challenger`.
    ArtifactError
        What the server holds is not what was uploaded; nothing names the version.
    """
    client = tracking.client
    run_id = _promotion_run(tracking, new)
    try:
        _abandon_orphans(tracking, new.name, run_id)
        failpoint("promote.run")
        version = _verified_version(tracking, run_id, new, wins=wins)
        client.set_registered_model_alias(new.name, CHALLENGER, version)
        failpoint("promote.challenger")
        _end(tracking, run_id, new.test, version)
        failpoint("promote.ended")
    except BaseException as error:
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        with suppress(Exception):  # the server may be what failed
            tracking.end(run_id, status, {STATE: "failed"}, {})
        raise
    if wins:
        _crown(tracking, new, version, seen_champion)
        client.set_tag(run_id, STATE, PROMOTED)
        failpoint("promote.done")
    return version


def _promotion_run(tracking: Tracking, new: Registration) -> str:
    run_id = tracking.run(
        f"{tracking.identity}/promotion/{new.name}/{new.bundle_digest}",
        f"promote {new.name}",
        {
            **new.tags,
            **new.subject_tags,
            "harness.kind": "promotion",
            STUDY: new.study,
            SOURCE_RUN: new.source_run,
            STATE: "running",
        },
    )
    tracking.client.update_run(run_id, status="RUNNING")  # a killed one goes on
    return run_id


def _abandon_orphans(tracking: Tracking, name: str, own: str) -> None:
    """Mark the versions that killed or failed promotions left without having been read back."""
    client = tracking.client
    if not _is_registered(tracking, name):
        return
    for one in raw_versions(client, name):
        if one.tags.get(STATE) != REGISTERED or one.run_id == own:
            continue
        if client.get_run(one.run_id).info.status != "RUNNING":
            client.set_model_version_tag(name, one.version, STATE, ABANDONED)


def _is_registered(tracking: Tracking, name: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        tracking.client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return True


def _verified_version(tracking: Tracking, run_id: str, new: Registration, *, wins: bool) -> str:
    """Upload, register and read back; the version is whole and says so."""
    client = tracking.client
    client.log_artifacts(run_id, str(new.bundle), "bundle")
    failpoint("promote.uploaded")
    uri, model_id = logged_model(tracking, run_id, new.bundle / MODEL)
    failpoint("promote.logged")
    _ensure_registered(tracking, new.name)
    failpoint("promote.named")
    tags = _version_tags(tracking, new, wins=wins)

    def find() -> str | None:
        made = [int(one.version) for one in raw_versions(client, new.name) if one.run_id == run_id]
        return str(min(made)) if made else None

    def create() -> str:
        made = client.create_model_version(new.name, uri, run_id, tags=tags, model_id=model_id)
        return str(made.version)

    version = find() or create_once(create, find)
    failpoint("promote.version")
    _read_back(tracking, run_id, model_id, new)
    failpoint("promote.read_back")
    client.set_model_version_tag(new.name, version, STATE, VERIFIED)
    failpoint("promote.verified")
    return version


def _version_tags(tracking: Tracking, new: Registration, *, wins: bool) -> dict[str, str]:
    champion = champion_of(tracking, new.name)
    replaces = None
    if wins and champion is not None:
        replaces = champion.replaces if champion.source_run == new.source_run else champion.version
    tags = {
        **new.subject_tags,
        STATE: REGISTERED,
        STUDY: new.study,
        SOURCE_RUN: new.source_run,
        MANIFEST: new.manifest,
        BUNDLE: new.bundle_digest,
        MACS: str(new.macs),
        "confirmed": new.stamp,
        **({REPLACES: replaces} if replaces else {}),
    }
    return {key: value[:MAX_TAG] for key, value in tags.items()}


def _ensure_registered(tracking: Tracking, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        tracking.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _read_back(tracking: Tracking, run_id: str, model_id: str, new: Registration) -> None:
    """Hold what the server now gives for the bundle and for the model against what was sealed."""
    import mlflow.artifacts

    with tempfile.TemporaryDirectory(prefix="harness-read-back-") as scratch:
        bundle = fetch_bundle(tracking.client, run_id, new.bundle_digest, Path(scratch) / "bundle")
        served = mlflow.artifacts.download_artifacts(
            artifact_uri=f"{tracking.client.get_logged_model(model_id).artifact_location}/{MODEL}",
            dst_path=scratch,
            tracking_uri=tracking.client.tracking_uri,
        )
        found, sealed = sha256_of(Path(served)), sha256_of(bundle / MODEL)
    if found != sealed:
        raise ArtifactError(
            f"the model that MLflow would serve is not the bundle's {MODEL}: sha256 {found[:16]}, not {sealed[:16]}"
        )


def _end(tracking: Tracking, run_id: str, test: ClusteredInterval, version: str) -> None:
    metrics = {
        "test/balanced_accuracy": test.value,
        "test/low": test.low,
        "test/high": test.high,
        "test/clusters": float(test.clusters),
        "test/windows": float(test.windows),
    }
    tracking.end(run_id, "FINISHED", {STATE: CHALLENGER, "harness.version": version}, metrics)


def _crown(tracking: Tracking, new: Registration, version: str, seen: str | None) -> None:
    client: Any = tracking.client
    champion = champion_of(tracking, new.name)
    present = champion.version if champion else None
    if present != version:  # else a killed promotion came as far as this
        if present != seen:
            raise PromotionError(
                f"the champion of {new.name} changed meanwhile ({_called(present)}, not {_called(seen)}): promote "
                f"again; version {version} stays `challenger`"
            )
        if champion is not None and champion.source_run != new.source_run:
            client.set_registered_model_alias(new.name, PREVIOUS, champion.version)
        failpoint("promote.previous")
        client.set_registered_model_alias(new.name, CHAMPION, version)
    failpoint("promote.champion")
    challenger = version_by_alias(client, new.name, CHALLENGER)
    if challenger is not None and challenger.version == version:
        client.delete_registered_model_alias(new.name, CHALLENGER)


def _called(version: str | None) -> str:
    return f"version {version}" if version else "none"
