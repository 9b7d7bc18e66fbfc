"""Whatever kills a promotion, wherever: the champion is the old version or the new one, whole and verified."""

import http.client
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from mlflow import MlflowClient

from harness.artifacts import ArtifactError
from harness.bundle_files import bundle_digest
from harness.champion import fetch_champion, macs_of
from harness.promotion_lock import PromotionError, only_promotion
from harness.record import Record
from harness.tracking import Tracking
from harness.versions import champion_of, raw_versions, versions_of
from tests.harness.registry_place import NAME, Place, altered, opened, source_run, specification, write_bundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

STEPS = (
    "run", "uploaded", "logged", "named", "version", "read_back", "verified", "challenger", "ended", "previous",
    "champion", "done",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, new_record: Callable[[Path], Record], root: Path
) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("registry")
    with opened(new_record(folder / "mlruns"), root, folder / "bundles") as place:
        yield place


def running(client: MlflowClient) -> list[str]:
    experiments = [one.experiment_id for one in client.search_experiments()]
    query = "tags.`harness.kind` = 'promotion' and attributes.status = 'RUNNING'"
    return [run.info.run_id for run in client.search_runs(experiments, query)]


@pytest.mark.parametrize("step", STEPS)
def test_killed_between_any_two_steps(step: str, place: Place, tmp_path: Path) -> None:
    old, before = place.alias("champion"), place.verified()
    todo = place.order(seen=old)
    place.children.killed({**todo, "failpoint": f"promote.{step}"})
    place.assert_whole(tmp_path / "killed")
    assert (place.alias("champion") != old) == (step in ("champion", "done"))
    new = place.children.one({**todo, "seen": place.alias("champion")})
    assert place.aliases() == [new, None, old]
    assert place.verified() == [*before, new]
    assert running(place.client) == []
    assert {one.state for one in versions_of(place.client, NAME)} <= {"verified", "abandoned"}


def test_a_killed_promotion_that_is_not_repeated_leaves_an_abandoned_version(place: Place) -> None:
    place.children.killed(place.order(seen=place.alias("champion"), failpoint="promote.read_back"))
    [left] = [one for one in versions_of(place.client, NAME) if one.state == "registered"]
    new = place.promoted()
    states = {one.version: one.state for one in versions_of(place.client, NAME)}
    assert (states[left.version], states[new]) == ("abandoned", "verified")
    assert place.client.get_run(left.run_id).info.status == "KILLED"


def test_what_a_version_says(place: Place) -> None:
    old = place.alias("champion")
    version = place.promoted()
    stored = place.client.get_model_version(NAME, version)
    assert stored.tags == {
        "harness.state": "verified", "harness.study": "sweep", "harness.trial": str(place.made),
        "harness.source_run": source_run(place.made), "harness.test_manifest": "d" * 64,
        "harness.bundle_sha256": bundle_digest(place.folder / str(place.made)), "harness.macs": "1000000",
        "confirmed": "unconfirmed", "harness.replaces": old,
    }  # fmt: skip
    run = place.client.get_run(stored.run_id)
    assert (run.info.status, run.data.tags["harness.state"]) == ("FINISHED", "promoted")
    assert run.data.tags["harness.version"] == version
    assert run.data.metrics["test/balanced_accuracy"] == 0.75


def test_one_that_does_not_win_is_the_challenger(place: Place) -> None:
    champion, _, previous = place.aliases()
    version = place.promoted(wins=False)
    assert place.aliases() == [champion, version, previous]
    run = place.client.get_run(place.client.get_model_version(NAME, version).run_id)
    assert run.data.tags["harness.state"] == "challenger"
    place.client.delete_registered_model_alias(NAME, "challenger")


def test_the_same_model_again_keeps_the_former_champion(place: Place) -> None:
    place.promoted()
    champion, previous = champion_of(place.client, NAME), place.alias("previous")
    assert champion is not None
    version = place.promoted(source=int(champion.source_run, 16))
    assert place.aliases() == [version, None, previous]
    renewed = champion_of(place.client, NAME)
    assert renewed is not None
    assert renewed.replaces == champion.replaces == previous


def test_of_two_promotions_of_a_record_one_is_told(place: Place) -> None:
    lock = str(place.record.root)
    orders = [place.order(seen=place.alias("champion"), lock=lock) for _ in range(2)]
    told, won = sorted(place.children(*orders), key=lambda one: "returned" in one)
    assert told["kind"] == "PromotionError"
    assert told["error"].startswith(f"another promotion or rollback works on {lock}")
    assert place.alias("champion") == won["returned"]


def test_the_lock_is_free_again_after_its_block(record: Record) -> None:
    for _ in range(2):
        with (
            only_promotion(record),
            pytest.raises(PromotionError, match="wait for it"),
            only_promotion(record),
        ):
            pass


