import errno
import io
import os
import subprocess
import sys
import threading
from typing import Any

import pytest
from rich.console import Console

from harness.cli.live_view import BrokenPipeSafeStream, LiveView, PlainView, SweepProgress, open_view
from harness.execution.view import View

METRICS = {"val/balanced_accuracy": 0.7, "gap": 0.1, "score": 0.7, "windows_per_s": 9.0}


class Dead(io.StringIO):
    """A terminal that went away."""

    attempts = 0

    def write(self, text: str) -> int:
        self.attempts += 1
        raise OSError(errno.EIO, "Input/output error")


def walk(view: View) -> None:
    view.message("hello")
    view.begin("study", 3, 1, (0, 0.9))
    view.started(1, "001 mfcc", 4, 2)
    view.epoch(1, 2, METRICS)
    view.finished(1, "complete", 0.8, "")
    view.started(2, "002 mfcc", 4)
    view.finished(2, "failed", None, "diverged")
    view.leave()
    view.close()


def live(stream: Any) -> LiveView:
    return LiveView(Console(file=BrokenPipeSafeStream(stream), force_terminal=True, width=100, height=12))  # type: ignore[arg-type]


def test_a_quiet_view_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    walk(open_view(quiet=True))
    assert capsys.readouterr().out == ""


def test_a_plain_view_counts_earlier_launches() -> None:
    stream = io.StringIO()
    walk(PlainView(stream))
    assert stream.getvalue().splitlines() == [
        "hello",
        "study study: 3 trials, 1 done, best 0.900 (trial 0)",
        "trial   1 resumed    001 mfcc (2 of 4 epochs done)",
        "trial   1 complete   score 0.800  best 0.900 (trial 0)  2/3  about 1 s left",
        "trial   2 started    002 mfcc",
        "trial   2 failed      (diverged)  best 0.900 (trial 0)  3/3",
    ]


def test_a_live_view_counts_earlier_launches() -> None:
    stream = io.StringIO()
    walk(live(stream))
    assert "best 0.900 (trial 0)" in stream.getvalue()
    assert "trial 2 failed: diverged" in stream.getvalue()


def test_a_narrow_terminal_cuts_names_and_no_numbers() -> None:
    stream = io.StringIO()
    view = LiveView(Console(file=stream, force_terminal=True, width=80, height=12))
    view.begin("study", 3, 0)
    view.started(1, "001 mfcc learning_rate=0.003 width=0.125", 10)
    view.epoch(1, 2, METRICS)
    view.close()
    assert "0.700  0.100  0.700" in stream.getvalue()
    assert "learning" in stream.getvalue()
    assert "…" in stream.getvalue()


def test_the_best_is_the_first_of_equals_and_may_be_zero() -> None:
    view = PlainView(io.StringIO())
    view.begin("study", 9, 0)
    assert view.progress.best is None
    for number, score in ((3, 0.0), (5, 0.5), (4, 0.5)):
        view.started(number, "", 1)
        view.finished(number, "complete", score, "")
        if number == 3:
            assert view.progress.best == (3, 0.0)
    assert view.progress.best == (4, 0.5)
    view.begin("study", 9, 3, (1, 0.5))
    assert view.progress.best == (1, 0.5)


def test_epochs_of_earlier_launches_are_not_this_ones_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    view = PlainView(io.StringIO())
    view.progress = SweepProgress("study", total=2, spent=0, began=0.0)
    view.started(0, "", 4, 2)
    assert view.progress.time_left_s() is None
    now[0] = 10.0
    view.epoch(0, 2, METRICS)  # a quarter of a trial in 10 s; of two trials 1.25 are left
    assert view.progress.time_left_s() == pytest.approx(50.0)
    view.epoch(0, 3, METRICS)
    view.finished(0, "complete", 0.7, "")
    assert view.progress.time_left_s() == pytest.approx(20.0)


@pytest.mark.parametrize("make", [PlainView, live])
def test_a_dead_terminal_is_tried_once_and_raises_nothing(make: Any) -> None:
    dead = Dead()
    walk(make(dead))
    assert dead.attempts == 1


def test_a_stream_without_unicode_gets_something_readable() -> None:
    raw = io.BytesIO()
    stream = BrokenPipeSafeStream(io.TextIOWrapper(raw, "utf-8", write_through=True))
    stream.write("\udcff.wav")
    assert raw.getvalue() == b"\\udcff.wav"


def test_a_closed_pipe_changes_no_exit_code() -> None:
    program = (
        "from harness.cli.live_view import open_view\n"
        "view = open_view(quiet=False)\n"
        "for _ in range(9): view.message('x')\n"
        "print('the end')\n"
    )
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_table_is_drawn_while_trials_come() -> None:
    view = live(io.StringIO())
    view.begin("study", 4000, 0)
    stop = threading.Event()
    errors: list[Exception] = []

    def draw() -> None:
        try:
            while not stop.is_set():
                view.progress.time_left_s()
                view._shown()
        except Exception as error:
            errors.append(error)

    drawing = threading.Thread(target=draw)
    drawing.start()
    for number in range(3000):
        view.started(number, f"{number:03} mfcc", 2)
        view.finished(number, "complete", 0.5, "")
    stop.set()
    drawing.join()
    view.close()
    assert errors == []


def test_leaving_shows_the_cursor_again() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, os.fdopen(reading, "rb") as other:
        view = live(stream)
        view.leave()  # before there is a table there is nothing to give back
        view.begin("study", 1, 0)
        view.leave()
        written = other.read1(65_536)
        assert b"\x1b[?25l" in written
        assert written.endswith(b"\x1b[?25h\n")
        view.close()
