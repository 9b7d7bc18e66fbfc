"""Whatever kills a promotion or a rollback, wherever: the champion is the old version or the new one, whole and verified."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient

from harness.cli.main import cli
from harness.promotion.bundle.files import bundle_digest
from harness.promotion.registry.champion import fetch_champion
from harness.promotion.registry.model_versions import champion_of, raw_versions, versions_of
from harness.study.storage.promotion_lock import PromotionError, only_promotion
from harness.study.storage.record import Record
from harness.tracking.artifacts import ArtifactError
from harness.tracking.experiment import Tracking
from tests.harness.places.registry_record import (
    NAME,
    RegistryRecord,
    altered,
    open_registry,
    proxy,
    source_run,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

STEPS = (
    "run", "uploaded", "logged", "named", "version", "read_back", "verified", "challenger", "ended", "previous",
    "champion", "done",
)  # fmt: skip
BACK, OUTPUT = "pseudo-seen", "promoted"
STEPS_BACK = ("checked", "marked", "champion", "previous", "bundle", "told", "done")


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, new_record: Callable[[Path], Record], root: Path
) -> Iterator[RegistryRecord]:
    folder = tmp_path_factory.mktemp("registry")
    with open_registry(new_record(folder / "mlruns"), root, folder / "bundles") as place:
        yield place


@pytest.fixture(scope="module")
def three(place: RegistryRecord, tmp_path_factory: pytest.TempPathFactory) -> RegistryRecord:
    """Another registered model on the same server: version 3 is the champion, and replaced 2, which replaced 1."""
    three = replace(place, name=BACK, folder=tmp_path_factory.mktemp("three"), made=0)
    for _ in range(3):
        three.promoted()
    assert three.aliases() == ["3", None, "2"]
    return three


@pytest.fixture
def ask(three: RegistryRecord, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", three.uri)
    common = ["--record", str(three.record.root), "--output", str(tmp_path / OUTPUT)]
    return lambda *words, name=BACK: CliRunner().invoke(cli, ["rollback", name, *words, *common])


@pytest.fixture
def back(three: RegistryRecord) -> Iterator[None]:
    """Version 3 is the champion again after the test."""
    yield
    for alias, version in (("champion", "3"), ("previous", "2")):
        three.client.set_registered_model_alias(BACK, alias, version)


def running(client: MlflowClient) -> list[str]:
    experiments = [one.experiment_id for one in client.search_experiments()]
    query = "tags.`harness.kind` = 'promotion' and attributes.status = 'RUNNING'"
    return [run.info.run_id for run in client.search_runs(experiments, query)]


@pytest.mark.parametrize("step", STEPS)
def test_killed_between_any_two_steps(step: str, place: RegistryRecord, tmp_path: Path) -> None:
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


def test_a_killed_promotion_that_is_not_repeated_leaves_an_abandoned_version(place: RegistryRecord) -> None:
    place.children.killed(place.order(seen=place.alias("champion"), failpoint="promote.read_back"))
    [left] = [one for one in versions_of(place.client, NAME) if one.state == "registered"]
    new = place.promoted()
    states = {one.version: one.state for one in versions_of(place.client, NAME)}
    assert (states[left.version], states[new]) == ("abandoned", "verified")
    assert place.client.get_run(left.run_id).info.status == "KILLED"


def test_what_a_version_says(place: RegistryRecord) -> None:
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


def test_one_that_does_not_win_is_the_challenger(place: RegistryRecord) -> None:
    champion, _, previous = place.aliases()
    version = place.promoted(wins=False)
    assert place.aliases() == [champion, version, previous]
    run = place.client.get_run(place.client.get_model_version(NAME, version).run_id)
    assert run.data.tags["harness.state"] == "challenger"
    place.client.delete_registered_model_alias(NAME, "challenger")


def test_the_same_model_again_keeps_the_former_champion(place: RegistryRecord) -> None:
    place.promoted()
    champion, previous = champion_of(place.client, NAME), place.alias("previous")
    assert champion is not None
    version = place.promoted(source=int(champion.source_run, 16))
    assert place.aliases() == [version, None, previous]
    renewed = champion_of(place.client, NAME)
    assert renewed is not None
    assert renewed.replaces == champion.replaces == previous


def test_of_two_promotions_of_a_record_one_is_told(place: RegistryRecord) -> None:
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


def test_of_two_records_on_one_server_the_later_is_told(place: RegistryRecord) -> None:
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


def test_every_first_answer_lost_after_the_commit_makes_one_run_and_one_version(
    place: RegistryRecord,
) -> None:
    seen, before = place.alias("champion"), len(raw_versions(place.client, NAME))
    with proxy(place.uri, lose=True) as lossy:
        version = place.promoted(uri=lossy, study="lossy")
    assert len(raw_versions(place.client, NAME)) == before + 1
    [run] = place.client.search_runs([place.client.get_experiment_by_name("lossy").experiment_id])
    assert (run.info.status, run.data.tags["harness.version"]) == ("FINISHED", version)
    assert place.aliases() == [version, None, seen]


@pytest.mark.parametrize("file", ["evidence.json", "bundle/model.onnx", "artifacts/model.onnx"])
def test_what_the_server_does_not_hold_as_it_was_sealed_gets_no_alias(
    file: str, place: RegistryRecord
) -> None:
    before = place.aliases()
    with proxy(place.uri, spoil=file) as spoiling:
        [answer] = place.children(place.order(seen=before[0], uri=spoiling))
    assert answer["kind"] == "ArtifactError"
    assert Path(file).name in answer["error"]
    assert place.aliases() == before
    newest = versions_of(place.client, NAME)[-1]
    assert (newest.state, place.client.get_run(newest.run_id).info.status) == ("registered", "FAILED")


@pytest.fixture(scope="module")
def tracking(place: RegistryRecord) -> Tracking:
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
    file: str, place: RegistryRecord, tracking: Tracking, tmp_path: Path
) -> None:
    version = str(place.alias("champion"))
    with altered(place.stored(version, file)), pytest.raises(ArtifactError) as caught:
        fetch_champion(tracking, NAME, tmp_path / "bundle")
    assert f"the champion of {NAME}, version {version}, cannot be compared with" in str(caught.value)
    assert f"{file} was altered" in str(caught.value)
    assert f"`harness rollback {NAME}`" in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def tags(three: RegistryRecord, key: str) -> dict[str, str]:
    return {str(one.version): one.tags[key] for one in raw_versions(three.client, BACK) if key in one.tags}


@pytest.mark.usefixtures("back")
@pytest.mark.parametrize("step", STEPS_BACK)
def test_a_rollback_killed_between_any_two_steps(step: str, three: RegistryRecord, tmp_path: Path) -> None:
    order = {
        "do": "rollback", "uri": three.uri, "name": BACK, "record": str(three.record.root),
        "output": str(tmp_path / OUTPUT),
    }  # fmt: skip
    three.children.killed({**order, "failpoint": f"rollback.{step}"})
    three.assert_whole(tmp_path / "killed")
    assert three.alias("champion") == ("3" if step in ("checked", "marked") else "2")
    if step == "done":
        order["to"] = "2"  # it was complete: once more would go back once more
    answer = three.children.one(order)
    assert (answer["version"], answer["previous"]) == ("2", "1")
    assert answer["rolled_back"] == (None if step == "done" else "3")
    assert three.aliases() == ["2", None, "1"]
    assert list(tags(three, "harness.rolled_back")) == ["3"]
    assert tags(three, "harness.rolled_back")["3"].endswith(", to version 2: it drifts")
    assert tags(three, "harness.rolling_back_to") == {}
    champion = champion_of(three.client, BACK)
    assert champion is not None
    assert bundle_digest(tmp_path / OUTPUT / "sweep") == champion.bundle_digest
    assert {path.name for path in (tmp_path / OUTPUT).iterdir()} == {"sweep"}


@pytest.mark.usefixtures("back")
def test_back_to_the_first_and_forth(
    three: RegistryRecord, ask: Callable[..., Result], tmp_path: Path
) -> None:
    aside = (
        tmp_path / OUTPUT / ".sweep.aside"
    )  # of a promotion that was killed: finished later it would undo this
    aside.mkdir(parents=True)
    first = ask("-m", "too eager", "--json")
    assert not aside.exists()
    assert json.loads(first.stdout) == {
        "registered_name": BACK, "version": "2", "rolled_back": "3", "previous": "1", "study": "sweep",
        "bundle": str(tmp_path / OUTPUT / "sweep"), "notes": [], "dry_run": False,
    }  # fmt: skip
    assert ask().exit_code == 0
    assert three.aliases() == ["1", None, None]
    none = ask()
    assert none.exit_code == 2
    assert none.stderr == (
        f"error: nothing to roll back to: version 1 of {BACK} replaced no version; its other verified versions: "
        "3, 2 (choose one with --to VERSION)\n"
    )
    assert ask("--to", "3").exit_code == 0
    assert three.aliases() == ["3", None, "2"]
    again = ask("--to", "3")
    assert again.exit_code == 0
    assert again.stdout.startswith(f"{BACK}: version 3 is the champion already\nalias previous: version 2\n")


def test_a_dry_run_checks_and_changes_nothing(
    three: RegistryRecord, ask: Callable[..., Result], tmp_path: Path
) -> None:
    before = [(one.version, one.tags) for one in raw_versions(three.client, BACK)]
    result = ask("--dry-run")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{BACK}: version 2 would be the champion\n")
    assert three.aliases() == ["3", None, "2"]
    assert before == [(one.version, one.tags) for one in raw_versions(three.client, BACK)]
    assert not (tmp_path / OUTPUT).exists()


def test_an_altered_version_is_no_way_back(
    three: RegistryRecord, ask: Callable[..., Result], tmp_path: Path
) -> None:
    for words in ([], ["--dry-run"]):
        with altered(three.stored("2", "model.onnx")):
            result = ask(*words)
        assert result.exit_code == 1
        assert "model.onnx was altered" in result.stderr
    assert three.aliases() == ["3", None, "2"]
    assert not (tmp_path / OUTPUT).exists()


def test_what_no_promotion_wrote_is_not_replaced(
    three: RegistryRecord, ask: Callable[..., Result], tmp_path: Path
) -> None:
    notes = tmp_path / OUTPUT / "sweep" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    result = ask()
    assert result.exit_code == 2
    assert f"{notes.parent} holds notes.txt, which no promotion wrote" in result.stderr
    assert three.aliases() == ["3", None, "2"]
    assert notes.read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pseudo-sen"], f"no registered model is called 'pseudo-sen'; did you mean {BACK}?"),
        ([BACK, "--to", "9"], f"{BACK} has no version '9'; its other verified versions: 2, 1"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(
    words: list[str], message: str, three: RegistryRecord, ask: Callable[..., Result]
) -> None:
    result = ask(*words[1:], name=words[0])
    assert (result.exit_code, result.stderr) == (2, f"error: {message}\n")
    assert three.alias("champion") == "3"


def test_not_beside_a_promotion(
    three: RegistryRecord, ask: Callable[..., Result], record: Record, tmp_path: Path
) -> None:
    for held, place in ((three.record, None), (record, tmp_path / OUTPUT)):
        with only_promotion(held, place):
            result = ask()
        assert result.exit_code == 1
        assert "another promotion or rollback works on" in result.stderr


@pytest.mark.usefixtures("back")
def test_after_a_promotion_that_was_killed_before_its_last_step(three: RegistryRecord, ask: Any) -> None:
    """`previous` names the champion itself by then; the champion knows what it had replaced."""
    three.client.set_registered_model_alias(BACK, "previous", "3")
    assert ask().exit_code == 0
    assert three.aliases() == ["2", None, "1"]


def test_a_version_that_was_not_verified_is_no_way_back(
    three: RegistryRecord, ask: Callable[..., Result]
) -> None:
    three.children.killed(three.order(seen="3", failpoint="promote.version"))
    result = ask("--to", "4")
    assert result.exit_code == 2
    assert f"version 4 of {BACK} was never verified" in result.stderr
    assert three.alias("champion") == "3"


def test_a_challenger_put_forward_by_hand_can_be_taken_back(
    three: RegistryRecord, ask: Callable[..., Result]
) -> None:
    version = three.promoted(wins=False)
    assert ask("--to", version).exit_code == 0
    assert three.aliases() == [version, None, "3"]
    assert ask().exit_code == 0
    assert three.alias("champion") == "3"
