"""The views of a running sweep: a table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from harness.core.format import format_duration
from harness.execution.view import View

if TYPE_CHECKING:
    from rich.live import Live


@dataclass
class _Row:
    name: str
    epochs: int
    state: str = "running"
    start: int = 0  # epochs of earlier launches
    done: int = 0
    score: float | None = None
    val: float | None = None
    gap: float | None = None


@dataclass
class SweepProgress:
    """What both views know: the trials of this launch, the best so far, the time left.

    Attributes
    ----------
    total, spent : the budget in trials, and how much of it is used, earlier launches included
    earlier : number and score of the best complete trial of earlier launches; None where there is none
    rows : trial number -> what is shown of it
    began : `time.monotonic()` at the start of this launch, in seconds
    ended_here : trials that ended in this launch, each less the share of its epochs that earlier ones had trained

    One thread draws while another writes: both come to the rows through `put` and `shown`, under one lock.
    The lock may be taken again by its holder, so that a signal handler of the writing thread cannot hang.
    """

    study: str = ""
    total: int = 0
    spent: int = 0
    earlier: tuple[int, float] | None = None
    rows: dict[int, _Row] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    began: float = field(default_factory=time.monotonic)
    ended_here: float = 0.0

    def put(self, number: int, row: _Row) -> _Row:
        """Add the row of a trial, or replace it where it is started again; the row."""
        with self.lock:
            self.rows[number] = row
        return row

    def shown(self) -> list[tuple[int, _Row]]:
        """Every trial's number and row at this moment (a plain `list(...)` may be interrupted half way)."""
        with self.lock:
            return list(self.rows.items())

    @property
    def best(self) -> tuple[int, float] | None:
        """Number and score of the best complete trial, earlier launches included; of equals the first."""
        scores = [
            (number, row.score)
            for number, row in self.shown()
            if row.state == "complete" and row.score is not None
        ]
        scores += [self.earlier] if self.earlier is not None else []
        return max(scores, key=lambda one: (one[1], -one[0]), default=None)

    def time_left_s(self) -> float | None:
        """Seconds that are left at the pace of this launch; None until it has done a quarter of a trial.

        Work is counted in trials, of a running one the share of its epochs. Epochs of earlier launches took no time
        here, and are not part of the pace::

            left = (total - spent - shares of running trials) * elapsed / worked
        """
        running = [row for _, row in self.shown() if row.state == "running"]
        worked = self.ended_here + sum(max(0, row.done - row.start) / row.epochs for row in running)
        if worked < 0.25:
            return None
        left = self.total - self.spent - sum(row.done / row.epochs for row in running)
        return max(0.0, left * (time.monotonic() - self.began) / worked)


