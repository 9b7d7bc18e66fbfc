"""Trials in processes of this machine: persistent, single-threaded, replaced when they die.

A worker that says nothing hangs, and is ended, after so many seconds::

    started        ready    jobs           training on    training off    done
    UNWATCHED_S    never    UNWATCHED_S    hang_s         UNWATCHED_S     never
"""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from harness.core.errors import InputError, UsageError
from harness.core.files import user_umask
from harness.execution.executors.protocol import (
    EpochDone,
    Event,
    TrialDone,
    TrialFailed,
    WorkerLost,
    WorkersFailedError,
)
from harness.training.job import Job

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
# A worker that makes no step for so many seconds hangs; a step takes seconds, whatever it trains.
HANG = "HARNESS_HANG_S"
VISIBLE = "CUDA_VISIBLE_DEVICES"
HANG_S = 600.0
# The same while it starts, takes its first step or writes a model: that is longer, and not made of steps.
UNWATCHED_S = 1800.0
# What one poll may add to a worker's silence: while the coordinator itself was stopped, nobody listened.
MAX_SILENCE_S = 5.0


class PatienceError(InputError):
    """HARNESS_HANG_S is no positive, finite number of seconds."""


class DeviceRefusedError(UsageError, RuntimeError):
    """A worker cannot use the device on this machine, so no other can; the message says why."""


