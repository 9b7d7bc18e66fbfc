"""`promote` killed at every step of its whole way: the champion and the bundle in place are the old or the new one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts import fetch_bundle
from harness.bundle_files import bundle_digest
from harness.completion import aside_of, unfinished
from harness.decisions import decisions_of
from harness.server import TrackingServer
from harness.study import load_study
from harness.tracking import Tracking, connect
from harness.verify import verify
from harness.versions import CHAMPION, VERIFIED, RegisteredVersion, champion_of, raw_versions, versions_of
from tests.harness.registry_place import Children, warm, write_bundle
from tests.harness.workplace import Workplace, copied

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NAME, STUDY = "pseudo-seen", "tiny"
# In the order of the walk: each run goes on where the one before it was stopped.
BEFORE_THE_CROWN = (
    ("promotion.sealed", "kill"), ("promote.uploaded", "kill"), ("promote.version", "kill"),
    ("promote.read_back", "raise"), ("promote.verified", "kill"), ("promote.challenger", "kill"),
    ("promote.previous", "kill"),
)  # fmt: skip
AFTER_IT = (
    ("promote.champion", "kill"), ("promotion.registered", "kill"), ("promotion.remembered", "kill"),
    ("swap.before", "enospc"), ("swap.before", "kill"), ("swap.after", "kill"),
)  # fmt: skip


@dataclass
class Place:
    """A copy of the sweep, its server, and the warm process."""

    workplace: Workplace
    uri: str
    client: Any
    children: Children

    @property
    def output(self) -> Path:
        return self.workplace.folder / "promoted"

    def order(self, run: str, failpoint: str | None = None, action: str = "kill") -> dict[str, Any]:
        asked = {"failpoint": failpoint, "action": action} if failpoint else {}
        return {
            "do": "promote", "uri": self.uri, "study": STUDY, "run": run, "record": str(self.workplace.record.root),
            "cache": self.workplace.environment["HARNESS_CACHE"], "output": str(self.output), **asked,
        }  # fmt: skip

    def stopped(self, run: str, failpoint: str, action: str) -> None:
        """A promotion that must come as far as this and no further."""
        [answer] = self.children(self.order(run, failpoint, action))
        assert answer == {"killed": True} if action == "kill" else "error" in answer, (failpoint, answer)

    def champion(self) -> RegisteredVersion:
        found = champion_of(self.client, NAME)
        assert found is not None
        return found

    def openings(self) -> int:
        return len((self.workplace.record.root / "test_openings.jsonl").read_text().splitlines())

    def placed(self) -> str:
        """Digest of the bundle in OUTPUT/STUDY, which is whole."""
        assert verify(self.output / STUDY, latency=False).ok
        return bundle_digest(self.output / STUDY)

    def assert_at_rest(self, version: str) -> None:
        """Alias, bundle in place and last decision are of this version; nothing is left of the way there."""
        champion = self.champion()
        assert (champion.version, champion.bundle_digest) == (version, self.placed())
        assert self.decided()[-1] == ("promoted", version)
        assert [one.version for one in versions_of(self.client, NAME) if one.state == VERIFIED][-1] == version
        assert len(raw_versions(self.client, NAME)) == int(version)
        assert self.running() == []
        assert {path.name for path in self.output.iterdir()} <= {STUDY}

    def running(self) -> list[Any]:
        experiments = [one.experiment_id for one in self.client.search_experiments()]
        query = "tags.`harness.kind` = 'promotion' and attributes.status = 'RUNNING'"
        return list(self.client.search_runs(experiments, query))

    def decided(self) -> list[tuple[str, str | None]]:
        return [(one.verdict, one.version) for one in decisions_of(load_study(self.workplace.record, STUDY))]


@pytest.fixture(scope="module")
def place(swept: Workplace, tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Place]:
    workplace = copied(swept, tmp_path_factory.mktemp("killed"))
    with TrackingServer(workplace.record) as server, warm(root, "harness.promotion") as children:
        yield Place(workplace, server.uri, connect(server.uri), children)


def test_what_the_study_of_another_record_left_aside_is_not_finished(place: Place) -> None:
    output = place.workplace.folder / "shared"
    write_bundle(aside_of(output, STUDY), 1)
    study = load_study(place.workplace.record, STUDY)
    assert not unfinished(study, Tracking(place.client, STUDY, identity=study.identity), output)
    assert list(output.iterdir()) == []


def one_of(place: Place, feature: str) -> str:
    trials = place.workplace.result["trials"]
    return str(next(one["number"] for one in trials if one["parameters"]["feature"] == feature))


def test_killed_at_every_step_of_the_way(place: Place, tmp_path: Path) -> None:
    first, second = one_of(place, "log_mel"), one_of(place, "mfcc")  # the second is cheaper, and so it wins
    place.stopped(first, "promotion.opened", "kill")
    assert not (place.output / STUDY).exists()
    assert champion_of(place.client, NAME) is None
    assert place.children.one(place.order(first))["alias"] == CHAMPION
    old, old_bundle = place.champion(), place.placed()
    assert (old.version, old.bundle_digest, place.openings()) == ("1", old_bundle, 2)

    for failpoint, action in (*BEFORE_THE_CROWN, *AFTER_IT):
        place.stopped(second, failpoint, action)
        champion = place.champion()
        assert champion.version == ("2" if (failpoint, action) in AFTER_IT else "1"), failpoint
        assert champion.state == VERIFIED, failpoint
        fetched = tmp_path / f"{failpoint} {action}"
        fetch_bundle(place.client, champion.run_id, champion.bundle_digest, fetched)
        assert verify(fetched, champion.bundle_digest, latency=False).ok, failpoint
        assert place.openings() == 3, failpoint  # of the first run
        assert (place.placed() == old_bundle) == (failpoint != "swap.after"), failpoint

    done = place.children.one(place.order(second))
    assert done == {"version": "2", "alias": CHAMPION, "bundle": str(place.output / STUDY)}
    place.assert_at_rest("2")
    assert place.openings() == 3
    assert place.decided() == [("promoted", "1"), ("promoted", "2")]

    place.stopped(second, "promotion.placed", "kill")  # all is done by then: once more is once more
    place.assert_at_rest("3")
    assert place.openings() == 4
