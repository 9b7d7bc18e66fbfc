"""Registered versions as MLflow holds them: what their tags say, which one an alias names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
# Tags of a version.
STATE = "harness.state"
STUDY = "harness.study"
SOURCE_RUN = "harness.source_run"
# Digest of the windows it was tested on, and of the bundle's SHA256SUMS.
MANIFEST = "harness.test_manifest"
BUNDLE = "harness.bundle_sha256"
MACS = "harness.macs"
# The version that `previous` named when this one became champion.
REPLACES = "harness.replaces"
# Values of STATE: made, read back from the server, left behind by a promotion that was killed.
REGISTERED, VERIFIED, ABANDONED = "registered", "verified", "abandoned"
# What MLflow answers where there is no such model, version or alias.
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model, as its tags tell.

    Attributes
    ----------
    version : its number, as MLflow's text
    run_id, source_run : the promotion run, which holds the bundle, and the run that trained it
    state : `registered`, `verified` or `abandoned`; "" of one from before it was recorded
    manifest : digest of the windows it was tested on
    macs : multiply-accumulates of one window; None where they were not recorded yet
    bundle_digest : sha256 of the bundle's SHA256SUMS; None where it was not recorded yet
    replaces : the version that was champion before this one; None where there was none
    """

    name: str
    version: str
    run_id: str
    source_run: str
    study: str
    state: str
    manifest: str
    macs: int | None
    bundle_digest: str | None
    replaces: str | None

    @property
    def trusted(self) -> bool:
        """Whether an alias may name it: read back from the server, or from before anybody did that."""
        return self.state in (VERIFIED, "")


def champion_of(client: MlflowClient, name: str) -> RegisteredVersion | None:
    """The version that the alias `champion` names; None where there is none."""
    return version_by_alias(client, name, CHAMPION)


def version_by_alias(client: MlflowClient, name: str, alias: str) -> RegisteredVersion | None:
    """The version that an alias names; None where it names none. Any other trouble of the server is raised."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ABSENT:
            return None
        raise
    return _read(client, found)


def versions_of(client: MlflowClient, name: str) -> list[RegisteredVersion]:
    """Every version of a registered model, oldest first."""
    return sorted(
        (_read(client, one) for one in raw_versions(client, name)), key=lambda one: int(one.version)
    )


def raw_versions(client: MlflowClient, name: str) -> list[Any]:
    """Every version as MLflow's own object, tags included, in its order; all pages are read."""
    quoted = name.replace("'", "''")
    found: list[Any] = []
    page = None
    while page != "":
        part = client.search_model_versions(f"name = '{quoted}'", page_token=page)
        found += part
        page = part.token or ""
    return found


def _read(client: MlflowClient, version: Any) -> RegisteredVersion:
    tags, run_id = dict(version.tags), str(version.run_id or "")
    if SOURCE_RUN not in tags and run_id:  # it was written to the promotion run only
        tags = {**client.get_run(run_id).data.tags, STATE: "", **tags}
    return RegisteredVersion(
        name=str(version.name),
        version=str(version.version),
        run_id=run_id,
        source_run=tags.get(SOURCE_RUN, ""),
        study=tags.get(STUDY, ""),
        state=tags.get(STATE, ""),
        manifest=tags.get(MANIFEST, ""),
        macs=int(tags[MACS]) if tags.get(MACS, "").isdecimal() else None,
        bundle_digest=tags.get(BUNDLE) or None,
        replaces=tags.get(REPLACES) or None,
    )
