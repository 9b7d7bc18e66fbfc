import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from data.store.content_store import build_once
from data.store.leases import lease_folders, release_all
from harness.cli.main import cli
from harness.core.format import format_size
from harness.execution.cache_quota import (
    VARIABLE,
    SizeError,
    keep_within_quota,
    lease_features,
    parse_size,
    quota_from_environment,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("512", 512),
        ("20GB", 20 * 10**9),
        ("1.5 tb", 1_500_000_000_000),
        ("2MiB", 2 * 2**20),
        (" 3kB ", 3000),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "much", "-1GB", "1 XB", "GB", "1e9", "nan"])
def test_what_is_no_size_is_refused_with_the_way_to_write_one(text: str) -> None:
    with pytest.raises(SizeError, match="such as 20GB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("num_bytes", "expected"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e9, "2.5 GB"), (3e15, "3000.0 TB")],
)
def test_sizes_are_shown_as_people_read_them(num_bytes: float, expected: str) -> None:
    assert format_size(num_bytes) == expected


def filled(cache: Path) -> list[Path]:
    def build(aside: Path) -> None:
        (aside / "content").write_bytes(bytes(5000))

    return [build_once(cache / "features" / name, build) for name in "abc"]


def test_without_the_variable_nothing_is_deleted_and_with_it_as_much_as_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    folders = filled(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    assert keep_within_quota(tmp_path, said.append) == []
    monkeypatch.setenv(VARIABLE, "11kB")
    lease_folders(tmp_path, folders[:1])
    try:
        assert len(keep_within_quota(tmp_path, said.append)) == 1
        monkeypatch.setenv(VARIABLE, "1kB")
        assert len(keep_within_quota(tmp_path, said.append)) == 1
    finally:
        release_all()
    assert folders[0].is_dir()
    assert "1 folders used longest ago deleted" in said[0]
    assert "are in use, more than the 1.0 kB" in said[-1]


def test_a_size_that_is_none_is_told_with_the_variable_that_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "20 gigs")
    with pytest.raises(SizeError, match=f"{VARIABLE}: '20 gigs' is no size"):
        quota_from_environment()


def test_the_features_of_windows_that_are_held_stay_whoever_comes_to_use_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = filled(tmp_path)
    for folder, digest in zip(folders, ("one", "two", "three"), strict=True):
        (folder / "source.json").write_text(json.dumps({"manifest_digest": digest}), "utf-8")
    monkeypatch.setenv(VARIABLE, "0")
    lease_features(tmp_path, {"one", "three", "of no feature"})
    try:
        keep_within_quota(tmp_path, lambda text: None)
    finally:
        release_all()
    assert [folder.is_dir() for folder in folders] == [True, False, True]


def test_the_command_shows_then_deletes_and_a_dry_run_only_shows(tmp_path: Path) -> None:
    folders = filled(tmp_path)
    words = ["data", "gc", "--cache", str(tmp_path), "--max-size", "6kB"]
    shown = CliRunner().invoke(cli, [*words, "--dry-run"])
    assert shown.exit_code == 0, shown.output
    assert shown.output.count("would delete") == 2
    assert all(folder.is_dir() for folder in folders)
    done = CliRunner().invoke(cli, words)
    assert done.output.count("delete ") == 2
    assert sum(folder.is_dir() for folder in folders) == 1
    listed = CliRunner().invoke(cli, ["data", "gc", "--cache", str(tmp_path)])
    assert "nothing is deleted" in listed.output


def test_a_wrong_size_is_an_error_of_input(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["data", "gc", "--cache", str(tmp_path), "--max-size", "much"])
    assert done.exit_code == 2
