"""What stops a loop of trainings before its end; after any of it the same command goes on.

    a signal                            `StopController`                 workers keep their checkpoints
    one failure after another, alike    `RepeatedFailures`               WorkersFailedError
    a worker's disk is full             `raise_if_trial_out_of_space`    OutOfSpaceError
    MLflow's disk is full               `raise_if_tracking_disk_full`    OutOfSpaceError

Whether a disk is full, and what is said of it, is for `harness.core.disk_space` to know.
"""

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
    """Counts failures for one reason in a row: a broken machine must not burn the budget.

    A training that diverges or wants memory is to blame itself, and does not count.
    """

    def __init__(self) -> None:
        self._reasons: list[str] = []

    def clear(self) -> None:
        """Forget all failures: a training came to its end, so the machine is well."""
        self._reasons.clear()

    def add(self, kind: FailureKind, reason: str) -> None:
        """Count a failure; another reason than the last one's starts the count anew.

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
    """Signals: the first stops at the next step and keeps checkpoints, the second leaves at once.

    Attributes
    ----------
    signal : number of the first one; None before it
    """

    def __init__(self, executor: Executor, view: View) -> None:
        self._executor, self._view = executor, view
        self.signal: int | None = None
        self._since: float | None = None

    def on_signal(self, number: int, frame: object) -> None:
        """Note the first signal; the second ends this process at once, with exit code 128 + its number.

        The loop passes the first on to the workers: a handler must not write into a socket in use.
        """
        del frame
        if self.signal is not None:
            self._view.leave()
            os._exit(128 + number)
        self.signal = number

    def interrupt_workers(self) -> None:
        """Ask the workers to stop if a signal came, once however often it is called."""
        if self.signal is not None and self._since is None:
            self._since = time.monotonic()
            self._executor.interrupt()
            self._view.message("stopping: every trial keeps its last epoch; Ctrl-C again leaves at once")

    @property
    def gave_up_waiting(self) -> bool:
        """Whether the workers were asked to stop, and none is busy any more or `STOP_S` seconds have passed."""
        if self._since is None:
            return False
        busy = self._executor.slots - self._executor.idle
        return busy == 0 or time.monotonic() - self._since > STOP_S


def tracking_disk_full_reason(writer: Writer, record: Record) -> str | None:
    """Which disk is full, in words, where MLflow stores nothing because of that; else None.

    A full disk is none of this module's business while MLflow still stores, or is away for another reason.
    """
    if writer.unreachable_since is None:
        return None
    return disk_full_reason((record.root, record.artifacts, record.spool), writer.problem or "")


def raise_if_tracking_disk_full(writer: Writer, record: Record) -> None:
    """Raise OutOfSpaceError where there is a `tracking_disk_full_reason`: training on would be in vain."""
    if (why := tracking_disk_full_reason(writer, record)) is not None:
        raise out_of_space_error(why)


def raise_if_trial_out_of_space(event: Event) -> None:
    """Raise OutOfSpaceError where this event says that a worker found its disk full: nothing is failed for that."""
    if isinstance(event, TrialFailed) and event.kind == "out_of_space":
        raise out_of_space_error(event.reason)