class PlainView(View):
    """One line for each event but epochs, for logs and pipes; whoever stops reading does not stop the sweep."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = BrokenPipeSafeStream(stream)
        self.progress = SweepProgress()

    def _write(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()

    def message(self, text: str) -> None:
        """Print a line as it is."""
        self._write(text)

    def begin(self, study: str, total: int, done: int, best: tuple[int, float] | None = None) -> None:
        """Forget an earlier sweep, and say how many trials are done and which is best."""
        self.progress = SweepProgress(study, total, done, best)
        shown = f", best {best[1]:.3f} (trial {best[0]})" if best else ""
        self._write(f"study {study}: {total} trials, {done} done{shown}")

    def started(self, number: int, name: str, epochs: int, done: int = 0) -> None:
        """Say which trial began, or was resumed after how many of its epochs."""
        self.progress.put(number, _Row(name, epochs, start=done, done=done))
        what = f"resumed    {name} ({done} of {epochs} epochs done)" if done else f"started    {name}"
        self._write(f"trial {number:>3} {what}")

    def epoch(self, number: int, epoch: int, metrics: dict[str, float]) -> None:
        """Print nothing (a log would fill up); the epoch counts towards the time left."""
        _note_epoch(self.progress, number, epoch, metrics)

    def finished(self, number: int, state: str, score: float | None, reason: str) -> None:
        """Say how a trial ended, what is best and what is left."""
        _note_end(self.progress, number, state, score)
        best, left = self.progress.best, self.progress.time_left_s()
        shown = f"score {score:.3f}" if score is not None else ""
        tail = f"  best {best[1]:.3f} (trial {best[0]})" if best else ""
        tail += f"  {self.progress.spent}/{self.progress.total}"
        tail += f"  about {format_duration(left)} left" if left else ""
        because = f" ({reason})" if reason else ""
        self._write(f"trial {number:>3} {state:<10} {shown}{because}{tail}")


class LiveView(View):
    """A table that redraws itself four times a second, for a person at a terminal.

    Parameters
    ----------
    console : rich's; its file may go away without harm
    """

    def __init__(self, console: Any) -> None:
        self.console = console
        self.progress = SweepProgress()
        self._live: Live | None = None

    def message(self, text: str) -> None:
        """Print a line above the table, which moves down; brackets in it are no markup."""
        self.console.print(text, markup=False, highlight=False)

    def begin(self, study: str, total: int, done: int, best: tuple[int, float] | None = None) -> None:
        """Open the table, empty, with the study's state below it; `close` ends it."""
        from rich.live import Live

        self.progress = SweepProgress(study, total, done, best)
        self._live = Live(self, console=self.console, refresh_per_second=4, transient=False)
        self._live.start()

    def started(self, number: int, name: str, epochs: int, done: int = 0) -> None:
        """Add the trial's row; of a resumed one the bar starts at the epochs that are done."""
        self.progress.put(number, _Row(name, epochs, start=done, done=done))

    def epoch(self, number: int, epoch: int, metrics: dict[str, float]) -> None:
        """Update the trial's bar, validation accuracy, gap and score."""
        _note_epoch(self.progress, number, epoch, metrics)

    def finished(self, number: int, state: str, score: float | None, reason: str) -> None:
        """Write the trial's last state and score into its row; why it failed goes above the table."""
        _note_end(self.progress, number, state, score)
        if state == "failed":
            self.message(f"trial {number} failed: {reason}")

    def close(self) -> None:
        """Leave the last table standing, and give the terminal back; a second call does nothing."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def leave(self) -> None:
        """Show the cursor that the table hides; past every lock and buffer, for a signal handler."""
        if self._live is not None:
            with suppress(OSError, ValueError):
                os.write(self.console.file.fileno(), b"\x1b[?25h\n")

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 1), header_style="bold")
        for heading, justify in (
            ("trial", "right"), ("configuration", "left"), ("state", "left"), ("epochs", "left"),
            ("val", "right"), ("gap", "right"), ("score", "right"),
        ):  # fmt: skip
            narrows = heading == "configuration"  # in a narrow terminal names are cut, numbers never
            table.add_column(heading, justify=justify, no_wrap=not narrows)  # type: ignore[arg-type]
        best = self.progress.best
        for number, row in self._shown():
            style = (
                "bold green"
                if best and number == best[0]
                else {"failed": "red", "pruned": "dim"}.get(row.state, "")
            )
            name = Text(row.name.partition(" ")[2], no_wrap=True, overflow="ellipsis")
            table.add_row(
                str(number), name, row.state, _bar(row.done, row.epochs),
                _number(row.val), _number(row.gap), _number(row.score), style=style,
            )  # fmt: skip
        return Group(table, Text(self._footer()))

    def _shown(self) -> list[tuple[int, _Row]]:
        """Running trials, the best and the latest: as many as the terminal has lines for."""
        room = max(4, (self.console.size.height or 24) - 6)
        rows = sorted(self.progress.shown(), key=lambda item: item[0])
        if len(rows) <= room:
            return rows
        best = self.progress.best
        must = {number for number, row in rows if row.state == "running" or (best and number == best[0])}
        rest = [number for number, _ in rows if number not in must]
        keep = must | set(rest[len(rest) - max(0, room - len(must)) :])
        return [(number, row) for number, row in rows if number in keep]

    def _footer(self) -> str:
        progress = self.progress
        best, left = progress.best, progress.time_left_s()
        parts = [f"{progress.study}: {progress.spent}/{progress.total} trials"]
        parts += [f"best {best[1]:.3f} (trial {best[0]})"] if best else []
        parts += [f"about {format_duration(left)} left"] if left else []
        return "   ".join([*parts, "Ctrl-C stops; the same command goes on"])


def open_view(*, quiet: bool) -> View:
    """The view that fits where standard output goes: a table in a terminal, else lines; with `quiet` a silent one."""
    if quiet:
        return View()
    if sys.stdout.isatty():
        from rich.console import Console

        return LiveView(Console(file=BrokenPipeSafeStream(sys.stdout)))  # type: ignore[arg-type]
    return PlainView(sys.stdout)


class BrokenPipeSafeStream:
    """A text stream whose reader may go away: after the first failed write it says nothing more."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.silent = False

    def write(self, text: str) -> int:
        """Write, or do nothing; never raises."""
        if not self.silent:
            try:
                self._stream.write(text)
            except UnicodeError:  # a file name that is no text
                self.write(text.encode("ascii", "backslashreplace").decode("ascii"))
            except (OSError, ValueError):
                self._give_up()
        return len(text)

    def flush(self) -> None:
        """Flush, or do nothing; never raises."""
        if not self.silent:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._give_up()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self) -> None:
        self.silent = True
        discard_buffer(self._stream)


def discard_buffer(stream: IO[str]) -> None:
    """Let what a dead stream still buffers run into nothing, else Python's own flush at the end exits with 120."""
    with suppress(OSError, ValueError, AttributeError):
        sink = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(sink, stream.fileno())
        finally:
            os.close(sink)


def _note_epoch(progress: SweepProgress, number: int, epoch: int, metrics: dict[str, float]) -> None:
    row = progress.rows[number]
    row.done = epoch + 1
    row.val, row.gap, row.score = metrics["val/balanced_accuracy"], metrics["gap"], metrics["score"]


def _note_end(progress: SweepProgress, number: int, state: str, score: float | None) -> None:
    row = progress.rows.get(number) or progress.put(number, _Row("", 1))
    row.state = state
    row.score = score if score is not None else row.score
    if state not in ("duplicate", "interrupted"):
        progress.spent += 1
        progress.ended_here += 1 - row.start / row.epochs


def _bar(done: int, total: int, width: int = 12) -> str:
    filled = round(width * done / total)
    return f"{'━' * filled}{'╌' * (width - filled)} {done}/{total}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