def test_of_two_records_on_one_server_the_later_is_told(place: Place) -> None:
    seen = place.alias("champion")
    first = place.promoted()
    [answer] = place.children(place.order(seen=seen))
    version = place.alias("challenger")
    assert answer == {
        "kind": "PromotionError",
        "error": f"the champion of {NAME} changed meanwhile (version {first}, not version {seen}): promote again; "
        f"version {version} stays `challenger`",
    }
    assert place.alias("champion") == first
    assert version in place.verified()


@contextmanager
def proxy(uri: str, *, lose: bool = False, spoil: str = "") -> Iterator[str]:
    """A way to the server on which every first answer to a change is lost, or one uploaded file altered."""
    target, lost = urlsplit(uri).netloc, set()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if spoil and self.command == "PUT" and self.path.endswith(spoil):
                body = body[:-1] + bytes([body[-1] ^ 1])
            connection = http.client.HTTPConnection(target, timeout=30)
            headers = {key: value for key, value in self.headers.items() if key.lower() != "host"}
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            content = response.read()
            connection.close()
            place = (self.command, urlsplit(self.path).path)
            if lose and self.command != "GET" and not place[1].endswith("search") and place not in lost:
                lost.add(place)
                self.close_connection = True
                return
            self.send_response(response.status)
            for key, value in response.getheaders():
                if key.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                    self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    between = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=between.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{between.server_port}"
        assert bool(lost) == lose
    finally:
        between.shutdown()
        between.server_close()
        thread.join()


def test_every_first_answer_lost_after_the_commit_makes_one_run_and_one_version(place: Place) -> None:
    seen, before = place.alias("champion"), len(raw_versions(place.client, NAME))
    with proxy(place.uri, lose=True) as lossy:
        version = place.promoted(uri=lossy, study="lossy")
    assert len(raw_versions(place.client, NAME)) == before + 1
    [run] = place.client.search_runs([place.client.get_experiment_by_name("lossy").experiment_id])
    assert (run.info.status, run.data.tags["harness.version"]) == ("FINISHED", version)
    assert place.aliases() == [version, None, seen]


@pytest.mark.parametrize("file", ["evidence.json", "bundle/model.onnx", "artifacts/model.onnx"])
def test_what_the_server_does_not_hold_as_it_was_sealed_gets_no_alias(file: str, place: Place) -> None:
    before = place.aliases()
    with proxy(place.uri, spoil=file) as spoiling:
        [answer] = place.children(place.order(seen=before[0], uri=spoiling))
    assert answer["kind"] == "ArtifactError"
    assert Path(file).name in answer["error"]
    assert place.aliases() == before
    newest = versions_of(place.client, NAME)[-1]
    assert (newest.state, place.client.get_run(newest.run_id).info.status) == ("registered", "FAILED")


@pytest.fixture(scope="module")
def tracking(place: Place) -> Tracking:
    return Tracking(place.client, "sweep", identity="i" * 32)


def test_the_champion_comes_with_its_bundle(tracking: Tracking, tmp_path: Path) -> None:
    champion = fetch_champion(tracking, NAME, tmp_path / "bundle")
    assert champion is not None
    assert champion.model.is_file()
    assert (champion.macs, champion.notes) == (1_000_000, ())
    assert champion.notes_against(champion.specification) == []
    assert fetch_champion(tracking, "no-such-model", tmp_path / "none") is None


@pytest.mark.parametrize("file", ["model.onnx", "golden/logits.npy", "SHA256SUMS"])
def test_a_champion_that_was_altered_on_the_server_is_refused_by_name(
    file: str, place: Place, tracking: Tracking, tmp_path: Path
) -> None:
    version = str(place.alias("champion"))
    with altered(place.stored(version, file)), pytest.raises(ArtifactError) as caught:
        fetch_champion(tracking, NAME, tmp_path / "bundle")
    assert f"the champion of {NAME}, version {version}, cannot be compared with" in str(caught.value)
    assert f"{file} was altered" in str(caught.value)
    assert f"`harness rollback {NAME}`" in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_a_champion_from_before_bundles_were_sealed_is_taken_with_a_note(
    place: Place, tracking: Tracking, tmp_path: Path
) -> None:
    client, name = place.client, "older-model"
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


def test_a_champion_registered_by_hand_cannot_be_compared_with(
    place: Place, tracking: Tracking, tmp_path: Path
) -> None:
    name = "by-hand"
    place.client.create_registered_model(name)
    place.client.create_model_version(name, "s3://models/somewhere")
    place.client.set_registered_model_alias(name, "champion", "1")
    with pytest.raises(ArtifactError, match="registered by hand"):
        fetch_champion(tracking, name, tmp_path / "bundle")
