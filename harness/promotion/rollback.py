"""Going back: the alias `champion` from the present version to the one before it, checked first.

    place of the bundle looked at, bundle of the target fetched, digests and golden outputs checked
        -> what a killed promotion left aside is given up -> the present version tagged with where this goes
        -> champion := target -> previous := what the target had replaced, or nothing
        -> the bundle into OUTPUT/STUDY -> the version that was left says so, its mark is removed

Killed anywhere, the champion is the old version or the target; the mark makes the same command finish what was
begun instead of going back one version more.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import nearest
from harness.config.sweep import NAME
from harness.core.atomic_swap import replace_folder
from harness.core.errors import InputError
from harness.core.failpoints import failpoint
from harness.core.files import to_share
from harness.promotion.finish import require_output, require_replaceable, staging_folder
from harness.promotion.registry.fetch_bundle import fetch_bundle
from harness.promotion.registry.model_versions import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    RegisteredVersion,
    champion_of,
    raw_versions,
    version_by_alias,
    versions_of,
)
from harness.study.storage.promotion_lock import only_promotion
from harness.study.storage.record import Record
from harness.tracking.artifacts import ArtifactError
from harness.tracking.experiment import MAX_TAG, connect
from harness.tracking.server.server import TrackingServer

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Tags of a version that was left: when and why, and while it is being left, for which version.
ROLLED_BACK = "harness.rolled_back"
ROLLING_BACK = "harness.rolling_back_to"
ASIDE = ".rollback-"


class RollbackError(InputError):
    """There is nothing of this name, or nothing to go back to."""


@dataclass(frozen=True)
class Rollback:
    """What was done, or would be.

    Attributes
    ----------
    version : the one that is champion now
    study : the one that the target was trained in
    left : the version that was champion; None where the target is the champion already
    previous : the version that the alias `previous` names now
    bundle : where the champion's bundle lies now; None in a dry run
    """

    name: str
    left: str | None
    version: str
    previous: str | None
    study: str
    bundle: Path | None
    notes: tuple[str, ...]
    dry_run: bool

    def as_json(self) -> dict[str, Any]:
        """The document that `harness rollback --json` prints."""
        return {
            "registered_name": self.name,
            "version": self.version,
            "rolled_back": self.left,
            "previous": self.previous,
            "study": self.study,
            "bundle": str(self.bundle) if self.bundle else None,
            "notes": list(self.notes),
            "dry_run": self.dry_run,
        }

    def lines(self) -> list[str]:
        """The same for a terminal: champion, alias `previous`, notes, and the bundle's place where it was changed."""
        done = "would be" if self.dry_run else "is"
        from_there = f", version {self.left} was left" if self.left and not self.dry_run else ""
        lines = [f"{self.name}: version {self.version} {done} the champion{from_there}"]
        if self.left is None:
            lines = [f"{self.name}: version {self.version} is the champion already"]
        lines.append(f"alias previous: {f'version {self.previous}' if self.previous else 'none'}")
        lines += [f"note: {note}" for note in self.notes]
        return [*lines, f"bundle: {self.bundle}/"] if self.bundle else lines


def roll_back(
    record: Record, name: str | None, to: str | None, message: str, output: Path, *, dry_run: bool = False
) -> Rollback:
    """Make an earlier version the champion again, under the record's promotion lock.

    Parameters
    ----------
    name : registered model; None for the only one
    to : version; None for the one that the alias `previous` names
    output : folder of bundles; the champion's goes to ``output/STUDY``

    Raises
    ------
    RollbackError
        No such model or version, no champion, or nothing to go back to.
    OutputError
        Something else than a bundle stands in the place of the bundle; nothing was changed.
    ArtifactError
        The target's bundle is not what was promoted, or does not repeat its golden outputs; nothing was changed.
    """
    if not dry_run:
        require_output(output)
    with only_promotion(record, None if dry_run else output), TrackingServer(record) as server, to_share():
        return _roll_back(connect(server.uri), name, to, message, output, dry_run=dry_run)


def _roll_back(
    client: MlflowClient, word: str | None, to: str | None, message: str, output: Path, *, dry_run: bool
) -> Rollback:
    name = model_named(client, word)
    versions = {one.version: one for one in versions_of(client, name)}
    champion = champion_of(client, name)
    if champion is None:
        raise RollbackError(f"{name} has no champion: `harness promote STUDY` makes one")
    left = _unfinished(client, champion, to)
    target = champion if left else _target(client, champion, versions, to)
    previous = _before(target, versions, left or champion.version)
    moves = left or target.version != champion.version
    if not moves:  # it stays, and so does what `previous` names
        kept = version_by_alias(client, name, PREVIOUS)
        previous = kept.version if kept else None
    final = output / _folder_of(target)
    require_replaceable(final)
    if not dry_run:
        for leftover in output.glob(f"{ASIDE}*"):  # of one that was killed
            shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=ASIDE, dir=None if dry_run else output) as scratch:
        notes = _fetch_checked(client, target, Path(scratch) / "bundle")
        failpoint("rollback.checked")
        if not dry_run:
            if moves:
                _give_up(output, versions.values())
                _move(client, champion, target, previous)
            replace_folder(Path(scratch) / "bundle", final)
            failpoint("rollback.bundle")
    if moves and not dry_run:
        _tell(client, name, left or champion.version, target.version, message)
    done = left or (champion.version if moves else None)
    return Rollback(
        name, done, target.version, previous, target.study, None if dry_run else final, tuple(notes), dry_run
    )


