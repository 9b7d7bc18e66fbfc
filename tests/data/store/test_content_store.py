import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from data.store.content_store import MARKER, build_once, is_complete, is_intact


def build(aside):
    (aside / "deep").mkdir()
    (aside / "deep" / "content").write_text("content")


def test_a_folder_is_built_once_even_by_many_at_a_time(tmp_path):
    built = []

    def count(aside):
        built.append(aside)
        build(aside)

    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: build_once(tmp_path / "a" / "folder", count), range(16)))
    assert set(folders) == {tmp_path / "a" / "folder"}
    assert len(built) == 1
    assert is_complete(folders[0])
    assert (folders[0] / "deep" / "content").read_text() == "content"


def test_a_builder_that_fails_leaves_nothing_to_be_found(tmp_path):
    def fail(aside):
        build(aside)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        build_once(tmp_path / "folder", fail)
    assert [path.name for path in tmp_path.iterdir()] == [".folder.lock"]
    assert is_complete(build_once(tmp_path / "folder", build))


def test_a_process_that_dies_half_way_is_built_over(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from data.store.content_store import build_once\n"
        "def build(aside):\n    (aside / 'half').write_text('x'); os._exit(9)\n"
        "build_once(Path(sys.argv[1]), build)"
    )
    folder = tmp_path / "folder"
    child = subprocess.run([sys.executable, "-c", code, str(folder)], check=False)
    assert child.returncode == 9
    assert not folder.exists()
    build_once(folder, build)
    assert is_complete(folder)
    assert not (folder / "half").exists()


@pytest.mark.parametrize("damage", ["cut", "missing", "unmarked"])
def test_a_folder_that_was_copied_badly_is_built_again(tmp_path, damage):
    folder = build_once(tmp_path / "folder", build)
    content = folder / "deep" / "content"
    if damage == "cut":
        content.write_text("cont")
    elif damage == "missing":
        content.unlink()
    else:
        (folder / "complete.json").write_text("{")
    assert not is_complete(folder)
    assert (build_once(folder, build) / "deep" / "content").read_text() == "content"


@pytest.mark.parametrize("place", range(len("content")))
def test_a_flipped_byte_is_found_and_the_folder_is_built_again(tmp_path, place):
    folder = build_once(tmp_path / "folder", build, intact=True)
    assert is_intact(folder)
    content = folder / "deep" / "content"
    flipped = bytearray(content.read_bytes())
    flipped[place] ^= 1
    content.write_bytes(flipped)
    assert is_complete(folder), "its size is the same"
    assert not is_intact(folder)
    assert is_intact(build_once(folder, build, intact=True))
    assert content.read_text() == "content"


def test_a_process_reads_a_file_for_its_digest_once(tmp_path, monkeypatch):
    folder = build_once(tmp_path / "folder", build, intact=True)
    monkeypatch.setattr("hashlib.file_digest", None)
    assert is_intact(folder)


@pytest.mark.parametrize("marker", ["", "[]", "{", '{"deep/content": 7}', '{"deep/content": ["7"]}', "7"])
def test_a_marker_without_digests_proves_nothing(tmp_path, marker):
    folder = build_once(tmp_path / "folder", build)
    (folder / "complete.json").write_text(marker)
    assert not is_intact(folder)


@pytest.mark.parametrize(
    "marker", ["", "[]", "{", '{"a": [1, null]}', '{"a": null}', '{"a": "1"}', '{"../a": [1, ""]}']
)
def test_a_marker_of_another_form_marks_nothing(tmp_path, marker):
    folder = build_once(tmp_path / "x", lambda aside: (aside / "a").write_text("1"))
    (folder / MARKER).write_text(marker)
    assert not is_complete(folder)
