"""Row 17: a disk that is full, wherever it is, stops the sweep clearly; with room again the same command goes on."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data.store.content_store import reserve
from harness.core.disk_space import OutOfSpaceError, disk_full_reason
from harness.execution.executors.local import LocalExecutor
from harness.execution.launch import require_free_space
from harness.study.storage.record import Record
from tests.faults.small_study import bare_record, run, spooled_epochs, sweep
from tests.faults.tmpfs import Disk, disk, elsewhere
from tests.harness.places.workplace import SWEEP, Workspace, epochs_spooled, trial_is_stored, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

EPOCHS = 14
LONG = SWEEP.replace("epochs: 5", f"epochs: {EPOCHS}").replace("trials: 3", "trials: 2")
PLACES = ("artifacts", "database", "study", "WAL", "spool")


@contextlib.contextmanager
def on_small_disk(record: Record, place: str, aside: Path) -> Iterator[Disk]:
    """A disk of its own for one place of a record.

    The database and its log (WAL) lie in the record's own folder: there everything else is put elsewhere.
    """
    aside.mkdir()
    with contextlib.ExitStack() as stack:
        if place in ("artifacts", "spool"):
            yield stack.enter_context(disk(getattr(record, place)))
        elif place == "study":
            small = stack.enter_context(disk(aside / "small"))
            stack.enter_context(elsewhere(record.journal, small.folder / record.journal.name))
            yield small
        else:
            small = stack.enter_context(disk(record.root))
            others = [record.artifacts, record.spool, record.locks, record.journal]
            for path in [*others, *([record.database] if place == "WAL" else [])]:
                stack.enter_context(elsewhere(path, aside / path.name))
            yield small


def whole(record: Record, epochs: int) -> list[str]:
    """What is wrong with a record that a full disk met: damage, and epochs that are not there exactly once."""
    query = "select count(*), count(distinct step) from metrics where key = 'val/accuracy' group by run_uuid"
    with contextlib.closing(sqlite3.connect(f"file:{record.database}?mode=ro", uri=True)) as database:
        damage = [row[0] for row in database.execute("pragma integrity_check") if row[0] != "ok"]
        damage += [f"epochs {row}" for row in database.execute(query) if row != (epochs, epochs)]
        running = database.execute("select count(*) from runs where status = 'RUNNING'").fetchone()[0]
    lines = record.journal.read_bytes().splitlines(keepends=True)
    for line in lines:
        with contextlib.suppress(ValueError):
            json.loads(line)
            continue
        damage.append(f"journal: {line[:40]!r}")
    return damage + ([f"{running} running"] if running else [])


def filled(place: Workspace, name: str, small: Disk, rng: random.Random) -> list[str]:
    """Fill the disk while a sweep writes to it, then give the room back; what was not as promised."""
    after = rng.randrange(1, EPOCHS)
    process = place.start("sweep", "tiny.yaml", "--workers", "1")
    try:
        stored = name in ("database", "WAL", "artifacts")  # MLflow's own: it has come up
        wait_for(lambda: (trial_is_stored(place) or not stored) and epochs_spooled(place) >= after, 200)
        small.fill()
        stdout, stderr = process.communicate(timeout=250)
    finally:
        process.kill()
    wrong = [] if process.returncode == 1 else [f"exit code {process.returncode}"]
    if (
        "no space left" not in stderr.lower()
        or "run the same command again" not in stderr
        or "Traceback" in stderr
    ):
        wrong.append(f"said: {stdout[-500:]}{stderr[-1500:]}")
    small.empty()
    place.run("sweep", "tiny.yaml", "--workers", "1", "--quiet")
    states = [trial["state"] for trial in place.json("status", "tiny")["trials"]]
    wrong += [] if states == ["complete"] * 2 else [f"states {states}"]
    return wrong + whole(place.record, EPOCHS)


@pytest.mark.row(17)
def test_a_full_disk_stops_a_sweep_and_room_lets_it_go_on(
    full: bool, seed: int, rng: random.Random, tmp_path: Path, demo_cache: Path,
    new_record: Callable[[Path], Record], measured: Callable[..., None],
) -> None:  # fmt: skip
    if not full:
        pytest.skip("whole sweeps on small disks are run by `make faults`")
    wrong = {}
    for name in PLACES:
        folder = tmp_path / name
        folder.mkdir()
        record = new_record(folder / "mlruns")
        with on_small_disk(record, name, tmp_path / f"{name}.aside") as small:
            wrong[name] = filled(Workspace(folder, demo_cache, LONG), name, small, rng)
    bad = {name: texts for name, texts in wrong.items() if texts}
    measured(
        f"{len(PLACES) - len(bad)} of {len(PLACES)} sweeps stopped clearly, went on and lost nothing "
        f"({', '.join(PLACES)}; seed {seed}){bad or ''}",
        holds=not bad,
    )


def fill_when(condition: Callable[[], bool], small: Disk) -> Callable[[LocalExecutor], None]:
    """Fill the disk at the first poll of an executor at which a condition holds."""

    def watch(executor: LocalExecutor) -> None:
        poll = executor.poll

        def watched(timeout_s: float) -> object:
            if condition():
                small.fill()
            return poll(timeout_s)

        executor.poll = watched  # type: ignore[method-assign, assignment]

    return watch


@pytest.mark.row(17)
@pytest.mark.parametrize("place", ["study", "spool"])
def test_no_trial_fails_for_want_of_space(
    place: str, rng: random.Random, seed: int, tmp_path: Path, demo_cache: Path, measured: Callable[..., None]
) -> None:
    """The coordinator and its workers alone: many times as fast as whole sweeps."""
    record, definition = bare_record(tmp_path), sweep(1, epochs=5)
    record.journal.touch()
    with on_small_disk(record, place, tmp_path / "aside") as small:
        after = rng.randrange(1, 4)
        during = fill_when(
            lambda: sum(len(file.read_bytes().splitlines()) for file in record.spool.rglob("events.jsonl")) >= after,
            small,
        )  # fmt: skip
        with pytest.raises(OSError, match=r"(?i)no space left"):
            run(record, demo_cache, definition, during=during)
        small.empty()
        study, _ = run(record, demo_cache, definition)
        trials = [trial for trial in study.trials() if trial.state != "abandoned"]  # asked for, never begun
        failed = sum(trial.state != "complete" for trial in trials)
        doubled = sum(spooled_epochs(record, trial) != [0, 1, 2, 3, 4] for trial in trials)
    measured(
        f"{place} full after {after} epochs (seed {seed}): {failed} of {len(trials)} trials failed, {doubled} with "
        "epochs lost or doubled",
        holds=failed == 0 and doubled == 0 and len(trials) == 1,
    )


def test_a_launch_that_would_fill_the_disk_is_refused(tmp_path: Path) -> None:
    with disk(tmp_path / "small") as small:
        require_free_space(small.folder, 1e6)
        with pytest.raises(
            OutOfSpaceError, match=r"has 0\.9\d GB free.*needs about 2\.50 GB.*nothing was started"
        ):
            require_free_space(small.folder, 2e9)
        assert disk_full_reason([small.folder], "HTTP 500") is None
        assert disk_full_reason([small.folder], "[Errno 28] No space left on device") is not None
        small.fill()
        assert disk_full_reason([tmp_path, small.folder], "HTTP 500") == f"no space left in {small.folder}"


def test_a_file_with_holes_is_refused_before_it_is_written_to(tmp_path: Path) -> None:
    with disk(tmp_path / "small") as small:
        path = small.folder / "features.npy"
        with path.open("wb") as file:
            file.truncate(10_000_000)
        small.fill()
        with pytest.raises(OSError, match=r"No space left on device: '.*features\.npy'"):
            reserve(path)
        small.empty()
        reserve(path)
        assert path.stat().st_blocks * 512 >= 10_000_000
