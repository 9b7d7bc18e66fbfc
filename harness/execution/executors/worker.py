"""A persistent worker, `python -m harness.execution.executors.worker FD`: one trial or stack at a time, one thread.

It talks JSON over one socket. A watcher thread reads it and ends the process, and whatever the process forked, when
the coordinator is gone, however that died: nobody trains for a coordinator that is not there.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from harness.core.failpoints import acknowledged, failpoint
from harness.core.files import private_files
from harness.core.redaction import redact_output
from harness.execution.executors.protocol import EpochDone, TrialDone, failure_of
from harness.training.failures import is_fatal_cuda_error
from harness.training.job import Job

# Seconds between two signs of life; every step may give one.
HEARTBEAT_S = 2.0
# A training is watched from its second step on: the first one loads libraries.
WATCHED_FROM = 2


class Link:
    """The worker's end of the socket: what the watcher thread hears, for the one thread that trains.

    Attributes
    ----------
    jobs : what to train next: one job, or those of a stack
    replies : whether to stop, one for each epoch that was told
    interrupted : set once every trial is asked to stop
    """

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection
        self.jobs: queue.Queue[list[Job]] = queue.Queue()
        self.replies: queue.Queue[bool] = queue.Queue()
        self.interrupted = threading.Event()
        self._training, self._asked = False, 0
        self._beaten = time.monotonic()
        threading.Thread(target=self._watch, name="watcher", daemon=True).start()

    def send(self, kind: str, content: dict[str, Any]) -> None:
        """Send one message; a coordinator that is gone ends the process."""
        try:
            self._connection.send_bytes(json.dumps({"message": kind, **content}).encode())
        except OSError:
            _leave()

    def should_stop(self) -> bool:
        """Whether the training is to stop, interrupted; it asks at every step.

        That it asks shows that it does not hang: the coordinator is told so, every `HEARTBEAT_S` seconds at most.
        """
        self._asked += 1
        if self._training and self._asked == WATCHED_FROM:
            self.send("training", {"on": True})
        if time.monotonic() - self._beaten >= HEARTBEAT_S:
            self._beaten = time.monotonic()
            self.send("beat", {})
        return self.interrupted.is_set()

    @contextmanager
    def training(self) -> Iterator[None]:
        """In this block an interruption waits for the step's end; elsewhere nothing is won by waiting."""
        self._training, self._asked = True, 0
        try:
            yield
        finally:
            self.send("training", {"on": False})
            self._training = False

    def _watch(self) -> None:
        while True:
            try:
                message = json.loads(self._connection.recv_bytes())
            except (EOFError, OSError):
                _leave()
            if message["kind"] == "jobs":
                self.jobs.put([Job(**job) for job in message["jobs"]])
            elif message["kind"] == "reply":
                self.replies.put(bool(message["stop"]))
            elif message["kind"] == "interrupt":
                self.interrupted.set()
                if not self._training:
                    _leave()  # features and outputs are made anew, from the checkpoint


def _leave() -> NoReturn:
    """End this process at once, with all that it forked: they are the group that it leads."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def main() -> None:
    """Serve jobs until the coordinator closes the socket; `argv` has the socket's descriptor and the device.

    A device that cannot be used is told as `refused`, and ends the worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    device_name = sys.argv[2]
    link = Link(Connection(int(sys.argv[1])))
    try:
        from harness.training.trial import open_device

        device = open_device(device_name)
    except Exception as error:
        link.send("refused", {"reason": str(error)})
        return
    link.send("ready", {})
    _serve(link, link.jobs.get(), device)
    gc.freeze()  # what is imported by now stays: every later collection would walk it, for 0.1 s
    while True:
        _serve(link, link.jobs.get(), device)


def _serve(link: Link, jobs: Sequence[Job], device: Any) -> None:
    from filelock import FileLock, Timeout

    from harness.training.stacking.trial_stack import run_stack
    from harness.training.window_split import gpu_cache

    left = {job.number: job for job in jobs}

    def on_epoch(job: Job, epoch: int, metrics: dict[str, float]) -> bool:
        link.send("epoch", asdict(EpochDone(job.number, epoch, metrics)))
        stop = link.replies.get()
        acknowledged(f"{Path(job.spool).name} {epoch} {metrics['smoothed']!r}")
        failpoint("worker.acknowledged")
        return stop

    def on_end(job: Job, how: dict[str, Any] | Exception) -> None:
        del left[job.number]
        if isinstance(how, Exception):
            failed = failure_of(job.number, how)
            if failed.kind == "out_of_memory":
                gpu_cache.forget()
            spent = not left and is_fatal_cuda_error(how)  # a spent worker is replaced, once all is told
            link.send("failed", {**asdict(failed), "spent": spent})
        else:
            link.send("done", asdict(TrialDone(job.number, how)))

    with ExitStack() as leases:
        for job in jobs:
            # A kernel lock proves that nobody else trains this trial: it dies with its holder.
            lease = FileLock(Path(job.spool) / "lease.lock")
            try:
                leases.enter_context(lease.acquire(timeout=20))
            except Timeout:
                on_end(job, OSError("another worker trains it"))
        failpoint("worker.begins")
        try:
            run_stack(list(left.values()), device, on_epoch, on_end, link.should_stop, link.training)
        except Exception as error:
            for job in list(left.values()):
                on_end(job, error)
    gc.collect()  # what a failed training held is not there for the next one else


if __name__ == "__main__":
    redact_output()
    with private_files():
        main()
