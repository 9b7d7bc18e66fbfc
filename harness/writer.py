"""The thread that feeds MLflow, so that a slow or absent server never delays a training."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from harness.server import ServerError, TrackingServer
from harness.spool import TrialSpool
from harness.tracking import Tracking

RETRY_S = (0.5, 1.0, 2.0, 5.0, 10.0)
# What the server refuses (or a bug of ours) is tried this often, then the trial is left in the spool.
MAX_REFUSALS = 3
# How long the end of a launch waits for MLflow to take what is spooled.
DRAIN_S = 120.0
# The same after a signal: somebody waits, and the spool keeps the rest.
DRAIN_AFTER_SIGNAL_S = 5.0
# How long a thread that hangs on a silent server is waited for.
JOIN_S = 1.0


class Writer:
    """Stores spooled trials in MLflow, in the order in which they asked, until told to stop."""

    def __init__(self, server: TrackingServer, open_tracking: Callable[[str], Tracking]) -> None:
        self._server = server
        self._open = open_tracking
        self._tracking: Tracking | None = None
        self._uri = ""
        self._dirty: dict[Path, None] = {}
        self._refusals: dict[Path, int] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._told_away = False
        self._busy = False
        self.unreachable_since: float | None = None
        self.problem: str | None = None
        self.left: list[Path] = []
        self._thread = threading.Thread(target=self._run, name="mlflow-writer", daemon=True)
        self._thread.start()

    def poke(self, spool: TrialSpool) -> None:
        """Say that a trial has something new; returns at once."""
        with self._changed:
            self._dirty[spool.folder] = None
            self._changed.notify_all()

    def drain(self, timeout_s: float) -> list[Path]:
        """Wait until everything is stored; what is not by then stays spooled and is returned."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._dirty or self._busy:
                left = deadline - time.monotonic()
                if left <= 0 or not self._thread.is_alive():
                    break
                self._changed.wait(min(left, 0.5))
            return sorted({*self._dirty, *self.left})

    def stop(self, timeout_s: float) -> None:
        """End the thread after the operation it is in; one that takes longer ends with the process."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout=timeout_s)

    def finish(self, *, hurried: bool) -> list[Path]:
        """Wait (`hurried`: not long) until everything is stored, and end the thread; what is not stored is returned."""
        left = self.drain(DRAIN_AFTER_SIGNAL_S if hurried else DRAIN_S)
        self.stop(JOIN_S)
        return left

    def tracking(self) -> Tracking:
        """The study's tracking; opens it where the thread has not done so yet."""
        uri = self._server.uri
        if self._tracking is None or uri != self._uri:  # a restarted server may have another port
            self._tracking, self._uri = self._open(uri), uri
        return self._tracking

    def news(self) -> str | None:
        """One line when MLflow stops or begins again to answer, since the last call."""
        away = self.unreachable_since is not None
        if away == self._told_away:
            return None
        self._told_away = away
        if away:
            return f"MLflow does not answer ({self.problem}); training goes on, nothing is lost"
        return "MLflow answers again"

    @property
    def opened(self) -> Tracking | None:
        """The study's tracking, if the server was ever reached."""
        return self._tracking

    def _run(self) -> None:
        failures = 0
        while True:
            with self._changed:
                while not self._dirty and not self._stopping:
                    self._changed.wait()
                if self._stopping:
                    return
                folder = next(iter(self._dirty))
                del self._dirty[folder]
                self._busy = True
            try:
                self._store(folder)
                self._refusals.pop(folder, None)
                failures, self.unreachable_since = 0, None
            except Exception as error:  # whatever the client raises, training goes on and the spool keeps it
                failures += 1
                self._give_back(folder, error)
                self._pause(RETRY_S[min(failures, len(RETRY_S)) - 1])
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _store(self, folder: Path) -> None:
        spool = TrialSpool(folder)
        if folder in self.left:
            self.left.remove(folder)  # it has something new: try again
        if spool.read("trial") is None:
            return  # stored completely since somebody asked
        if self.tracking().store_trial(spool):
            spool.remove()

    def _give_back(self, folder: Path, error: Exception) -> None:
        self.problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]
        if not _is_server_trouble(error):
            self._refusals[folder] = self._refusals.get(folder, 0) + 1
            if self._refusals[folder] >= MAX_REFUSALS:
                self.left.append(folder)
                return
        elif self.unreachable_since is None:
            self.unreachable_since = time.time()
        if not self._server.alive:
            with suppress(OSError):  # tried again with the next pause
                self._server.start()
        with self._changed:
            self._dirty = {folder: None, **self._dirty}

    def _pause(self, seconds: float) -> None:
        with self._changed:
            if not self._stopping:
                self._changed.wait(seconds)


def waiting_line(count: int, problem: str | None, *, hurried: bool) -> str:
    """What is said of runs that were not stored; after a signal the hurry alone is reason enough."""
    runs = "1 run waits" if count == 1 else f"{count} runs wait"
    stores = f"the next launch stores {'it' if count == 1 else 'them'}"
    if problem is None and hurried:
        return f"{runs} in the spool for MLflow and will be stored by the next launch"
    return f"{runs} in the spool for MLflow ({problem or 'MLflow did not answer'}); {stores}"


def _is_server_trouble(error: Exception) -> bool:
    """Whether trying again may help: the server is away, slow or ill. A refusal, or a bug of ours, stays one."""
    refusals = ("INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST", "PERMISSION_DENIED")
    code = getattr(error, "error_code", None)
    if code is not None:
        return code not in refusals
    return isinstance(error, OSError | ServerError)  # requests' errors are OSErrors
