import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.preparation.prepare import Prepared, load_prepared
from data.store.content_store import MARKER, build_once, is_complete
from data.store.eviction import evict, inventory, select_for_eviction
from data.store.leases import LEASES, build_and_lease, lease_folders, leased_folders, release_all

HOLDER = """\
import sys
from pathlib import Path
from data.store.leases import lease_folders
print(lease_folders(Path(sys.argv[1]), [Path(folder) for folder in sys.argv[2:]]), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def nothing_held() -> Iterator[None]:
    release_all()
    yield
    release_all()


def stored(cache: Path, name: str, num_bytes: int, used_at: int) -> Path:
    folder = build_once(cache / name, lambda aside: (aside / "content").write_bytes(bytes(num_bytes)))
    os.utime(folder / MARKER, (used_at, used_at))
    return folder


def holder(cache: Path, *folders: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(cache), *map(str, folders)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "True\n"
    return child


def names(cache: Path) -> list[str]:
    return [item.path.name for item in inventory(cache)]


def test_what_was_used_longest_ago_goes_first_and_only_as_much_as_must(tmp_path: Path) -> None:
    for at, name in enumerate(["windows/b", "features/a", "windows/c", "variants/0a/d"]):
        stored(tmp_path, name, 1000, at)
    assert names(tmp_path) == ["b", "a", "c", "d"]
    items = inventory(tmp_path)
    total = sum(item.num_bytes for item in items)
    assert select_for_eviction(items, total) == []
    assert [item.path.name for item in select_for_eviction(items, total - 1)] == ["b"]
    assert len(list(evict(tmp_path, select_for_eviction(items, 2500)))) == 2
    assert names(tmp_path) == ["c", "d"]
    assert all(is_complete(item.path) for item in inventory(tmp_path))


def test_using_a_folder_makes_it_the_last_to_go(tmp_path: Path) -> None:
    folders = [stored(tmp_path, f"features/{name}", 10, at) for at, name in enumerate("abc")]
    assert lease_folders(tmp_path, folders[:1])
    release_all()
    assert names(tmp_path) == ["b", "c", "a"]


def test_what_a_living_process_holds_stays_whatever_the_size_and_goes_when_it_was_killed(
    tmp_path: Path,
) -> None:
    mine, its = (stored(tmp_path, f"windows/{name}", 10, 0) for name in ("mine", "its"))
    child = holder(tmp_path, its)
    try:
        items = inventory(tmp_path)
        assert [item.path.name for item in select_for_eviction(items, 0)] == ["mine"]
        assert [item.path.name for item in evict(tmp_path, items)] == ["mine"], "asked to delete both"
        assert is_complete(its)
        assert not mine.exists()
    finally:
        child.kill()
        child.communicate()  # closes its pipes
    assert [item.path.name for item in select_for_eviction(inventory(tmp_path), 0)] == ["its"]
    assert leased_folders(tmp_path) == frozenset()
    assert [path.name for path in (tmp_path / LEASES).iterdir()] == [".lock"], (
        "a dead process's lease is forgotten"
    )


def test_the_lease_of_a_folder_holds_what_lies_in_it(tmp_path: Path) -> None:
    stored(tmp_path, "variants/0a/d", 10, 0)
    lease_folders(tmp_path, [tmp_path / "variants"])
    assert select_for_eviction(inventory(tmp_path), 0) == []


def test_a_folder_that_is_being_built_stays(tmp_path: Path) -> None:
    begun, done = threading.Event(), threading.Event()
    folder = tmp_path / "features" / "x"

    def build(aside: Path) -> None:
        begun.set()
        assert done.wait(30)
        (aside / "content").write_text("x")

    folder.mkdir(parents=True)  # copied badly: it is built again
    builder = threading.Thread(target=build_once, args=(folder, build))
    items = inventory(tmp_path)
    builder.start()
    assert begun.wait(30)
    assert list(evict(tmp_path, items)) == []
    done.set()
    builder.join()
    assert is_complete(folder)


def test_building_and_deleting_at_once_end_with_the_folder_there(tmp_path: Path) -> None:
    folder = tmp_path / "features" / "x"

    def delete() -> None:
        for _ in range(50):
            list(evict(tmp_path, inventory(tmp_path)))

    deleting = threading.Thread(target=delete)
    deleting.start()
    for _ in range(20):
        release_all()
        build_and_lease(tmp_path, folder, lambda aside: (aside / "content").write_text("x"))
        assert is_complete(folder)
    deleting.join()
    assert is_complete(folder)


def test_prepared_data_is_held_by_whoever_loaded_it(prepared: Prepared) -> None:
    cache = prepared.folder.parent.parent
    assert {item.kind for item in inventory(cache)} == {"prepared", "windows"}
    assert all(item.in_use for item in inventory(cache))
    release_all()
    assert len(list(evict(cache, select_for_eviction(inventory(cache), 0)))) == 4
    assert not prepared.folder.exists()
    with pytest.raises(ValueError, match="prepare the data again"):
        load_prepared(prepared.folder)
