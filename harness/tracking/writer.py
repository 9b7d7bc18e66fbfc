"""The thread that feeds MLflow, so that a slow or absent server never delays a training.

What is new of a trial is stored, and its spool goes once it is complete. Where the server is away all of it waits
in the spool and is tried again, after RETRY_S and once more at the end of the launch. A trial that the server refuses
is told of and left in the spool: the next launch tries it again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from harness.core.failpoints import failpoint
from harness.core.format import format_duration
from harness.study.storage.trial_spool import TrialSpool
from harness.tracking.create_once import without_http_retries
from harness.tracking.errors import describe_error, is_server_error
from harness.tracking.experiment import Tracking
from harness.tracking.server.server import ServerError, TrackingServer

RETRY_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
# What the server refuses (or a bug of ours) is tried this often, then the trial is left in the spool.
MAX_REFUSALS = 3
# An operation that takes longer than this is told of as an outage; a request is given up after 30 s only.
SILENT_S = 15.0
# Stands among the spools that are stored for what a launch does as it opens MLflow.
OPENING = Path("what a killed launch left")
# Trials that wait for a server which answers: with more of them no new trial begins, so that the spool stays small.
MAX_BACKLOG = 32
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
    """Stores spooled trials in MLflow, in the order in which they asked, until told to stop."""

    def __init__(self, server: TrackingServer, open_tracking: Callable[[str], Tracking]) -> None:
        self._server = server
        self._open = open_tracking
        self._tracking: Tracking | None = None
        self._uri = ""
        self._dirty: dict[Path, None] = {}
        self._new: set[Path] = set()  # trials that MLflow was never asked for
        self._refusals: dict[Path, int] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._last: Callable[[Tracking], None] | None = None
        self._ending = False
        self._at: tuple[Path, float] | None = None  # what is being stored, and since when (monotonic)
        self._reached = False
        self._successes = 0
        self._failed_after: dict[Path, int] = {}
        self._failing_since: float | None = None
        self._told_away: float | None = None
        self._told_behind = False
        self._refused: deque[str] = deque()
        self.problem: str | None = None
        self.left: list[Path] = []
        self._thread = threading.Thread(target=self._run, name="mlflow-writer", daemon=True)
        self._thread.start()

    def notify(self, spool: TrialSpool, *, begun: bool = False) -> None:
        """Say that a trial has something new; returns at once.

        `begun` says that this process has just begun it: nobody can have stored anything of it yet.
        """
        with self._changed:
            if begun:
                self._new.add(spool.folder)
            self._dirty[spool.folder] = None
            self._changed.notify_all()

    def open(self) -> None:
        """Reach MLflow even where no trial has anything new: what a killed launch left there is put right."""
        with self._changed:
            self._dirty[OPENING] = None
            self._changed.notify_all()

    @property
    def is_backlogged(self) -> bool:
        """Whether MLflow takes trials more slowly than they come; of a server that is away this says nothing."""
        with self._changed:
            return self.unreachable_since is None and len(self._dirty) > MAX_BACKLOG

    def drain(self, timeout_s: float, stop: Callable[[], bool] = bool) -> list[Path]:
        """Wait until everything is stored, or `stop` says so; what is not by then stays spooled and is returned."""
        began = time.monotonic()
        with self._changed:
            self._ending = True  # what is left is tried now, not after the next pause
            self._changed.notify_all()
            while self._dirty or self._at is not None:
                patience = timeout_s if self._may_come_back else min(timeout_s, DRAIN_AWAY_S)
                left = began + patience - time.monotonic()
                if left <= 0 or stop() or not self._thread.is_alive():
                    break
                self._changed.wait(min(left, 0.5))
            at = [self._at[0]] if self._at is not None else []
            return sorted({*self._dirty, *self.left, *at})

    def stop(self, timeout_s: float, last: Callable[[Tracking], None] | None = None) -> None:
        """End the thread after the operation it is in; one that takes longer ends with the process.

        `last` is what the thread does before it ends, if MLflow was reached: nothing of its own can undo that.
        """
        with self._changed:
            self._stopping, self._last = True, last
            self._changed.notify_all()
        silent = not self._reached or self.unreachable_since is not None
        self._thread.join(timeout=min(timeout_s, JOIN_AWAY_S) if silent else timeout_s)

    def finish(
        self, say: Callable[[str], None], *, hurried: bool, stop: Callable[[], bool] = bool
    ) -> list[Path]:
        """Wait (`hurried`: not long) until everything is stored; what is not stored is returned.

        `say` is told what is waited for, where it takes long; `stop` makes a hurry of it.
        """
        left = self.drain(DRAIN_AFTER_SIGNAL_S) if hurried else self.drain(TELL_S, stop)
        if left and not hurried and set(left) != set(self.left):
            runs = "1 run" if len(left) == 1 else f"{len(left)} runs"
            wait = DRAIN_S if self._may_come_back else DRAIN_AWAY_S
            say(
                f"waiting up to {wait:.0f} s for MLflow to take {runs} (Ctrl-C: the next launch stores the rest)"
            )
            left = self.drain(DRAIN_S, stop)
        return [folder for folder in left if folder != OPENING]

    def tracking(self) -> Tracking:
        """The study's tracking; opens it where the thread has not done so yet."""
        uri = self._server.uri
        if self._stopping:
            raise ServerError("it came up when the launch had ended")
        self._reached = True
        if self._tracking is None or uri != self._uri:  # a restarted server may have another port
            self._tracking, self._uri = self._open(uri), uri
            if not self._server.team_uri:
                self._tracking.served = self._server.record.artifacts
        return self._tracking

    def status_message(self) -> str | None:
        """One line when MLflow takes nothing any more, answers again, or refuses a trial, since the last call."""
        away = self.unreachable_since
        if away is not None and self._told_away is None:
            self._told_away = away
            problem = self.problem if self._failing_since is not None else None  # else of an earlier outage
            return (
                f"MLflow takes nothing since {clock(away)} ({problem or 'no answer yet'}); "
                "training goes on, the spool keeps everything"
            )
        if away is None and self._told_away is not None:
            gone, self._told_away = time.time() - self._told_away, None
            return f"MLflow answers again, after {format_duration(gone)}"
        if self.is_backlogged and not self._told_behind:
            self._told_behind = True
            return (
                f"MLflow stores more slowly than trials end: the next begins when at most {MAX_BACKLOG} wait"
            )
        return self._refused.popleft() if self._refused else None

    @property
    def unreachable_since(self) -> float | None:
        """Since when (seconds since 1970) MLflow takes nothing; None where it does."""
        if self._failing_since is not None:
            return self._failing_since
        at = self._at  # the other thread changes it
        coming_up = not self._reached and not self._server.team_uri
        age = time.monotonic() - at[1] if at is not None and not coming_up else 0.0
        return time.time() - age if age > SILENT_S else None

    @property
    def reason(self) -> str | None:
        """Why something is not stored, and since when, as far as is known."""
        since = self.unreachable_since
        return self.problem if since is None else f"{self.problem or 'no answer'}, since {clock(since)}"

    @property
    def tracking_if_reached(self) -> Tracking | None:
        """The study's tracking, if the server was ever reached."""
        return self._tracking

    @property
    def is_responsive(self) -> bool:
        """Whether MLflow can be asked now without a long wait."""
        return self._tracking is not None and self._failing_since is None and self._at is None

    @property
    def _may_come_back(self) -> bool:
        return self.unreachable_since is None or (not self._server.team_uri and self._server.alive)

    def _run(self) -> None:
        failures = 0
        while (folder := self._next()) is not None:
            try:
                self._store(folder)
                self._refusals.pop(folder, None)
                failures, self._failing_since = 0, None
                self._successes += 1
            except Exception as error:  # whatever the client raises, training goes on and the spool keeps it
                failures += 1
                self._requeue(folder, error)
            with self._changed:
                self._at = None
                self._changed.notify_all()
            if failures:
                self._pause(RETRY_S[min(failures, len(RETRY_S)) - 1])
        if self._last is not None and self._tracking is not None and self._failing_since is None:
            with suppress(Exception):  # the shop window only: the next launch puts it right
                self._last(self._tracking)

    def _next(self) -> Path | None:
        """Wait for something to store; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._dirty or self._stopping)
            if self._stopping:
                return None
            folder = next(iter(self._dirty))
            del self._dirty[folder]
            self._at = (folder, time.monotonic())
            return folder

    def _store(self, folder: Path) -> None:
        spool = TrialSpool(folder)
        if folder in self.left:
            self.left.remove(folder)  # it has something new: try again
        if folder != OPENING and spool.read("trial") is None:
            return  # stored completely since somebody asked
        with without_http_retries():  # what does not arrive is tried again here, after a pause
            tracking = self.tracking()
            if folder == OPENING:
                return
            self._at = (folder, time.monotonic())  # that a server starts slowly is no silence
            new = folder in self._new
            self._new.discard(folder)  # whatever comes of it, from here on its run may be there
            stored = tracking.store_trial(spool, new=new)
        failpoint("writer.stored")
        if stored:
            failpoint("writer.complete")
            spool.remove()
            failpoint("writer.removed")

    def _requeue(self, folder: Path, error: Exception) -> None:
        self.problem = describe_error(error)
        if getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST":
            self._tracking = None  # somebody deleted it, or restored another database: look again
        if not is_server_error(error) or self._only_this_one(folder):
            self._refusals[folder] = self._refusals.get(folder, 0) + 1
            if self._refusals[folder] >= MAX_REFUSALS:
                self.left.append(folder)
                self._refused.append(f"MLflow refuses {folder.name} ({self.problem}); it stays in the spool")
                return
        elif self._failing_since is None:
            age = time.monotonic() - self._at[1] if self._at is not None else 0.0
            self._failing_since = time.time() - age
        if not self._stopping and not self._server.alive:
            with suppress(OSError):  # tried again with the next pause
                self._server.start()
        with self._changed:
            self._dirty.setdefault(folder)  # behind the others: one that never arrives must not stop them

    def _only_this_one(self, folder: Path) -> bool:
        """Whether others were stored since this one failed before: then it is not the server's health."""
        before = self._failed_after.get(folder, self._successes)
        self._failed_after[folder] = self._successes
        return before < self._successes

    def _pause(self, seconds: float) -> None:
        """Wait before the next attempt; where the launch is ending, the first time not at all, then not long."""
        with self._changed:
            ending = self._ending
            self._changed.wait_for(
                lambda: self._stopping or self._ending != ending, min(seconds, 1.0) if ending else seconds
            )


def clock(moment: float) -> str:
    """A moment (seconds since 1970) as people here read it off the wall."""
    return time.strftime("%H:%M:%S", time.localtime(moment))


def unstored_message(count: int, problem: str | None, *, hurried: bool) -> str:
    """What is said of runs that were not stored; after a signal the hurry alone is reason enough."""
    runs = "1 run waits" if count == 1 else f"{count} runs wait"
    stores = f"the next launch stores {'it' if count == 1 else 'them'}"
    if problem is None and hurried:
        return f"{runs} in the spool for MLflow and will be stored by the next launch"
    return f"{runs} in the spool for MLflow ({problem or 'MLflow did not answer'}); {stores}"
