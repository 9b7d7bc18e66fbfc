"""How a loop of trainings is stopped: by a signal, politely, or by a full disk."""

from __future__ import annotations

import os
import time

from harness.executors.protocol import Event, Executor, TrialFailed
from harness.view import View

# How long an interrupted loop waits for its workers to reach a step's end.
STOP_S = 60.0


class OutOfSpaceError(OSError):
    """The disk is full: the loop stops, its trainings are not failed."""


def require_space(event: Event) -> None:
    """Raise OutOfSpaceError where a training failed for want of space: it goes on once there is some."""
    if isinstance(event, TrialFailed) and "No space left" in event.reason:
        raise OutOfSpaceError(f"{event.reason}: free some space and run the same command again to go on")


class Stopping:
    """Signals: the first stops at the next step and keeps checkpoints, the second leaves at once."""

    def __init__(self, executor: Executor, view: View) -> None:
        self._executor, self._view = executor, view
        self.signal: int | None = None
        self._since: float | None = None

    def on_signal(self, number: int, frame: object) -> None:
        """Note the signal; the loop passes it on, for a handler must not write into a socket in use."""
        del frame
        if self.signal is not None:
            self._view.leave()
            os._exit(128 + number)
        self.signal = number

    def pass_on(self) -> None:
        """Tell the workers, once."""
        if self.signal is not None and self._since is None:
            self._since = time.monotonic()
            self._executor.interrupt()
            self._view.message("stopping: every trial keeps its last epoch; Ctrl-C again leaves at once")

    @property
    def gave_up_waiting(self) -> bool:
        """Whether the loop was told to stop and no worker is busy, or one does not answer."""
        if self._since is None:
            return False
        busy = self._executor.slots - self._executor.idle
        return busy == 0 or time.monotonic() - self._since > STOP_S
