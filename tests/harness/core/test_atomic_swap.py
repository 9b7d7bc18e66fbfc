"""A folder is put in the place of another in one step: killed or watched at any time, there is one whole folder."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness.core import atomic_swap
from harness.core.atomic_swap import exchange, replace_folder

FILES = ("model.onnx", "card.md", "golden/logits.npy")


def write(folder: Path, generation: str) -> Path:
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(generation)
    return folder


def generation(folder: Path) -> str:
    """What every file of it says; they all say the same."""
    (one,) = {(folder / name).read_text() for name in FILES}
    return one


def without_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic_swap, "exchange", lambda one, other: False)


@pytest.fixture(params=["exchange", "two renames"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    if request.param == "two renames":
        without_exchange(monkeypatch)
    elif not exchange(write(tmp_path / "1", "x"), write(tmp_path / "2", "x")):
        pytest.skip("this file system cannot exchange two names")
    return str(request.param)


def test_the_new_is_there_and_the_old_is_gone(tmp_path: Path, way: str) -> None:
    home = tmp_path / "home"
    for number in "123":
        replace_folder(write(home / ".aside", number), home / "final")
        assert generation(home / "final") == number
        assert [path.name for path in home.iterdir()] == ["final"]


def test_a_link_at_the_place_is_replaced_and_what_it_names_is_left(tmp_path: Path, way: str) -> None:
    home, mine = tmp_path / "home", write(tmp_path / "mine", "0")
    write(home / ".aside", "1")
    (home / "final").symlink_to(mine)
    replace_folder(home / ".aside", home / "final")
    assert generation(home / "final") == "1"
    assert not (home / "final").is_symlink()
    assert generation(mine) == "0"


def test_a_folder_that_is_not_there_leaves_the_old_one(tmp_path: Path) -> None:
    write(tmp_path / "final", "0")
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "nothing", tmp_path / "final")
    assert generation(tmp_path / "final") == "0"


SWAP = """
import sys
from pathlib import Path
from harness.core import atomic_swap
home = Path(sys.argv[1])
if sys.argv[2] == "two renames":
    atomic_swap.exchange = lambda one, other: False
atomic_swap.replace_folder(home / ".aside", home / "final")
"""


@pytest.mark.parametrize("place", ["before", "between", "after"])
def test_killed_anywhere_the_next_swap_finds_one_whole_folder(tmp_path: Path, way: str, place: str) -> None:
    write(tmp_path / "home/final", "old")
    write(tmp_path / "home/.aside", "new")
    environment = {**os.environ, "HARNESS_FAILPOINT": f"swap.{place}:1:kill"}
    done = subprocess.run(
        [sys.executable, "-c", SWAP, str(tmp_path / "home"), way], env=environment, check=False
    )
    passed = way == "exchange" and place == "between"  # there is no such moment
    assert done.returncode == (0 if passed else -9)
    final = tmp_path / "home/final"
    if way == "two renames" and place == "between":
        assert not final.exists()
        atomic_swap._recover(final)
        assert generation(final) == "old"
    assert generation(final) == ("old" if place == "before" or (place == "between" and not passed) else "new")
    replace_folder(write(tmp_path / "home/.next", "next"), final)
    assert generation(final) == "next"


def read_once(final: Path) -> str | None:
    """One generation, as a reader sees it who holds the folder open; None where it was swapped out meanwhile."""
    handle = os.open(final, os.O_RDONLY)  # never fails: there is always a folder of this name
    try:
        seen = set()
        for name in FILES:
            with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=handle)) as file:
                seen.add(file.read())
    except FileNotFoundError:
        assert os.fstat(handle).st_ino != final.stat().st_ino
        return None
    finally:
        os.close(handle)
    (one,) = seen
    return one


def test_a_reader_finds_the_old_or_the_new_at_every_moment(tmp_path: Path) -> None:
    if not exchange(write(tmp_path / "1", "x"), write(tmp_path / "2", "x")):
        pytest.skip("this file system cannot exchange two names")
    home = tmp_path / "home"
    replace_folder(write(home / ".aside", "0"), home / "final")
    failed: list[BaseException] = []
    seen: list[str] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                found = read_once(home / "final")
                seen.extend([found] if found else [])
        except BaseException as error:
            failed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 151):
        replace_folder(write(home / ".aside", str(number)), home / "final")
    done.set()
    reader.join()
    assert not failed, failed
    numbers = [int(one) for one in seen]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) > 10
