"""Going back is one step, checked first, and killed anywhere it can be repeated."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness.bundle_files import bundle_digest
from harness.cli import cli
from harness.promotion_lock import only_promotion
from harness.record import Record
from harness.versions import champion_of, raw_versions
from tests.harness.registry_place import NAME, Place, altered, opened

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

STEPS = ("checked", "marked", "champion", "previous", "bundle", "told", "done")
OUTPUT = "promoted"


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, new_record: Callable[[Path], Record], root: Path
) -> Iterator[Place]:
    """Three versions: 3 is the champion, and replaced 2, which replaced 1."""
    folder = tmp_path_factory.mktemp("rollback")
    with opened(new_record(folder / "mlruns"), root, folder / "bundles") as place:
        place.promoted()
        place.promoted()
        assert place.aliases() == ["3", None, "2"]
        yield place


@pytest.fixture
def ask(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place.uri)
    common = ["--record", str(place.record.root), "--output", str(tmp_path / OUTPUT)]
    return lambda *words: CliRunner().invoke(cli, ["rollback", *words, *common])


@pytest.fixture
def back(place: Place) -> Iterator[None]:
    """Version 3 is the champion again after the test."""
    yield
    for alias, version in (("champion", "3"), ("previous", "2")):
        place.client.set_registered_model_alias(NAME, alias, version)


def tags(place: Place, key: str) -> dict[str, str]:
    return {str(one.version): one.tags[key] for one in raw_versions(place.client, NAME) if key in one.tags}


@pytest.mark.usefixtures("back")
@pytest.mark.parametrize("step", STEPS)
def test_killed_between_any_two_steps(step: str, place: Place, tmp_path: Path) -> None:
    order = {
        "do": "rollback", "uri": place.uri, "record": str(place.record.root), "output": str(tmp_path / OUTPUT)
    }  # fmt: skip
    place.children.killed({**order, "failpoint": f"rollback.{step}"})
    place.assert_whole(tmp_path / "killed")
    assert place.alias("champion") == ("3" if step in ("checked", "marked") else "2")
    if step == "done":
        order["to"] = "2"  # it was complete: once more would go back once more
    answer = place.children.one(order)
    assert (answer["version"], answer["previous"]) == ("2", "1")
    assert answer["rolled_back"] == (None if step == "done" else "3")
    assert place.aliases() == ["2", None, "1"]
    assert list(tags(place, "harness.rolled_back")) == ["3"]
    assert tags(place, "harness.rolled_back")["3"].endswith(", to version 2: it drifts")
    assert tags(place, "harness.rolling_back_to") == {}
    champion = champion_of(place.client, NAME)
    assert champion is not None
    assert bundle_digest(tmp_path / OUTPUT / "sweep") == champion.bundle_digest
    assert [path.name for path in (tmp_path / OUTPUT).iterdir()] == ["sweep"]


@pytest.mark.usefixtures("back")
def test_back_to_the_first_and_forth(place: Place, ask: Callable[..., Result], tmp_path: Path) -> None:
    first = ask("-m", "too eager", "--json")
    assert json.loads(first.stdout) == {
        "registered_name": NAME, "version": "2", "rolled_back": "3", "previous": "1", "study": "sweep",
        "bundle": str(tmp_path / OUTPUT / "sweep"), "notes": [], "dry_run": False,
    }  # fmt: skip
    assert ask(NAME).exit_code == 0
    assert place.aliases() == ["1", None, None]
    none = ask()
    assert none.exit_code == 2
    assert none.stderr == (
        f"error: nothing to roll back to: version 1 of {NAME} replaced no version; its other verified versions: "
        "3, 2 (choose one with --to VERSION)\n"
    )
    assert ask("--to", "3").exit_code == 0
    assert place.aliases() == ["3", None, "2"]
    again = ask("--to", "3")
    assert again.exit_code == 0
    assert again.stdout.startswith(f"{NAME}: version 3 is the champion already\nalias previous: version 2\n")


def test_a_dry_run_checks_and_changes_nothing(
    place: Place, ask: Callable[..., Result], tmp_path: Path
) -> None:
    before = [(one.version, one.tags) for one in raw_versions(place.client, NAME)]
    result = ask("--dry-run")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{NAME}: version 2 would be the champion\n")
    assert place.aliases() == ["3", None, "2"]
    assert before == [(one.version, one.tags) for one in raw_versions(place.client, NAME)]
    assert not (tmp_path / OUTPUT).exists()


def test_an_altered_version_is_no_way_back(place: Place, ask: Callable[..., Result], tmp_path: Path) -> None:
    for words in ([], ["--dry-run"]):
        with altered(place.stored("2", "model.onnx")):
            result = ask(*words)
        assert result.exit_code == 1
        assert "model.onnx was altered" in result.stderr
    assert place.aliases() == ["3", None, "2"]
    assert list((tmp_path / OUTPUT).iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["overlap-anny"], f"no registered model is called 'overlap-anny'; did you mean {NAME}?"),
        (["--to", "9"], f"{NAME} has no version '9'; its other verified versions: 2, 1"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(
    words: list[str], message: str, place: Place, ask: Callable[..., Result]
) -> None:
    result = ask(*words)
    assert (result.exit_code, result.stderr) == (2, f"error: {message}\n")
    assert place.alias("champion") == "3"


def test_not_beside_a_promotion(place: Place, ask: Callable[..., Result]) -> None:
    with only_promotion(place.record):
        result = ask()
    assert result.exit_code == 1
    assert "another promotion or rollback works on" in result.stderr


@pytest.mark.usefixtures("back")
def test_after_a_promotion_that_was_killed_before_its_last_step(place: Place, ask: Any) -> None:
    """`previous` names the champion itself by then; the champion knows what it had replaced."""
    place.client.set_registered_model_alias(NAME, "previous", "3")
    assert ask().exit_code == 0
    assert place.aliases() == ["2", None, "1"]


def test_a_version_that_was_not_verified_is_no_way_back(place: Place, ask: Callable[..., Result]) -> None:
    place.children.killed(place.order(seen="3", failpoint="promote.version"))
    result = ask("--to", "4")
    assert result.exit_code == 2
    assert "version 4 of overlap-any was never verified" in result.stderr
    assert place.alias("champion") == "3"
