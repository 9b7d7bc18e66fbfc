"""An executor in one file: trainings in a thread of the coordinator's own process, one after the other."""

import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from harness.execution.executors.build import EXECUTORS
from harness.execution.executors.protocol import EpochDone, Event, TrialDone, failure_of
from harness.training.job import Job
from harness.training.trial import open_device, run_trial


class ThreadExecutor:
    """One slot; a thread trains what is submitted, and waits for `reply` after every epoch."""

    slots = 1

    def __init__(self, slots: int, device: str, logs: Path) -> None:
        self._device, self._stop, self._left = open_device(device), threading.Event(), 0
        self._events: queue.Queue[Event] = queue.Queue()
        self._replies: queue.Queue[bool] = queue.Queue()

    def submit(self, *jobs: Job) -> None:
        self._left = len(jobs)
        threading.Thread(
            target=lambda: [self._events.put(self._train(job)) for job in jobs], daemon=True
        ).start()

    def _train(self, job: Job) -> Event:
        def on_epoch(epoch: int, metrics: dict[str, float]) -> bool:
            self._events.put(EpochDone(job.number, epoch, metrics))
            return self._replies.get()

        try:
            return TrialDone(job.number, run_trial(job, self._device, on_epoch, self._stop.is_set))
        except Exception as error:
            return failure_of(job.number, error)

    def poll(self, timeout_s: float) -> Iterator[Event]:
        with suppress(queue.Empty):
            event = self._events.get(timeout=timeout_s)
            self._left -= not isinstance(event, EpochDone)
            yield event

    def reply(self, number: int, *, stop: bool) -> None:
        self._replies.put(stop)

    def interrupt(self) -> None:
        self._stop.set()

    idle = property(lambda self: int(self._left == 0))
    close = interrupt
    check = staticmethod(lambda: None)
    default_slots = staticmethod(lambda device: 1)


EXECUTORS["thread"] = "executor_example:ThreadExecutor"
