"""What the writer knows: what waits, how MLflow is reached and does, what it refuses, and what people were told of it.

Plain values without a lock of their own: `Writer`'s thread and the coordinator's share them, and `Writer` says when.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.core.format import format_duration
from harness.tracking.errors import is_server_error
from harness.tracking.experiment import Tracking
from harness.tracking.server.server import ServerError, TrackingServer

# Trials that wait for a server which answers: with more of them no new trial begins, so that the spool stays small.
MAX_BACKLOG = 32


@dataclass(frozen=True)
class Task:
    """One thing for the thread to do: store what is new in a trial's spool; without a folder, only reach MLflow."""

    folder: Path | None = None

    def __str__(self) -> str:
        return "what a killed launch left" if self.folder is None else self.folder.name


# What a launch does as it opens MLflow, though no trial has anything new.
OPENING = Task()


class TaskQueue:
    """What waits to be stored, oldest first, each task once; what is being stored; what was given up.

    current : the task that the thread is in, and since when (monotonic seconds)
    left : trials that were refused too often; they stay in the spool until they have something new
    """

    def __init__(self) -> None:
        self.waiting: dict[Task, None] = {}  # a set that keeps its order
        self.current: tuple[Task, float] | None = None
        self.left: list[Task] = []
        self._never_sent: set[Task] = set()

    def add(self, task: Task, *, new: bool = False) -> None:
        """Let a task wait behind the others, or where it waits already; `new`: MLflow was never asked for it."""
        if new:
            self._never_sent.add(task)
        self.waiting.setdefault(task)

    def start_next(self) -> Task:
        """Take the task that has waited longest, of one or more, as the current one."""
        task = next(iter(self.waiting))
        del self.waiting[task]
        self.start_clock(task)
        return task

    def start_clock(self, task: Task) -> None:
        """Count the time of the current task from now."""
        self.current = (task, time.monotonic())

    @property
    def current_age_s(self) -> float:
        """Seconds that the current task has taken; 0 where there is none."""
        current = self.current  # the other thread changes it
        return 0.0 if current is None else time.monotonic() - current[1]

    def take_new(self, task: Task) -> bool:
        """Whether MLflow was never asked for a task; it counts as asked for from here on, whatever comes of it."""
        new = task in self._never_sent
        self._never_sent.discard(task)
        return new

    def unsettled(self) -> set[Task]:
        """What is not stored: what waits, what is being stored, what was given up."""
        current = [self.current[0]] if self.current is not None else []
        return {*self.waiting, *self.left, *current}


class Connection:
    """The study's tracking on the server, opened when it first answers and again where it has moved.

    reached : whether the server ever answered
    tracking : None before it is opened, and once it was forgotten
    """

    def __init__(self, server: TrackingServer, open_tracking: Callable[[str], Tracking]) -> None:
        self.server = server
        self.reached = False
        self.tracking: Tracking | None = None
        self._open = open_tracking
        self._uri = ""

    def open(self, is_stopping: Callable[[], bool]) -> Tracking:
        """Wait for the server, then open the tracking unless it is open at this address.

        Raises
        ------
        ServerError
            The server does not come up, or did so when the launch `is_stopping`.
        """
        uri = self.server.uri
        if is_stopping():
            raise ServerError("it came up when the launch had ended")
        self.reached = True
        if self.tracking is None or uri != self._uri:  # a restarted server may have another port
            self.tracking, self._uri = self._open(uri), uri
            if not self.server.team_uri:
                self.tracking.served = self.server.record.artifacts
        return self.tracking

    @property
    def is_coming_up(self) -> bool:
        """Whether the record's own server was started and has not answered yet: a start is slow, not silent."""
        return not self.reached and not self.server.team_uri

    @property
    def is_own_server_alive(self) -> bool:
        """Whether the record's own server still runs, and so may answer again; a team's that is away may stay away."""
        return not self.server.team_uri and self.server.alive


class ServerHealth:
    """Whether MLflow takes anything.

    failures : errors since the last success, of whatever kind
    failing_since : when the request was sent that failed first of this outage (seconds since 1970); None: healthy
    problem : the last error in a line for people; it stays after a recovery, for what was given up
    """

    def __init__(self) -> None:
        self.failures = 0
        self.failing_since: float | None = None
        self.problem: str | None = None

    def note_success(self) -> None:
        """End an outage: something was stored."""
        self.failures, self.failing_since = 0, None

    def note_outage(self, age_s: float) -> None:
        """Begin an outage with a request that was sent so many seconds ago, unless one lasts already."""
        if self.failing_since is None:
            self.failing_since = time.time() - age_s


class Refusals:
    """Tells a task that MLflow refuses from a server that is ill: the one is given up, the other waited for."""

    def __init__(self) -> None:
        self._counts: Counter[Task] = Counter()
        self._successes = 0
        self._successes_at_failure: dict[Task, int] = {}

    def note_success(self, task: Task) -> None:
        """Forget the refusals of a task that was stored after all."""
        self._counts.pop(task, None)
        self._successes += 1

    def is_refused(self, task: Task, error: Exception) -> bool:
        """Whether the task is to blame: by the error itself, or as others were stored since the task failed before."""
        if not is_server_error(error):
            return True
        before = self._successes_at_failure.get(task, self._successes)
        self._successes_at_failure[task] = self._successes
        return before < self._successes

    def count(self, task: Task) -> int:
        """Count one more refusal of a task; all of them since it was last stored."""
        self._counts[task] += 1
        return self._counts[task]


class Notices:
    """What the launch's terminal is told of MLflow, each thing once."""

    def __init__(self) -> None:
        self._away_since: float | None = None  # the outage that was told of
        self._told_behind = False
        self._refused: deque[str] = deque()

    def add_refusal(self, task: Task, problem: str) -> None:
        """Have it told that a task was given up."""
        self._refused.append(f"MLflow refuses {task} ({problem}); it stays in the spool")

    def next(
        self, away_since: float | None, problem: str | None, is_backlogged: Callable[[], bool]
    ) -> str | None:
        """The next line that is due: an outage (seconds since 1970) or its end, a backlog, a refusal; None: no news.

        `problem` is of this outage; None where it shows by silence only.
        """
        if away_since is not None and self._away_since is None:
            self._away_since = away_since
            return (
                f"MLflow takes nothing since {clock(away_since)} ({problem or 'no answer yet'}); "
                "training goes on, the spool keeps everything"
            )
        if away_since is None and self._away_since is not None:
            gone, self._away_since = time.time() - self._away_since, None
            return f"MLflow answers again, after {format_duration(gone)}"
        if not self._told_behind and is_backlogged():
            self._told_behind = True
            return (
                f"MLflow stores more slowly than trials end: the next begins when at most {MAX_BACKLOG} wait"
            )
        return self._refused.popleft() if self._refused else None


def clock(moment: float) -> str:
    """A moment (seconds since 1970) as people here read it off the wall."""
    return time.strftime("%H:%M:%S", time.localtime(moment))
