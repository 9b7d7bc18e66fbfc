"""What stands in the place of a bundle and is none is never deleted; leftovers of other promotions are told apart."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.promotion.finish import foreign_files, require_bundle_folders, require_replaceable
from harness.study.storage.record import Record
from tests.harness.places.registry_record import write_bundle
from tests.harness.places.untrained_study import finished_study, outcome
from tests.harness.places.workplace import run_in_process


def nothing(final: Path) -> None:
    final.parent.mkdir(exist_ok=True)


def file(final: Path) -> None:
    final.write_text("mine")


def dangling(final: Path) -> None:
    final.symlink_to("nowhere")


def linked(final: Path) -> None:
    final.symlink_to(write_bundle(final.with_name("elsewhere"), 1))


def notes(final: Path) -> None:
    final.mkdir()
    (final / "notes.txt").write_text("mine")


def bundle(final: Path) -> None:
    write_bundle(final, 1)


def bundle_and_notes(final: Path) -> None:
    write_bundle(final, 1)
    (final / "golden" / "notes.txt").write_text("mine")


def corpus(final: Path) -> None:
    """Somebody's data with digests of their own."""
    final.mkdir()
    (final / "a.flac").write_text("mine")
    (final / "SHA256SUMS").write_text(f"{'0' * 64}  a.flac\n")


FOREIGN = [
    (file, "is a file", ["told"]),
    (linked, "is a link", ["told"]),
    (dangling, "is a link", ["told"]),
    (notes, "holds notes.txt", ["notes.txt"]),
    (bundle_and_notes, "holds golden/notes.txt", ["golden/notes.txt"]),
    (corpus, "holds SHA256SUMS, a.flac", ["SHA256SUMS", "a.flac"]),
]


@pytest.mark.parametrize("make", [nothing, Path.mkdir, bundle])
def test_a_free_place_an_empty_folder_and_a_bundle_can_be_replaced(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "told")
    assert foreign_files(tmp_path / "told") == []
    require_bundle_folders(tmp_path, "told")


@pytest.mark.parametrize(("make", "told", "files"), FOREIGN)
def test_what_no_promotion_wrote_is_not_replaced(
    make: Callable[[Path], None], told: str, files: list[str], tmp_path: Path
) -> None:
    final = tmp_path / "told"
    make(final)
    assert foreign_files(final) == files
    with pytest.raises(ValueError, match="no promotion wrote") as caught:
        require_replaceable(final)
    assert str(caught.value).startswith(f"{final} {told}, which no promotion wrote")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("mine", "mine/told holds notes.txt, which no promotion wrote"),
        ("file", "'file' is a file"),
        ("file/inside", "the folder of bundles file/inside cannot be made: "),
        ("challenged", "challenged/told.challenger is a file, which no promotion wrote"),
    ],
)
def test_promote_says_so_before_anything_is_started(
    output: str, message: str, record: Record, tmp_path: Path
) -> None:
    finished_study(record, [({"feature": "mfcc", "width": 0.125}, outcome(0.8))])
    (tmp_path / "mine").mkdir()
    notes(tmp_path / "mine" / "told")
    file(tmp_path / "file")
    (tmp_path / "challenged").mkdir()
    file(tmp_path / "challenged" / "told.challenger")
    before = sorted(tmp_path.rglob("*"))
    printed = run_in_process(
        tmp_path, tmp_path / "cache", "promote", "told", "--output", output, "--json", code=2
    )
    assert message in printed
    assert sorted(tmp_path.rglob("*")) == before
    assert not record.server_log.exists()
