"""Outputs of a training put where the record's own server has them."""

import os
from pathlib import Path

import pytest
from PIL import Image

from harness.study.storage.trial_spool import TrialSpool
from harness.tracking import upload
from harness.tracking.upload import LOGGED_IMAGES, folder_of, place_outputs


@pytest.fixture
def spool(tmp_path: Path) -> TrialSpool:
    spool = TrialSpool(tmp_path / "spool" / "00000")
    (spool.artifacts / "model").mkdir(parents=True)
    (spool.artifacts / "model" / "model.onnx").write_bytes(b"\0\1\2")
    (spool.artifacts / "config.json").write_text("{}")
    spool.images.mkdir()
    Image.new("RGBA", (400, 300), "white").save(spool.images / "roc.png")
    return spool


def held(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_outputs_are_placed_once_and_stay_in_the_spool(spool: TrialSpool, tmp_path: Path) -> None:
    before = held(spool.folder)
    assert place_outputs(tmp_path / "run", spool) == {LOGGED_IMAGES: "true"}
    placed = held(tmp_path / "run")
    assert placed["model/model.onnx"] == b"\0\1\2"
    assert sorted(Path(name).suffix for name in placed if name.startswith("images/roc+")) == [".png", ".webp"]
    assert len(placed) == 4
    assert held(spool.folder) == before
    place_outputs(tmp_path / "run", spool)
    assert held(tmp_path / "run") == placed
    spool.remove()
    assert held(tmp_path / "run") == placed


def test_what_was_placed_is_replaced_whole_also_on_another_disk(
    spool: TrialSpool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place_outputs(tmp_path / "run", spool)
    (spool.artifacts / "config.json").unlink()
    (spool.artifacts / "config.json").write_text('{"again": 1}')
    (tmp_path / "run" / ".config.json.part").write_text("torn by a kill")
    place_outputs(tmp_path / "run", spool)
    linked = held(tmp_path / "run")
    assert (linked["config.json"], len(linked)) == (b'{"again": 1}', 4)

    def another_disk(*words: object) -> None:
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(os, "link", another_disk)
    place_outputs(tmp_path / "other", spool)
    assert held(tmp_path / "other") == linked


def test_a_disk_without_room_is_an_error(
    spool: TrialSpool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*words: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(upload.shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        place_outputs(tmp_path / "run", spool)


def test_a_training_without_outputs_leaves_nothing(tmp_path: Path) -> None:
    assert place_outputs(tmp_path / "run", TrialSpool(tmp_path / "empty")) == {}
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("uri", "inside"),
    [
        ("mlflow-artifacts:/1/abc/artifacts", "1/abc/artifacts"),
        ("mlflow-artifacts:/../../etc", None),
        ("mlflow-artifacts:/", None),
        ("mlflow-artifacts://elsewhere/1/abc", "elsewhere/1/abc"),
        ("file:///1/abc", None),
        ("s3://bucket/1", None),
    ],
)
def test_only_what_the_record_serves_is_written(tmp_path: Path, uri: str, inside: str | None) -> None:
    assert folder_of(tmp_path, uri) == (tmp_path / inside if inside else None)