class _Worker:
    """One process, and the coordinator's end of its socket.

    Attributes
    ----------
    ready : it has opened its device and takes jobs
    numbers : the trials it runs: one, or a stack; none where it is idle
    training : its steps are watched: from a training's second one to its last
    silent_s : seconds without a word from it
    """

    def __init__(self, index: int, device: str, log: Path) -> None:
        ours, theirs = socket.socketpair()
        self.log = log
        with log.open("ab") as out, theirs:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "harness.execution.executors.worker",
                    str(theirs.fileno()),
                    device,
                ],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # Ctrl-C in the terminal is the coordinator's to pass on
                env={**os.environ, **THREADS, "HARNESS_WORKER": str(index), **gpu_of(index, device)},
                umask=user_umask(),  # the worker keeps the record private itself, and shares the cache
            )
        self.index = index
        self.connection: Connection[Any, Any] = Connection(ours.detach())
        self.ready = False
        self.numbers: list[int] = []
        self.training = False
        self.silent_s = 0.0

    def send(self, message: dict[str, Any]) -> None:
        with suppress(OSError):  # it died; `poll` sees the end of its socket
            self.connection.send_bytes(json.dumps(message).encode())

    def end(self) -> None:
        self.connection.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5)
        self.kill()

    def kill(self) -> None:
        """End it at once, with whatever it forked: it leads a group of its own."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class LocalExecutor:
    """`slots` worker processes on one device.

    Parameters
    ----------
    device : `cpu`, or `cuda`, of which workers take the visible GPUs in turn
    logs : folder of worker-0.log and so on, to which is appended what they print
    hang_s : seconds without a step after which a training worker is ended; None: HARNESS_HANG_S, else `HANG_S`
    """

    def __init__(self, slots: int, device: str, logs: Path, hang_s: float | None = None) -> None:
        self._slots = slots
        self._device = device
        self._logs = logs
        self._hang_s = hang_s if hang_s is not None else hang_timeout_s()
        self._polled = time.monotonic()
        logs.mkdir(parents=True, exist_ok=True)
        self._waiting: deque[tuple[Job, ...]] = deque()
        self._deaths_in_a_row = 0
        self._interrupted = False
        self._workers = [self._start(index) for index in range(slots)]

    def _start(self, index: int) -> _Worker:
        return _Worker(index, self._device, self._logs / f"worker-{index}.log")

    @staticmethod
    def check() -> None:
        """Raise PatienceError where HARNESS_HANG_S is no number of seconds."""
        hang_timeout_s()

    @staticmethod
    def default_slots(device: str) -> int:
        """One worker a core this process may use, or one a GPU."""
        if device == "cuda":
            return max(1, len(visible_gpus()))
        return max(
            1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        )

    @property
    def slots(self) -> int:
        """How many trials, or stacks of them, run at once."""
        return self._slots

    @property
    def idle(self) -> int:
        """Slots without a trial; a worker that is still starting counts, its trial waits for it."""
        return self._slots - sum(bool(worker.numbers) for worker in self._workers) - len(self._waiting)

    def submit(self, *jobs: Job) -> None:
        """Give a trial to an idle slot; several are trained as one stack. It waits until its worker is ready."""
        assert self.idle > 0, "no idle slot"
        self._waiting.append(jobs)
        self._dispatch()

    def _dispatch(self) -> None:
        for worker in self._workers:
            if self._waiting and worker.ready and not worker.numbers:
                jobs = self._waiting.popleft()
                worker.numbers = [job.number for job in jobs]
                worker.silent_s, worker.training = 0.0, False
                worker.send({"kind": "jobs", "jobs": [asdict(job) for job in jobs]})

    def poll(self, timeout_s: float) -> Iterator[Event]:
        """What happened since the last call, waiting at most this many seconds for something.

        Raises
        ------
        DeviceRefusedError
            A worker cannot use the device.
        WorkersFailedError
            More than `MAX_DEATHS` workers in a row died before they were ready; the end of the last log is quoted.
        """
        heard = wait([worker.connection for worker in self._workers], timeout_s)
        passed = min(time.monotonic() - self._polled, timeout_s + MAX_SILENCE_S)
        self._polled = time.monotonic()
        for worker in list(self._workers):
            yield from self._hear(worker) if worker.connection in heard else self._miss(worker, passed)
        self._dispatch()

    def _hear(self, worker: _Worker) -> Sequence[Event]:
        worker.silent_s = 0.0
        try:
            message = json.loads(worker.connection.recv_bytes())
        except (EOFError, OSError):
            return self._replace(worker)
        event = self._receive(worker, message)
        return [event] if event is not None else []

    def _miss(self, worker: _Worker, passed: float) -> Sequence[WorkerLost]:
        """A worker that said nothing: it died (what it forked may hold its socket open), works on, or hangs."""
        if worker.process.poll() is not None and not worker.connection.poll():
            return self._replace(worker)
        if worker.ready and not worker.numbers:
            return []
        worker.silent_s += passed
        if worker.silent_s < self._patience_s(worker):
            return []
        worker.kill()
        return self._replace(worker, hung=True)

    def _patience_s(self, worker: _Worker) -> float:
        """Seconds of silence after which this worker hangs."""
        return self._hang_s if worker.training else max(self._hang_s, UNWATCHED_S)

    def _receive(self, worker: _Worker, message: dict[str, Any]) -> Event | None:
        """Note what a worker says of itself; what it says of a trial is an event."""
        kind = message.pop("message")  # a failure has a kind of its own
        if kind == "beat":
            return None
        if kind == "training":
            worker.training = bool(message["on"])
            return None
        if kind == "ready":
            worker.ready = True
            self._deaths_in_a_row = 0
            return None
        if kind == "refused":
            raise DeviceRefusedError(message["reason"])
        if kind == "epoch":
            return EpochDone(**message)
        worker.numbers.remove(message["number"])
        if kind == "done":
            return TrialDone(**message)
        if message.pop("spent", False):  # before anything is given to it; that it ends is no event
            worker.end()
            self._renew(worker)
        return TrialFailed(**message)

    def _renew(self, worker: _Worker) -> None:
        """Have another in the place of one that ended, unless no trial comes any more."""
        if self._interrupted:
            self._workers.remove(worker)
        else:
            self._workers[worker.index] = self._start(worker.index)

    def _replace(self, worker: _Worker, *, hung: bool = False) -> Sequence[WorkerLost]:
        """One in the place of another, and who was lost with it."""
        worker.end()
        code = worker.process.returncode
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        how += ": out of memory, perhaps" if code == -9 else ""
        how = f"hang: no step for {self._patience_s(worker):g} s" if hung else how
        if self._interrupted:  # no trial comes any more
            self._renew(worker)
            return _lost(worker, "stopped")
        self._deaths_in_a_row += not worker.ready
        if self._deaths_in_a_row > MAX_DEATHS:
            raise WorkersFailedError(
                f"workers do not start ({how}); the log {worker.log} ends:\n{_tail(worker.log)}"
            )
        self._renew(worker)
        reason = how if hung else f"worker {worker.index} died ({how})"
        return _lost(worker, f"{reason}; its log: {worker.log}", hung)

    def reply(self, number: int, *, stop: bool) -> None:
        """Answer an `EpochDone`; where its worker was lost meanwhile, nobody hears it."""
        for worker in self._workers:
            if number in worker.numbers:
                worker.send({"kind": "reply", "stop": stop})

    def interrupt(self) -> None:
        """Ask every trial to stop at its next step and keep its checkpoint."""
        self._interrupted = True
        self._waiting.clear()
        for worker in self._workers:
            if worker.numbers:
                worker.send({"kind": "interrupt"})

    def close(self) -> None:
        """End every worker, by force after 5 s; a trial that still runs keeps its checkpoint."""
        for worker in self._workers:
            worker.connection.close()  # all hear of it at once
        for worker in self._workers:
            worker.end()


def _lost(worker: _Worker, reason: str, hung: bool = False) -> Sequence[WorkerLost]:
    numbers: Sequence[int | None] = worker.numbers or [None]
    return [WorkerLost(number, reason, hung) for number in numbers]


def _tail(log: Path, lines: int = 8) -> str:
    return "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-lines:])


def hang_timeout_s() -> float:
    """How long a worker may make no step, in seconds: HARNESS_HANG_S, else HANG_S.

    Raises
    ------
    PatienceError
        It is no positive number.
    """
    told = os.environ.get(HANG, "").strip()
    try:
        seconds = float(told or HANG_S)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise PatienceError(f"{HANG} is {told!r}: give seconds, more than 0 ({HANG_S:g} without it)")
    return seconds


def visible_gpus() -> list[str]:
    """GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; none where the machine does not say."""
    told = os.environ.get(VISIBLE)
    if told is not None:
        return [name for one in told.split(",") if (name := one.strip()) and name != "-1"]
    return [str(index) for index, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


def gpu_of(index: int, device: str) -> dict[str, str]:
    """What a worker's environment needs so that workers take the GPUs in turn; nothing where there is one."""
    gpus = visible_gpus() if device == "cuda" else []
    return {VISIBLE: gpus[index % len(gpus)]} if len(gpus) > 1 else {}
