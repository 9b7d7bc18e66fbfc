"""How a loop of trainings is stopped: by a signal, or because they all fail alike."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from harness.core.disk_space import disk_full_reason, out_of_space_error
from harness.execution.executors.protocol import Event, Executor, TrialFailed, WorkersFailedError
from harness.execution.view import View
from harness.study.storage.record import Record
from harness.training.job import FailureKind

if TYPE_CHECKING:
    from harness.tracking.writer import Writer


# How long an interrupted loop waits for its workers to reach a step's end.
STOP_S = 60.0
# Trainings that may fail in a row for one and the same reason.
MAX_REPEATED_FAILURES = 5
# Failures of the training itself, which say nothing of the machine.
_ITS_OWN: tuple[FailureKind, ...] = ("diverged", "out_of_memory")


class RepeatedFailures:
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
            It is the last of MAX_REPEATED_FAILURES for one reason, and nothing came to its end meanwhile.
        """
        if kind in _ITS_OWN:
            return
        self._reasons = [*(one for one in self._reasons if one == reason), reason]
        if len(self._reasons) >= MAX_REPEATED_FAILURES:
            raise WorkersFailedError(
                f"{MAX_REPEATED_FAILURES} trainings in a row failed the same way, nothing more is started: {reason}"
            )


class StopController:
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

    def interrupt_workers(self) -> None:
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


def tracking_disk_full_reason(writer: Writer, record: Record) -> str | None:
    """Which disk is full, where MLflow stores nothing because of that; else None."""
    if writer.unreachable_since is None:
        return None
    return disk_full_reason((record.root, record.artifacts, record.spool), writer.problem or "")


def raise_if_tracking_disk_full(writer: Writer, record: Record) -> None:
    """Raise OutOfSpaceError where MLflow does not store because its disk is full: training on would be in vain."""
    if (why := tracking_disk_full_reason(writer, record)) is not None:
        raise out_of_space_error(why)


def raise_if_trial_out_of_space(event: Event) -> None:
    """Raise OutOfSpaceError where a training failed for want of space: it goes on once there is some."""
    if isinstance(event, TrialFailed) and event.kind == "out_of_space":
        raise out_of_space_error(event.reason)
