"""Workers of the quick form: forked from the process that has imported torch, which takes each of them 5 s else."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


class Forked:
    """What `LocalExecutor` uses of a `Popen`, of a program that takes its socket's number and its other arguments."""

    def __init__(
        self, program: str, socket: int, arguments: list[str], environment: Mapping[str, str], log: str
    ) -> None:
        connection: Connection[Any, Any] = Connection(os.dup(socket))
        self._process = multiprocessing.get_context("forkserver").Process(
            target=_run, args=(program, connection, arguments, dict(environment), log)
        )
        self._process.start()
        connection.close()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """As a `Popen`'s."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """As a `Popen`'s."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """As a `Popen`'s."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return self._process.exitcode


def _run(
    program: str,
    connection: Connection[Any, Any],
    arguments: list[str],
    environment: dict[str, str],
    log: str,
) -> None:
    os.setsid()
    with Path(log).open("ab") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    os.environ.update(environment)
    sys.argv = [program, str(connection.fileno()), *arguments]
    runpy.run_module(program, run_name="__main__")
