"""Programs that are run as arms: with a mark in their environment, by which all that they started is ended."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.execution.executors.local import THREADS
from tests.benchmarks.rounds import Reading, cpu_of_tree

ROOT = Path(__file__).parents[2]
MARK = "BENCHMARK_ARM"
_EXCEPTION = re.compile(
    r"^(?:\w+\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt)(?:\(\w+\))?(?:: .*)?$", re.MULTILINE
)
ENDING_S = 10.0  # daemons see that their owner is gone within a few seconds


class ProgramFailed(RuntimeError):  # noqa: N818 - what it is
    """An arm's program ended with an error; the message has the end of what it printed, `reason` one line of it."""

    def __init__(self, words: Sequence[str | Path], reason: str, printed: str) -> None:
        super().__init__(f"{' '.join(map(str, words))}: {reason}\n{printed[-4000:]}")
        self.reason = reason


@dataclass(frozen=True)
class Ran:
    """What a program took, until it ended; left_over : processes of it that did not end by themselves."""

    reading: Reading
    left_over: int


def run_program(
    words: Sequence[str | Path], folder: Path, limit_s: float, settings: Mapping[str, str] | None = None
) -> Ran:
    """Run a program in a folder, on one thread, this project on its path; afterwards nothing of it runs.

    Raises
    ------
    ProgramFailed
        It failed, or took longer than `limit_s` seconds.
    """
    mark = uuid.uuid4().hex
    log = folder / "program.log"
    environment = {
        **os.environ,
        **THREADS,
        **quiet(),
        **(settings or {}),
        MARK: mark,
        "PYTHONPATH": str(ROOT),
    }
    cpu_before, began = cpu_of_tree(), time.perf_counter()
    with log.open("wb") as out:
        child = subprocess.Popen(
            [str(word) for word in words], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
            stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            code = child.wait(limit_s)
            reading = Reading(time.perf_counter() - began, cpu_of_tree() - cpu_before)
        except subprocess.TimeoutExpired:
            raise ProgramFailed(words, f"not done after {limit_s:g} s", _printed(log)) from None
        finally:
            child.kill()
            child.wait()
            left_over = end_marked(mark)
    if code:
        printed = _printed(log)
        raise ProgramFailed(words, exception_line(printed) or f"exit code {code}", printed)
    return Ran(reading, left_over)


def harness_sweep(sweep: Path, record: Path, cache: Path, *more: str) -> list[str | Path]:
    """The words of a sweep on this machine's cores, from no server, no worker and an empty record."""
    program = [sys.executable, "-P", "-m", "harness.cli.main"]
    return [
        *program,
        "sweep",
        sweep,
        "--record",
        record,
        "--cache",
        cache,
        "--device",
        "cpu",
        "--quiet",
        *more,
    ]


def _printed(log: Path) -> str:
    return log.read_text("utf-8", "replace")


def exception_line(printed: str) -> str | None:
    """The last line of a program's output that names an exception, as a traceback ends; what follows is its talk."""
    found = _EXCEPTION.findall(printed)
    return found[-1].strip()[:300] if found else None


def quiet() -> dict[str, str]:
    """Environment that keeps every arm from telling anybody of itself, and from asking a proxy for loopback."""
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the switch by which Ray binds to loopback, on Linux too
        "RAY_worker_niceness": "0",  # 15 by itself, so that its trials wait for anybody else
        "RAY_AUTH_TOKEN": uuid.uuid4().hex,  # else it leaves one in the home directory
        "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1", "NO_COLOR": "1",
        "GIT_PYTHON_REFRESH": "quiet", "no_proxy": "127.0.0.1,localhost",
    }  # fmt: skip


def end_marked(mark: str) -> int:
    """End the processes that carry a mark and do not end by themselves; how many those were."""
    deadline = time.monotonic() + ENDING_S
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=ENDING_S)
    return len(left)


def marked(mark: str) -> list[psutil.Process]:
    """Living processes whose environment carries a mark."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
