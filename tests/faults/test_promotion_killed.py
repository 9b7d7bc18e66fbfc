"""Row 8: `promote` and `rollback` killed between any two of their steps; row 7 for what the registry holds.

The points are those of the sources, so that a new one is killed at by the full form without anybody naming it here.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.promotion.bundle.files import SUMS, bundle_digest, names_in
from harness.promotion.bundle.verify import verify
from harness.promotion.finish import has_unfinished_promotion, staging_folder
from harness.promotion.registry.champion import fetch_champion
from harness.promotion.registry.fetch_bundle import fetch_bundle
from harness.promotion.registry.model_versions import (
    CHAMPION,
    VERIFIED,
    champion_of,
    raw_versions,
    version_by_alias,
)
from harness.promotion.rollback import ROLLING_BACK
from harness.study.decisions import decisions_of
from harness.study.study import load_study
from harness.tracking.artifacts import ArtifactError
from harness.tracking.experiment import Tracking, connect
from harness.tracking.server.server import TrackingServer
from tests.harness.places.registry_record import ALIASES, WarmProcess, warm, write_bundle
from tests.harness.places.workplace import Workspace, copied

pytestmark = [pytest.mark.slow]

NAME, STUDY = "pseudo-seen", "tiny"
POINT = re.compile(r'failpoint\("((?:promotion|promote|swap|rollback)\.[^"]+)"\)')
# Each run goes on where the one before it was stopped. Champion, and what is in place, after each; every second is short.
WALK = (
    ("promotion.sealed", "kill", "1", "1"), ("promote.version", "kill", "1", "1"),
    ("promote.verified", "kill", "1", "1"), ("promote.previous", "kill", "1", "1"),
    ("promote.champion", "kill", "2", "1"), ("swap.before", "enospc", "2", "1"), ("swap.after", "kill", "2", "2"),
)  # fmt: skip
WALK_BACK = (("rollback.champion", "kill", "1", "2"),)


def points(root: Path) -> list[str]:
    """Every failpoint of a promotion and of a rollback."""
    sources = sorted((root / "harness").rglob("*.py"))
    return [point for source in sources for point in POINT.findall(source.read_text("utf-8"))]


@dataclass
class Place:
    """A record with its server, the folder of bundles, and the warm process."""

    workplace: Workspace
    uri: str
    client: Any
    children: WarmProcess

    @property
    def output(self) -> Path:
        return self.workplace.folder / "promoted"

    def promotion(self, feature: str, **more: Any) -> dict[str, Any]:
        trials = self.workplace.result["trials"]
        run = str(next(one["number"] for one in trials if one["parameters"]["feature"] == feature))
        return self._order(
            "promote", study=STUDY, run=run, cache=self.workplace.environment["HARNESS_CACHE"], **more
        )

    def rollback(self, **more: Any) -> dict[str, Any]:
        return self._order("rollback", name=NAME, **more)

    def _order(self, do: str, **more: Any) -> dict[str, Any]:
        record = str(self.workplace.record.root)
        return {"do": do, "uri": self.uri, "record": record, "output": str(self.output), **more}

    def stopped(self, order: dict[str, Any], point: str, action: str = "kill") -> None:
        """Carry out an order that must come as far as this point and no further."""
        way = {"failpoint": point, "action": action, "exchange": point != "swap.between"}
        [answer] = self.children({**order, **way})
        assert answer == {"killed": True} if action == "kill" else "error" in answer, (point, answer)

    def sealed_in_place(self) -> bool:
        """Whether there is one; between two renames, where a system cannot exchange names, there is none."""
        return (self.output / STUDY / SUMS).is_file()

    def placed(self) -> str:
        return bundle_digest(self.output / STUDY)

    def champion(self) -> str | None:
        found = champion_of(self.client, NAME)
        return found.version if found else None

    def dangling(self) -> list[str]:
        """Aliases that name no complete, verified version, and places of bundles that hold no whole one."""
        wrong = []
        for alias in ALIASES:
            try:
                named = version_by_alias(self.client, NAME, alias)
                if named is not None and (
                    named.state != VERIFIED or not self.whole(named.run_id, named.bundle_digest)
                ):
                    wrong.append(f"{alias} -> version {named.version}")
            except Exception as error:
                wrong.append(f"{alias}: {error}")
        if self.output.exists():
            placed = [path for path in self.output.iterdir() if not path.name.startswith(".")]
            wrong += [str(path) for path in placed if not verify(path, latency=False).ok]
        return wrong

    def whole(self, run_id: str | None, digest: str | None) -> bool:
        """Whether the server gives a version's bundle as it was sealed, and it does what it did."""
        fetched = self.workplace.folder / "fetched"
        try:
            fetch_bundle(self.client, str(run_id), digest, fetched)
            return verify(fetched, digest, latency=False).ok
        finally:
            shutil.rmtree(fetched, ignore_errors=True)

    def unrest(self, version: str) -> list[str]:
        """What is left of the way to this champion; nothing where it was gone to its end."""
        champion = champion_of(self.client, NAME)
        assert champion is not None
        versions = raw_versions(self.client, NAME)
        experiments = [one.experiment_id for one in self.client.search_experiments()]
        query = "tags.`harness.kind` = 'promotion' and attributes.status = 'RUNNING'"
        asked = {
            f"the champion is {champion.version}": champion.version == version,
            "its bundle is not in place": self.sealed_in_place() and champion.bundle_digest == self.placed(),
            f"{len(versions)} versions": len(versions) == 2,
            "a promotion runs": not self.client.search_runs(experiments, query),
            f"decided: {self.decided()}": self.decided() == [("promoted", "1"), ("promoted", "2")],
            f"in the folder: {sorted(self.output.iterdir())}": [one.name for one in self.output.iterdir()]
            == [STUDY],
            "a version is being left": not any(ROLLING_BACK in one.tags for one in versions),
        }
        return [*(text for text, right in asked.items() if not right), *self.dangling()]

    def openings(self) -> int:
        return len((self.workplace.record.root / "test_openings.jsonl").read_text().splitlines())

    def decided(self) -> list[tuple[str, str | None]]:
        return [(one.verdict, one.version) for one in decisions_of(load_study(self.workplace.record, STUDY))]


