"""An executor in one file: trainings in a thread of the coordinator's own process, one at a time."""

import queue
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from harness.execution.executors.build import EXECUTORS
from harness.execution.executors.protocol import EpochDone, Event, TrialDone, TrialFailed
from harness.training.failures import failure_kind
from harness.training.job import Job
from harness.training.trial import open_device, run_trial


class ThreadExecutor:
    """One slot; a thread trains what is submitted, and waits for `reply` after every epoch."""

    slots = 1

    def __init__(self, slots: int, device: str, logs: Path) -> None:
        self._device, self._stop, self.idle = open_device(device), threading.Event(), 1
        self._events: queue.Queue[Event] = queue.Queue()
        self._replies: queue.Queue[bool] = queue.Queue()

    @staticmethod
    def default_slots(device: str) -> int:
        return 1

    def submit(self, *jobs: Job) -> None:
        self.idle = 0
        threading.Thread(target=lambda: [self._events.put(self._train(job)) for job in jobs]).start()

    def _train(self, job: Job) -> Event:
        def on_epoch(epoch: int, metrics: dict[str, float]) -> bool:
            self._events.put(EpochDone(job.number, epoch, metrics))
            return self._replies.get()

        try:
            return TrialDone(job.number, run_trial(job, self._device, on_epoch, self._stop.is_set))
        except Exception as error:
            return TrialFailed(job.number, failure_kind(error), str(error), traceback.format_exc())

    def poll(self, timeout_s: float) -> Iterator[Event]:
        with suppress(queue.Empty):
            event = self._events.get(timeout=timeout_s)
            self.idle = 0 if isinstance(event, EpochDone) else 1
            yield event

    def reply(self, number: int, *, stop: bool) -> None:
        self._replies.put(stop)

    def interrupt(self) -> None:
        self._stop.set()

    close = interrupt


EXECUTORS["thread"] = "executor_example:ThreadExecutor"
