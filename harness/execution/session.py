"""Workers, coordinator and writer from the first run to the last: started, finished and stopped in one order.

coordinator.run -> view and workers end -> MLflow takes what is left -> what still waits is shown as waiting
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.core.failpoints import failpoint
from harness.core.signals import handling_signals
from harness.execution.coordinator import Coordinator
from harness.study.storage.trial_spool import TrialSpool
from harness.tracking.experiment import Tracking
from harness.tracking.writer import JOIN_AFTER_SIGNAL_S, JOIN_S


@dataclass(frozen=True)
class SessionEnd:
    """How a session ended.

    Attributes
    ----------
    unstored : spools that MLflow does not hold completely
    problem : why, as far as is known; None where a signal is reason enough
    signal : number of the signal that stopped it; None where all came to its end
    """

    unstored: list[Path]
    problem: str | None
    signal: int | None


def run_session(
    coordinator: Coordinator,
    *,
    on_complete: Callable[[Tracking | None], None] | None = None,
    on_close: Callable[[Tracking, bool], None] | None = None,
) -> SessionEnd:
    """Run all trainings, end the workers, and have MLflow take what is left.

    Parameters
    ----------
    on_complete : called when everything has ended undisturbed and MLflow answers
    on_close : the last that MLflow is asked, if it was reached; told whether all has ended

    Raises
    ------
    OutOfSpaceError, WorkersFailedError
        The machine is at fault; the same command goes on.
    """
    executor, writer, view = coordinator.executor, coordinator.writer, coordinator.view
    ended = False
    with handling_signals(coordinator.stopping.on_signal):  # also while the last runs are stored
        try:
            coordinator.run()
            ended = coordinator.signal is None
        finally:
            view.close()
            executor.close()
            unstored = writer.finish(view.message, hurried=not ended, stop=coordinator.must_leave)
            if on_complete is not None and ended and coordinator.signal is None and writer.is_responsive:
                on_complete(writer.tracking_if_reached)
            waiting = [run.spool for run in coordinator.running.values()]
            waiting += map(TrialSpool, unstored)

            def close(tracking: Tracking) -> None:
                _show_waiting(tracking, waiting)
                if on_close is not None:
                    on_close(tracking, ended and not coordinator.running)

            writer.stop(JOIN_S if ended else JOIN_AFTER_SIGNAL_S, close)
    if unstored:
        coordinator.raise_if_tracking_disk_full()
    return SessionEnd(unstored, writer.reason, coordinator.signal)


def _show_waiting(tracking: Tracking, spools: Sequence[TrialSpool]) -> None:
    """Show in MLflow what does not run any more."""
    failpoint("launch.closing")
    for spool in spools:
        header = spool.read("trial")
        if header is not None:
            tracking.pause_run(header.get("key") or tracking.trial_key(header["number"]))
