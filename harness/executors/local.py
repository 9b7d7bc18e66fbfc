"""Trials in processes of this machine: persistent, single-threaded, replaced when they die."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from harness.executors.protocol import (
    EpochDone,
    Event,
    Job,
    TrialDone,
    TrialFailed,
    WorkerLost,
    WorkersFailedError,
)

# One thread of arithmetic a worker: two workers with two threads each are 4-23x slower (spinning barriers).
THREADS = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "NUMBA_NUM_THREADS",
    ),
    "1",
)


# Workers that die before they are ready, in a row, before the sweep gives up.
MAX_DEATHS = 3


class DeviceRefusedError(RuntimeError):
    """The device cannot be used on this machine; the message says why."""


class _Worker:
    def __init__(self, index: int, device: str, log: Path) -> None:
        ours, theirs = socket.socketpair()
        self.log = log
        with log.open("ab") as out, theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "harness.executors.worker", str(theirs.fileno()), device],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # Ctrl-C in the terminal is the coordinator's to pass on
                env={**os.environ, **THREADS, "HARNESS_WORKER": str(index)},
            )
        self.index = index
        self.connection: Connection[Any, Any] = Connection(ours.detach())
        self.ready = False
        self.number: int | None = None

    def send(self, message: dict[str, Any]) -> None:
        with suppress(OSError):  # it died; `poll` sees the end of its socket
            self.connection.send_bytes(json.dumps(message).encode())

    def end(self) -> None:
        self.connection.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class LocalExecutor:
    """`slots` worker processes on one device."""

    def __init__(self, slots: int, device: str, logs: Path) -> None:
        self._slots = slots
        self._device = device
        self._logs = logs
        logs.mkdir(parents=True, exist_ok=True)
        self._waiting: deque[Job] = deque()
        self._deaths_in_a_row = 0
        self._workers = [self._start(index) for index in range(slots)]

    def _start(self, index: int) -> _Worker:
        return _Worker(index, self._device, self._logs / f"worker-{index}.log")

    @property
    def slots(self) -> int:
        """How many trials run at once."""
        return self._slots

    @property
    def idle(self) -> int:
        """Slots without a trial; a worker that is still starting counts, its trial waits for it."""
        return sum(worker.number is None for worker in self._workers) - len(self._waiting)

    def submit(self, job: Job) -> None:
        """Give a trial to an idle slot."""
        assert self.idle > 0, "no idle slot"
        self._waiting.append(job)
        self._dispatch()

    def _dispatch(self) -> None:
        for worker in self._workers:
            if self._waiting and worker.ready and worker.number is None:
                job = self._waiting.popleft()
                worker.number = job.number
                worker.send({"kind": "job", "job": asdict(job)})

    def poll(self, timeout_s: float) -> Iterator[Event]:
        """What happened since the last call, waiting at most this long for something."""
        by_connection = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(by_connection), timeout_s):
            worker = by_connection[connection]  # type: ignore[index]
            try:
                message = json.loads(worker.connection.recv_bytes())
            except (EOFError, OSError):
                yield self._replace(worker)
                continue
            event = self._receive(worker, message)
            if event is not None:
                yield event
        self._dispatch()

    def _receive(self, worker: _Worker, message: dict[str, Any]) -> Event | None:
        kind = message.pop("kind")
        if kind == "ready":
            worker.ready = True
            self._deaths_in_a_row = 0
            return None
        if kind == "refused":
            raise DeviceRefusedError(message["reason"])
        if kind == "epoch":
            return EpochDone(**message)
        worker.number = None
        return TrialDone(**message) if kind == "done" else TrialFailed(**message)

    def _replace(self, worker: _Worker) -> WorkerLost:
        worker.end()
        code = worker.process.returncode
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        how += ": out of memory, perhaps" if code == -9 else ""
        self._deaths_in_a_row += not worker.ready
        if self._deaths_in_a_row > MAX_DEATHS:
            raise WorkersFailedError(
                f"workers do not start ({how}); the log {worker.log} ends:\n{_tail(worker.log)}"
            )
        self._workers[worker.index] = self._start(worker.index)
        return WorkerLost(worker.number, f"worker {worker.index} died ({how}); its log: {worker.log}")

    def reply(self, number: int, *, stop: bool) -> None:
        """Answer an `EpochDone`."""
        for worker in self._workers:
            if worker.number == number:
                worker.send({"kind": "reply", "stop": stop})

    def interrupt(self) -> None:
        """Ask every trial to stop at its next step and keep its checkpoint."""
        self._waiting.clear()
        for worker in self._workers:
            worker.send({"kind": "interrupt"})

    def close(self) -> None:
        """End every worker; a trial that still runs keeps its checkpoint."""
        for worker in self._workers:
            worker.connection.close()  # all hear of it at once
        for worker in self._workers:
            worker.end()


def _tail(log: Path, lines: int = 8) -> str:
    return "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-lines:])


def default_slots(device: str) -> int:
    """One worker a core this process may use; one on a GPU."""
    if device == "cuda":
        return 1
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
