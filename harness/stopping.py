"""How a loop of trainings is stopped: by a signal, or because they all fail alike."""

from __future__ import annotations

import os
import time

from harness.executors.protocol import Executor, FailureKind, WorkersFailedError
from harness.view import View

# How long an interrupted loop waits for its workers to reach a step's end.
STOP_S = 60.0
# Trainings that may fail in a row for one and the same reason.
MAX_ALIKE = 5
# Failures of the training itself, which say nothing of the machine.
_ITS_OWN: tuple[FailureKind, ...] = ("diverged", "out_of_memory")


class AlikeFailures:
    """A broken machine must not burn the budget: trainings that all fail one way are not to blame for it."""

    def __init__(self) -> None:
        self._reasons: list[str] = []

    def clear(self) -> None:
        """A training came to its end: the machine is well."""
        self._reasons.clear()

    def add(self, kind: FailureKind, reason: str) -> None:
        """Count a failure.

        Raises
        ------
        WorkersFailedError
            It is the last of MAX_ALIKE for one reason, and nothing came to its end meanwhile.
        """
        if kind in _ITS_OWN:
            return
        self._reasons = [*(one for one in self._reasons if one == reason), reason]
        if len(self._reasons) >= MAX_ALIKE:
            raise WorkersFailedError(
                f"{MAX_ALIKE} trainings in a row failed the same way, nothing more is started: {reason}"
            )


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
