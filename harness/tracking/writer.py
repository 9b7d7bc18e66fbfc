"""The thread that feeds MLflow, so that a slow or absent server never delays a training.

What is new of a trial is stored, and its spool goes once it is complete. Where the server is away all of it waits
in the spool and is tried again, after RETRY_S and once more at the end of the launch. A trial that the server refuses
is told of and left in the spool: the next launch tries it again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from harness.core.failpoints import failpoint
from harness.study.storage.trial_spool import TrialSpool
from harness.tracking.create_once import without_http_retries
from harness.tracking.errors import describe_error
from harness.tracking.experiment import Tracking
from harness.tracking.server.server import TrackingServer
from harness.tracking.writer_state import (
    MAX_BACKLOG,
    OPENING,
    Connection,
    Notices,
    Refusals,
    ServerHealth,
    Task,
    TaskQueue,
    clock,
)

RETRY_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
# What the server refuses (or a bug of ours) is tried this often, then the trial is left in the spool.
MAX_REFUSALS = 3
# An operation that takes longer than this is told of as an outage; a request is given up after 30 s only.
SILENT_S = 15.0
# How long the end of a launch waits for MLflow to take what is spooled, and ...
DRAIN_S = 120.0
# ... where a team's server is away, or ours cannot be started: it may not come back, and nothing is lost.
DRAIN_AWAY_S = 20.0
# The same after a signal: somebody waits, and the spool keeps the rest.
DRAIN_AFTER_SIGNAL_S = 2.0
# Whoever waits longer than this is told what for.
TELL_S = 2.0
# How long the thread is waited for at the end, ...
JOIN_S = 15.0
# ... after a signal, ...
JOIN_AFTER_SIGNAL_S = 3.0
# ... and where the server is silent, or has not come up: the thread ends with the process.
JOIN_AWAY_S = 1.0


class Writer:
    """Stores spooled trials in MLflow, in the order in which they asked, until told to stop.

    Its state is in the values of `writer_state`; `_changed` guards what waits, and wakes whoever waits for that.
    """

    def __init__(self, server: TrackingServer, open_tracking: Callable[[str], Tracking]) -> None:
        self._server = server
        self._connection = Connection(server, open_tracking)
        self._queue = TaskQueue()
        self._health = ServerHealth()
        self._refusals = Refusals()
        self._notices = Notices()
        self._changed = threading.Condition()
        self._ending = False  # somebody waits for the end: no long pauses any more
        self._stopping = False
        self._last: Callable[[Tracking], None] | None = None
        self._thread = threading.Thread(target=self._run, name="mlflow-writer", daemon=True)
        self._thread.start()

    def notify(self, spool: TrialSpool, *, begun: bool = False) -> None:
        """Say that a trial has something new; returns at once.

        `begun` says that this process has just begun it: nobody can have stored anything of it yet.
        """
        self._add(Task(spool.folder), new=begun)

    def open(self) -> None:
        """Reach MLflow even where no trial has anything new: what a killed launch left there is put right."""
        self._add(OPENING)

    def _add(self, task: Task, *, new: bool = False) -> None:
        with self._changed:
            self._queue.add(task, new=new)
            self._changed.notify_all()

    @property
    def is_backlogged(self) -> bool:
        """Whether MLflow takes trials more slowly than they come; of a server that is away this says nothing."""
        with self._changed:
            return self.unreachable_since is None and len(self._queue.waiting) > MAX_BACKLOG

    def drain(self, timeout_s: float, stop: Callable[[], bool] = bool) -> list[Path]:
        """Wait until everything is stored, or `stop` says so; spools that are not stored by then, which stay."""
        return _folders(self._wait(timeout_s, stop))

    def _wait(self, timeout_s: float, stop: Callable[[], bool] = bool) -> set[Task]:
        """Wait as `drain` does; what is not done by then."""
        began = time.monotonic()
        queue = self._queue
        with self._changed:
            self._ending = True  # what is left is tried now, not after the next pause
            self._changed.notify_all()
            while queue.waiting or queue.current is not None:
                patience = timeout_s if self._may_come_back else min(timeout_s, DRAIN_AWAY_S)
                left = began + patience - time.monotonic()
                if left <= 0 or stop() or not self._thread.is_alive():
                    break
                self._changed.wait(min(left, 0.5))
            return queue.unsettled()

    def stop(self, timeout_s: float, last: Callable[[Tracking], None] | None = None) -> None:
        """End the thread after the operation it is in; one that takes longer ends with the process.

        `last` is what the thread does before it ends, if MLflow was reached: nothing of its own can undo that.
        """
        with self._changed:
            self._stopping, self._last = True, last
            self._changed.notify_all()
        silent = not self._connection.reached or self.unreachable_since is not None
        self._thread.join(timeout=min(timeout_s, JOIN_AWAY_S) if silent else timeout_s)

    def finish(
        self, say: Callable[[str], None], *, hurried: bool, stop: Callable[[], bool] = bool
    ) -> list[Path]:
        """Wait (`hurried`: not long) until everything is stored; what is not stored is returned.

        `say` is told what is waited for, where it takes long; `stop` makes a hurry of it.
        """
        left = self._wait(DRAIN_AFTER_SIGNAL_S) if hurried else self._wait(TELL_S, stop)
        if left and not hurried and left != set(self._queue.left):
            runs = "1 run" if len(left) == 1 else f"{len(left)} runs"
            wait = DRAIN_S if self._may_come_back else DRAIN_AWAY_S
            say(
                f"waiting up to {wait:.0f} s for MLflow to take {runs} (Ctrl-C: the next launch stores the rest)"
            )
            left = self._wait(DRAIN_S, stop)
        return _folders(left)

    def tracking(self) -> Tracking:
        """The study's tracking; opens it where the thread has not done so yet."""
        return self._connection.open(lambda: self._stopping)

    def status_message(self) -> str | None:
        """One line when MLflow takes nothing any more, answers again, or refuses a trial, since the last call."""
        away = self.unreachable_since
        problem = (
            self.problem if self._health.failing_since is not None else None
        )  # else of an earlier outage
        return self._notices.next(away, problem, lambda: self.is_backlogged)

    @property
    def problem(self) -> str | None:
        """What MLflow answered the last time that it did not take something, in a line; None where it took all."""
        return self._health.problem

    @property
    def unreachable_since(self) -> float | None:
        """Since when (seconds since 1970) MLflow takes nothing; None where it does."""
        if self._health.failing_since is not None:
            return self._health.failing_since
        age = 0.0 if self._connection.is_coming_up else self._queue.current_age_s
        return time.time() - age if age > SILENT_S else None

    @property
    def reason(self) -> str | None:
        """Why something is not stored, and since when, as far as is known."""
        since = self.unreachable_since
        return self.problem if since is None else f"{self.problem or 'no answer'}, since {clock(since)}"

    @property
    def tracking_if_reached(self) -> Tracking | None:
        """The study's tracking, if the server was ever reached."""
        return self._connection.tracking

    @property
    def is_responsive(self) -> bool:
        """Whether MLflow can be asked now without a long wait."""
        healthy = self._connection.tracking is not None and self._health.failing_since is None
        return healthy and self._queue.current is None

    @property
    def _may_come_back(self) -> bool:
        return self.unreachable_since is None or self._connection.is_own_server_alive

    def _run(self) -> None:
        health = self._health
        while (task := self._next()) is not None:
            try:
                self._store(task)
                self._refusals.note_success(task)
                health.note_success()
            except Exception as error:  # whatever the client raises, training goes on and the spool keeps it
                health.failures += 1
                self._requeue(task, error)
            with self._changed:
                self._queue.current = None
                self._changed.notify_all()
            if health.failures:
                self._pause(RETRY_S[min(health.failures, len(RETRY_S)) - 1])
        tracking = self._connection.tracking
        if self._last is not None and tracking is not None and health.failing_since is None:
            with suppress(Exception):  # the shop window only: the next launch puts it right
                self._last(tracking)

    def _next(self) -> Task | None:
        """Wait for something to store; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue.waiting or self._stopping)
            return None if self._stopping else self._queue.start_next()

    def _store(self, task: Task) -> None:
        if task in self._queue.left:
            self._queue.left.remove(task)  # it has something new: try again
        if task.folder is None:
            with without_http_retries():
                self.tracking()
            return
        spool = TrialSpool(task.folder)
        if spool.read("trial") is None:
            return  # stored completely since somebody asked
        with without_http_retries():  # what does not arrive is tried again here, after a pause
            tracking = self.tracking()
            self._queue.start_clock(task)  # that a server starts slowly is no silence
            stored = tracking.store_trial(spool, new=self._queue.take_new(task))
        failpoint("writer.stored")
        if stored:
            failpoint("writer.complete")
            spool.remove()
            failpoint("writer.removed")

    def _requeue(self, task: Task, error: Exception) -> None:
        """Let a task that failed wait again, or give it up; start the record's own server again where it died."""
        problem = self._health.problem = describe_error(error)
        if getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST":
            self._connection.tracking = None  # somebody deleted it, or restored another database: look again
        if not self._refusals.is_refused(task, error):
            self._health.note_outage(self._queue.current_age_s)
        elif self._refusals.count(task) >= MAX_REFUSALS:
            self._queue.left.append(task)
            self._notices.add_refusal(task, problem)
            return
        if not self._stopping and not self._server.alive:
            with suppress(OSError):  # tried again with the next pause
                self._server.start()
        with self._changed:
            self._queue.add(task)  # behind the others: one that never arrives must not stop them

    def _pause(self, seconds: float) -> None:
        """Wait before the next attempt; where the launch is ending, the first time not at all, then not long."""
        with self._changed:
            ending = self._ending
            self._changed.wait_for(
                lambda: self._stopping or self._ending != ending, min(seconds, 1.0) if ending else seconds
            )


def _folders(tasks: set[Task]) -> list[Path]:
    """The spools of these tasks, in the order of their trials."""
    return sorted(task.folder for task in tasks if task.folder is not None)


def unstored_message(count: int, problem: str | None, *, hurried: bool) -> str:
    """What is said of runs that were not stored; after a signal the hurry alone is reason enough."""
    runs = "1 run waits" if count == 1 else f"{count} runs wait"
    stores = f"the next launch stores {'it' if count == 1 else 'them'}"
    if problem is None and hurried:
        return f"{runs} in the spool for MLflow and will be stored by the next launch"
    return f"{runs} in the spool for MLflow ({problem or 'MLflow did not answer'}); {stores}"