def _give_up(output: Path, versions: Iterable[RegisteredVersion]) -> None:
    """Remove sealed bundles of killed promotions: finished later, they would take back what is done here."""
    for study in sorted({one.study for one in versions if NAME.fullmatch(one.study)}):
        shutil.rmtree(staging_folder(output, study), ignore_errors=True)


def _move(
    client: MlflowClient, champion: RegisteredVersion, target: RegisteredVersion, previous: str | None
) -> None:
    name = champion.name
    if champion.version != target.version:
        client.set_model_version_tag(name, champion.version, ROLLING_BACK, target.version)
        failpoint("rollback.marked")
        client.set_registered_model_alias(name, CHAMPION, target.version)
    failpoint("rollback.champion")
    if previous is None:
        client.delete_registered_model_alias(name, PREVIOUS)
    else:
        client.set_registered_model_alias(name, PREVIOUS, previous)
    failpoint("rollback.previous")
    challenger = version_by_alias(client, name, CHALLENGER)
    if challenger is not None and challenger.version == target.version:  # it challenges nobody any more
        client.delete_registered_model_alias(name, CHALLENGER)


def _tell(client: MlflowClient, name: str, left: str, target: str, message: str) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    text = f"{now}, to version {target}" + (f": {message}" if message else "")
    client.set_model_version_tag(name, left, ROLLED_BACK, text[:MAX_TAG])
    failpoint("rollback.told")
    for one in raw_versions(client, name):  # older marks are of rollbacks that something else overtook
        if ROLLING_BACK in one.tags:
            client.delete_model_version_tag(name, one.version, ROLLING_BACK)
    failpoint("rollback.done")


def _unfinished(client: MlflowClient, champion: RegisteredVersion, to: str | None) -> str | None:
    """The version that a killed rollback left for the present champion, if that is where this one goes too."""
    if to not in (None, champion.version):
        return None
    marked = [
        str(one.version)
        for one in raw_versions(client, champion.name)
        if one.tags.get(ROLLING_BACK) == champion.version
    ]
    return marked[0] if marked else None


def _target(
    client: MlflowClient, champion: RegisteredVersion, versions: dict[str, RegisteredVersion], to: str | None
) -> RegisteredVersion:
    if to is None:
        previous = version_by_alias(client, champion.name, PREVIOUS)
        # A promotion that was killed before its last step has `previous` name the champion itself.
        named = previous is not None and previous.version != champion.version
        to = previous.version if previous and named else champion.replaces
    right = [one.version for one in versions.values() if one.trusted and one.version != champion.version]
    listed = f"its other verified versions: {', '.join(reversed(right)) or 'none'}"
    if to is None:
        raise RollbackError(
            f"nothing to roll back to: version {champion.version} of {champion.name} replaced no version; {listed}"
            + (" (choose one with --to VERSION)" if right else "")
        )
    if to not in versions:
        raise RollbackError(f"{champion.name} has no version {to!r}; {listed}")
    if not versions[to].trusted:
        raise RollbackError(
            f"version {to} of {champion.name} was never verified (its promotion did not end): {listed}"
        )
    return versions[to]


def _before(target: RegisteredVersion, versions: dict[str, RegisteredVersion], left: str) -> str | None:
    """What the target had replaced, where it is still there, was verified and is not what is being left.

    Of a challenger that is put forward by hand, which replaced nobody, it is who served until now.
    """
    if target.replaces is None and int(target.version) > int(left):
        return left
    found = versions.get(target.replaces or "")
    return found.version if found is not None and found.trusted and found.version != left else None


def model_named(client: MlflowClient, word: str | None) -> str:
    """The registered model of this name, or the only one; RollbackError where there is none, or several."""
    names = _registered_names(client)
    if not names:
        raise RollbackError("no model is registered in this record: `harness promote STUDY` registers one")
    if word is None:
        if len(names) > 1:
            raise RollbackError(f"several models are registered, name one: {', '.join(names)}")
        return names[0]
    if word in names:
        return word
    near = nearest(word, names)
    hint = f"did you mean {near}?" if near else f"registered are: {', '.join(names)}"
    raise RollbackError(f"no registered model is called {word!r}; {hint}")


def _registered_names(client: MlflowClient) -> Sequence[str]:
    names: list[str] = []
    page = None
    while page != "":
        part = client.search_registered_models(page_token=page)
        names += [str(one.name) for one in part]
        page = part.token or ""
    return sorted(names)


def _folder_of(target: RegisteredVersion) -> str:
    """The study's name; a team's server may hold tags that somebody else wrote."""
    if not NAME.fullmatch(target.study):
        raise RollbackError(
            f"version {target.version} of {target.name} names no study (its tag harness.study is {target.study!r}): "
            "it was not registered by `harness promote`"
        )
    return target.study


def _fetch_checked(client: MlflowClient, target: RegisteredVersion, folder: Path) -> list[str]:
    """Download the target's bundle and ask of it what `harness verify` asks, latency aside; notes on it."""
    from harness.promotion.bundle.verify import verify

    if not target.run_id:
        raise ArtifactError(f"version {target.version} of {target.name} has no promotion run and no bundle")
    fetch_bundle(client, target.run_id, target.bundle_digest, folder)
    if target.bundle_digest is None:
        return [
            f"version {target.version} was registered before bundles were sealed in the registry: its files were "
            "held against its own SHA256SUMS only"
        ]
    checked = verify(folder, target.bundle_digest, latency=False)
    if not checked.ok:
        refused = "; ".join(f"{check.name}: {check.text}" for check in checked.checks if not check.ok)
        raise ArtifactError(
            f"version {target.version} of {target.name} does not do what it did when it was promoted: {refused}; "
            "nothing was changed"
        )
    return list(checked.notes)
