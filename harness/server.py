"""The MLflow server of a record: on loopback, on a free port, gone with its owner."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from types import TracebackType

import psutil

from harness.record import Record, quiet_environment

START_TIMEOUT_S = 120.0


class ServerError(RuntimeError):
    """The MLflow server does not come up; the message names its log."""


class TrackingServer:
    """Starts in the background at once; `uri` waits until it answers.

    Given MLFLOW_TRACKING_URI in the environment, that server is used and none is started.

    Parameters
    ----------
    port : this one and no other; None for any that is free
    prefer : the port to take where it is free, and none is asked for
    """

    def __init__(self, record: Record, port: int | None = None, prefer: int | None = None) -> None:
        self.record = record
        self.team_uri = os.environ.get("MLFLOW_TRACKING_URI")
        self.port = port or (prefer if prefer and is_free(prefer) else free_port())
        self._fixed = port is not None
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False

    def __enter__(self) -> TrackingServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server without waiting for it; nothing to do where it runs already."""
        if self.team_uri or (self._process is not None and self._process.poll() is None):
            return
        self.stop()  # one that died has a pipe to close
        if not self._fixed and not is_free(self.port):
            self.port = free_port()  # somebody took it meanwhile
        self._ready = False
        command = [
            # -P: a `models.py` or `data/` of the user's own must not stand before the packages.
            sys.executable, "-P", "-m", "mlflow", "server",
            # Relative to the record: no letter of its path can be mistaken for a part of a URL.
            "--backend-store-uri", f"sqlite:///{self.record.database.name}",
            "--artifacts-destination", self.record.artifacts.name,
            "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            # Any port of loopback: an ssh tunnel may come in through another one. Foreign names get 403.
            "--allowed-hosts", "localhost:*,127.0.0.1:*",
        ]  # fmt: skip
        with self.record.server_log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "harness.supervisor", *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=quiet_environment(),
                cwd=self.record.root,
            )

    @property
    def uri(self) -> str:
        """The address, once the server answers.

        Raises
        ------
        ServerError
            The server ended, or did not answer in time; its log is named.
        """
        if self.team_uri:
            return self.team_uri
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._ready:
            ended = self._process is None or self._process.poll() is not None
            if ended and not self._fixed and not is_free(self.port):
                self.start()  # somebody was faster: on another port
            elif ended:
                raise ServerError(
                    f"the MLflow server ended while starting; its log: {self.record.server_log}"
                )
            if time.monotonic() > deadline:
                raise ServerError(
                    f"the MLflow server did not answer in {START_TIMEOUT_S:.0f} s; its log: {self.record.server_log}"
                )
            # Another server may answer there: what it holds is not this record.
            self._ready = self._listens() and _answers(f"http://127.0.0.1:{self.port}/health")
            if not self._ready:
                time.sleep(0.1)
        return f"http://127.0.0.1:{self.port}"

    def _listens(self) -> bool:
        """Whether the process, or a descendant of it, is who listens on the port."""
        assert self._process is not None
        try:
            leader = psutil.Process(self._process.pid)
            return any(
                connection.status == psutil.CONN_LISTEN and connection.laddr.port == self.port
                for process in (leader, *leader.children(recursive=True))
                for connection in process.net_connections("inet")
            )
        except psutil.Error:  # it is just ending
            return False

    @property
    def alive(self) -> bool:
        """Whether the process is still there (always true for a team's server)."""
        return bool(self.team_uri) or (self._process is not None and self._process.poll() is None)

    def stop(self) -> None:
        """End the server and wait for it; safe to call twice."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=15)
        with suppress(ProcessLookupError):  # a supervisor that was killed leaves its group behind
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether nobody listens on this port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _answers(address: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
