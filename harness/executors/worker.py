"""A persistent worker: `python -m harness.executors.worker FD`, one trial at a time, one thread of arithmetic.

It talks JSON over one socket. A watcher thread reads it and ends the process when the coordinator is gone,
however that died: nobody trains for a coordinator that is not there.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import traceback
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness.executors.protocol import EpochDone, FailureKind, Job, TrialDone, TrialFailed


class Link:
    """The worker's end of the socket."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection
        self.jobs: queue.Queue[Job] = queue.Queue()
        self.replies: queue.Queue[bool] = queue.Queue()
        self.interrupted = threading.Event()
        threading.Thread(target=self._watch, name="watcher", daemon=True).start()

    def send(self, kind: str, content: dict[str, Any]) -> None:
        """Send one message; a coordinator that is gone ends the process."""
        try:
            self._connection.send_bytes(json.dumps({"kind": kind, **content}).encode())
        except OSError:
            os._exit(1)

    def _watch(self) -> None:
        while True:
            try:
                message = json.loads(self._connection.recv_bytes())
            except (EOFError, OSError):
                os._exit(1)
            if message["kind"] == "job":
                self.jobs.put(Job(**message["job"]))
            elif message["kind"] == "reply":
                self.replies.put(bool(message["stop"]))
            elif message["kind"] == "interrupt":
                self.interrupted.set()


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
    while True:
        _serve(link, link.jobs.get(), device)


def _serve(link: Link, job: Job, device: Any) -> None:
    from filelock import FileLock, Timeout

    from harness.trial import run_trial

    def on_epoch(epoch: int, metrics: dict[str, float]) -> bool:
        link.send("epoch", asdict(EpochDone(job.number, epoch, metrics)))
        return link.replies.get()

    # A kernel lock proves that nobody else trains this trial: it dies with its holder.
    lease = FileLock(Path(job.spool) / "lease.lock")
    try:
        lease.acquire(timeout=20)
    except Timeout:
        link.send("failed", asdict(TrialFailed(job.number, "infrastructure", "another worker trains it", "")))
        return
    try:
        outcome = run_trial(job, device, on_epoch, link.interrupted.is_set)
        link.send("done", asdict(TrialDone(job.number, outcome)))
    except Exception as error:
        failed = TrialFailed(job.number, failure_kind(error), _one_line(error), traceback.format_exc())
        link.send("failed", asdict(failed))
    finally:
        lease.release()


def failure_kind(error: BaseException) -> FailureKind:
    """Class of a failure, which decides whether it is tried again."""
    from harness.training import DivergedError

    if isinstance(error, DivergedError):
        return "diverged"
    # torch says a CPU's lack of memory with a plain RuntimeError
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "allocate memory" in str(error)
    ):
        return "out_of_memory"
    if isinstance(error, OSError):
        return "infrastructure"
    return "configuration"


def _one_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:500]


if __name__ == "__main__":
    main()