@contextmanager
def served(workplace: Workspace, children: WarmProcess) -> Iterator[Place]:
    with TrackingServer(workplace.record) as server:
        yield Place(workplace, server.uri, connect(server.uri), children)


@pytest.fixture(scope="module")
def children(root: Path) -> Iterator[WarmProcess]:
    with warm(root, "harness.promotion.promote") as started:
        yield started


@pytest.fixture(scope="module")
def place(
    swept: Workspace, children: WarmProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """A study whose log_mel trial is the champion, version 1; the mfcc trial is cheaper, and so it wins."""
    with served(copied(swept, tmp_path_factory.mktemp("killed")), children) as found:
        assert found.children.one(found.promotion("log_mel"))["alias"] == CHAMPION
        yield found


@pytest.mark.row(8)
@pytest.mark.timeout(3600)
def test_stopped_on_the_way_and_run_again(place: Place, full: bool, measured: Any, root: Path) -> None:
    """Here a run finds what several others left."""
    walk = WALK if full else WALK[::2]
    assert {point for point, *_ in (*WALK, *WALK_BACK)} <= set(points(root))
    dangling: list[str] = []
    bundles = {"1": place.placed()}
    order, opened = place.promotion("mfcc"), place.openings()
    for point, action, champion, placed in walk:
        place.stopped(order, point, action)
        dangling += [f"{point}: {text}" for text in place.dangling()]
        assert place.champion() == champion, point
        assert (place.placed() == bundles["1"]) == (placed == "1"), point
        assert place.openings() == opened + 1, point  # of the first of these runs
    assert place.children.one(order) == {
        "version": "2",
        "alias": CHAMPION,
        "bundle": str(place.output / STUDY),
    }
    bundles["2"] = place.placed()
    dangling += place.unrest("2")
    assert place.openings() == opened + 1
    for point, action, champion, placed in WALK_BACK:
        place.stopped(place.rollback(), point, action)
        dangling += [f"{point}: {text}" for text in place.dangling()]
        assert (place.champion(), place.placed()) == (champion, bundles[placed]), point
    place.children.one(place.rollback())
    dangling += place.unrest("1")
    count = len(walk) + len(WALK_BACK)
    measured(
        f"stopped {count} times on one way: {len(dangling)} dangling {dangling or ''}".strip(),
        holds=not dangling,
    )


@pytest.mark.row(8)
@pytest.mark.timeout(3600)
def test_killed_at_every_point(
    full: bool, swept: Workspace, children: WarmProcess, tmp_path: Path, measured: Any, root: Path
) -> None:
    """Every point of the sources, each on a copy of a record in which nothing was ever killed."""
    if not full:
        pytest.skip("the full form: HARNESS_FAULTS=full")
    first, second = tmp_path / "first", tmp_path / "second"
    with served(copied(swept, first), children) as place:
        children.one(place.promotion("log_mel"))
    with served(copied(_of(swept, first), second), children) as place:
        children.one(place.promotion("mfcc"))
        assert place.unrest("2") == []
    wrong: list[str] = []
    for point in points(root):
        back = point.startswith("rollback.")
        with served(copied(_of(swept, second if back else first), tmp_path / point), children) as place:
            wrong += [f"{point}: {text}" for text in _killed_at(place, point, back=back)]
        shutil.rmtree(tmp_path / point)
    count = len(points(root))
    measured(
        f"{count} points, each on a fresh copy: {len(wrong)} wrong {wrong or ''}".strip(), holds=not wrong
    )


def _of(swept: Workspace, folder: Path) -> Workspace:
    made = Workspace(folder, Path(swept.environment["HARNESS_CACHE"]))
    made.result = swept.result
    return made


def _killed_at(place: Place, point: str, *, back: bool) -> list[str]:
    """Killed once at a point, then run again: what is wrong in between and at the end."""
    old, new = ("2", "1") if back else ("1", "2")
    order = place.rollback() if back else place.promotion("mfcc")
    place.stopped(order, point)
    wrong = place.dangling()
    if place.champion() not in (old, new):
        wrong.append(f"champion {place.champion()}")
    done = not place.unrest(new)
    [answer] = place.children(order)
    if done:  # then the same command is another one: once more promoted, or nothing to go back to
        return [*wrong, *place.dangling()]
    if "returned" not in answer:
        wrong.append(f"run again: {answer}")
    return [*wrong, *place.unrest(new)]


def altered_in(folder: Path) -> Iterator[tuple[str, str]]:
    """Alter a stored bundle in many ways, one after the other: the way, and the name of its file."""
    for name in sorted(names_in(folder)):
        path = folder / name
        whole = path.read_bytes()
        for way, content in {
            "flipped": whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:],
            "truncated": whole[: len(whole) // 2],
            "removed": None,
        }.items():
            path.unlink()
            if content is not None:
                path.write_bytes(content)
            yield way, name
            path.unlink(missing_ok=True)
            path.write_bytes(whole)
    (folder / "more.bin").write_bytes(b"more")
    yield "added", "more.bin"
    (folder / "more.bin").unlink()


@pytest.mark.row(7)
@pytest.mark.timeout(3600)
def test_what_the_registry_holds_is_refused_when_it_was_altered(
    place: Place, full: bool, measured: Any, tmp_path: Path
) -> None:
    champion = champion_of(place.client, NAME)
    assert champion is not None
    [stored] = place.workplace.record.artifacts.glob(f"*/{champion.run_id}/artifacts/bundle")
    study = load_study(place.workplace.record, STUDY)
    tracking = Tracking(place.client, STUDY, identity=study.identity)
    refused = tried = 0
    for number, (_, name) in enumerate(altered_in(stored)):
        if not full and number % 5:
            continue
        tried += 1
        with pytest.raises(ArtifactError) as caught:
            fetch_champion(tracking, NAME, tmp_path / "champion")
        refused += name in str(caught.value) and not (tmp_path / "champion").exists()
    assert fetch_champion(tracking, NAME, tmp_path / "champion") is not None
    measured(
        f"{refused} of {tried} altered bundles of the registry refused, the file named",
        holds=refused == tried > 5,
    )


def test_what_the_study_of_another_record_left_aside_is_not_finished(place: Place) -> None:
    output = place.workplace.folder / "shared"
    write_bundle(staging_folder(output, STUDY), 1)
    study = load_study(place.workplace.record, STUDY)
    assert not has_unfinished_promotion(study, Tracking(place.client, STUDY, identity=study.identity), output)
    assert list(output.iterdir()) == []
