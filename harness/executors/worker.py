"""A persistent worker: `python -m harness.executors.worker FD`, one trial at a time, one thread of arithmetic.

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
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from harness.executors.protocol import EpochDone, FailureKind, Job, TrialDone, TrialFailed
from harness.failpoints import acknowledged, failpoint
from harness.privacy import private_files
from harness.redaction import redact, redact_output

# Seconds between two signs of life; every step may give one.
BEAT_S = 2.0
# How memory that cannot be had is told where the error's class does not say so; CUDA's errors say its name.
_NO_MEMORY = ("allocate memory", "bad_alloc", "ALLOC_FAILED", "CUDA error: out of memory")
_CUDA = "CUDA error"
# A training is watched from its second step on: the first one loads libraries.
WATCHED_FROM = 2


class Link:
    """The worker's end of the socket."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection
        self.jobs: queue.Queue[Job] = queue.Queue()
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
        """Asked at every step: tell the coordinator, now and then, that there was one."""
        self._asked += 1
        if self._training and self._asked == WATCHED_FROM:
            self.send("training", {"on": True})
        if time.monotonic() - self._beaten >= BEAT_S:
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
            if message["kind"] == "job":
                self.jobs.put(Job(**message["job"]))
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
    """Serve jobs until the coordinator closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    device_name = sys.argv[2]
    link = Link(Connection(int(sys.argv[1])))
    try:
        from harness.trial import open_device

        device = open_device(device_name)
    except Exception as error:
        link.send("refused", {"reason": str(error)})
        return
    link.send("ready", {})
    _serve(link, link.jobs.get(), device)
    gc.freeze()  # what is imported by now stays: every later collection would walk it, for 0.1 s
    while True:
        _serve(link, link.jobs.get(), device)


def _serve(link: Link, job: Job, device: Any) -> None:
    from filelock import FileLock, Timeout

    from harness.trial import run_trial

    def on_epoch(epoch: int, metrics: dict[str, float]) -> bool:
        link.send("epoch", asdict(EpochDone(job.number, epoch, metrics)))
        stop = link.replies.get()
        acknowledged(f"{Path(job.spool).name} {epoch} {metrics['smoothed']!r}")
        failpoint("worker.acknowledged")
        return stop

    # A kernel lock proves that nobody else trains this trial: it dies with its holder.
    lease = FileLock(Path(job.spool) / "lease.lock")
    try:
        lease.acquire(timeout=20)
    except Timeout:
        link.send("failed", asdict(TrialFailed(job.number, "infrastructure", "another worker trains it", "")))
        return
    failpoint("worker.begins")
    try:
        outcome = run_trial(job, device, on_epoch, link.should_stop, link.training)
        link.send("done", asdict(TrialDone(job.number, outcome)))
    except Exception as error:
        told, trace = redact(_one_line(error)), redact(traceback.format_exc())
        failed = TrialFailed(job.number, failure_kind(error), told, trace)
        link.send("failed", {**asdict(failed), "spent": is_spent(error)})  # a spent worker is replaced
    finally:
        lease.release()
        gc.collect()  # what a failed training held is not there for the next one else


def failure_kind(error: BaseException) -> FailureKind:
    """Class of a failure, which decides whether it is tried again.

    torch tells a CPU's lack of memory, and what a GPU's libraries could not allocate, by a plain RuntimeError.
    """
    from harness.room import is_full
    from harness.training import DivergedError

    if is_full(error):
        return "out_of_space"
    if isinstance(error, DivergedError):
        return "diverged"
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(words in str(error) for words in _NO_MEMORY)
    ):
        return "out_of_memory"
    if isinstance(error, OSError) or _CUDA in str(error):
        return "infrastructure"
    return "configuration"


def is_spent(error: BaseException) -> bool:
    """Whether this process can use its GPU no more: an error of CUDA comes again with every later call."""
    return _CUDA in str(error) and failure_kind(error) == "infrastructure"


def _one_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:500]


if __name__ == "__main__":
    redact_output()
    with private_files():
        main()
