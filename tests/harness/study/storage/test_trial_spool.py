import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.files import write_json
from harness.study.storage.trial_spool import TrialSpool


@pytest.fixture
def spool(tmp_path: Path) -> TrialSpool:
    (tmp_path / "00000").mkdir()
    return TrialSpool(tmp_path / "00000")


def stored(spool: TrialSpool) -> list[tuple[int, dict[str, float]]]:
    return [(event["epoch"], event["metrics"]) for event in spool.epochs()]


def test_epochs_come_back_in_order(spool: TrialSpool) -> None:
    assert spool.epochs() == []
    for epoch in (1, 0, 2):
        spool.append_epoch(epoch, {"score": epoch / 10})
    assert stored(TrialSpool(spool.folder)) == [(0, {"score": 0.0}), (1, {"score": 0.1}), (2, {"score": 0.2})]


def test_an_epoch_is_stored_once_with_its_first_time(spool: TrialSpool) -> None:
    spool.append_epoch(0, {"score": 0.5})
    before = spool.events_file.read_bytes()
    spool.append_epoch(0, {"score": 0.6})
    TrialSpool(spool.folder).append_epoch(0, {"score": 0.7})
    assert spool.events_file.read_bytes() == before


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_torn_line_loses_itself_only(spool: TrialSpool, cut: int) -> None:
    spool.append_epoch(0, {"score": 0.5})
    spool.append_epoch(1, {"score": 0.6})
    whole = spool.events_file.read_bytes()
    first = whole.index(b"\n") + 1
    spool.events_file.write_bytes(whole[: max(first, len(whole) - cut)])
    resumed = TrialSpool(spool.folder)
    resumed.append_epoch(1, {"score": 0.7})
    resumed.append_epoch(2, {"score": 0.8})
    # Only the line's end was lost where the epoch is whole: it counts as stored.
    again = 0.6 if cut == 1 else 0.7
    assert stored(TrialSpool(spool.folder)) == [
        (0, {"score": 0.5}),
        (1, {"score": again}),
        (2, {"score": 0.8}),
    ]


@given(
    tail=st.binary(max_size=40)
    | st.sampled_from(
        [b"5", b"[]", b"null", b'{"epoch": 3}', b'{"epoch": "x", "metrics": {}, "time_ms": 1}', b"\0" * 30]
    )
)
def test_any_rubbish_at_the_end_is_read_past(tmp_path_factory: pytest.TempPathFactory, tail: bytes) -> None:
    spool = TrialSpool(tmp_path_factory.mktemp("spool"))
    spool.append_epoch(0, {"score": 0.5})
    with spool.events_file.open("ab") as file:
        file.write(tail)
    resumed = TrialSpool(spool.folder)
    resumed.append_epoch(1, {"score": 0.6})
    assert stored(TrialSpool(spool.folder)) == [(0, {"score": 0.5}), (1, {"score": 0.6})]


def test_numbers_survive_bit_for_bit(spool: TrialSpool) -> None:
    metrics = {"a": 0.1 + 0.2, "b": 1e-300, "c": float("inf")}
    spool.append_epoch(0, metrics)
    assert stored(spool) == [(0, metrics)]


def test_every_acknowledged_epoch_survives_kill_9(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from harness.study.storage.trial_spool import TrialSpool\n"
        "spool = TrialSpool(Path(sys.argv[1]))\n"
        "for epoch in range(10**6):\n"
        "    spool.append_epoch(epoch, {'score': epoch / 7})\n"
        "    print(epoch, flush=True)\n"
    )
    acknowledged = -1
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        first = child.stdout.readline()  # however long it takes to start
        time.sleep(0.2)
        child.send_signal(signal.SIGKILL)
        heard = [int(line) for line in (first + child.stdout.read()).split("\n") if line.isdigit()]
        child.wait()
        child.stdout.close()
        # The last line heard may itself be torn, the one before it is not.
        acknowledged = max([acknowledged, *heard[:-1]])
        epochs = [event["epoch"] for event in TrialSpool(tmp_path).epochs()]
        assert epochs[: acknowledged + 1] == list(range(acknowledged + 1))
        assert len(set(epochs)) == len(epochs)
    assert acknowledged > 3


# Whole files


def test_a_file_is_absent_old_or_new(spool: TrialSpool) -> None:
    assert spool.read("verdict") is None
    spool.write("verdict", {"status": "FINISHED", "reason": "é"})
    assert spool.read("verdict") == {"status": "FINISHED", "reason": "é"}
    spool.write("verdict", {"status": "FAILED"})
    assert spool.read("verdict") == {"status": "FAILED"}
    assert [path.name for path in spool.folder.iterdir()] == ["verdict.json"]


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"v": 1})
    with pytest.raises(TypeError):
        write_json(path, {"v": object()})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_json(path, {"v": 2})
    assert json.loads(path.read_text()) == {"v": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.recursive(st.integers() | st.text(max_size=5), lambda x: st.lists(x, max_size=3)),
        max_size=4,
    )
)
def test_json_comes_back(tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]) -> None:
    spool = TrialSpool(tmp_path_factory.mktemp("spool"))
    spool.write("outcome", content)
    assert spool.read("outcome") == content


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"rows": [0] * 20_000})
    program = (
        "import sys; from pathlib import Path; from harness.core.files import write_json\n"
        "for k in range(10**6): write_json(Path(sys.argv[1]), {'rows': [k] * 20_000})\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(path)])
    try:
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            rows = json.loads(path.read_text())["rows"]
            assert len(rows) == 20_000
            assert len(set(rows)) == 1
    finally:
        child.kill()
        child.wait()


def test_removing_twice_is_fine(spool: TrialSpool) -> None:
    spool.write("trial", {})
    spool.remove()
    spool.remove()
    assert not spool.folder.exists()
