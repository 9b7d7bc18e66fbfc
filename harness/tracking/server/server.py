"""The MLflow server of a record: on loopback, on a free port, gone with its owner.

It listens elsewhere only where a person asked for that (`harness ui --host`) and set a password.
"""

from __future__ import annotations

import ipaddress
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
from urllib.parse import urlsplit

import psutil

from harness.core.environment import quiet_environment
from harness.core.errors import FailedError, InputError
from harness.core.files import PRIVATE
from harness.study.storage.record import Record
from harness.tracking.server.app import PASSWORD

START_TIMEOUT_S = 120.0
LOOPBACK = "127.0.0.1"
PASSWORD_LENGTH = 16


class OpenServerError(InputError):
    """A server that would be open to others than its user; the message says what to do."""


class TeamServerError(InputError):
    """MLFLOW_TRACKING_URI is not an http(s) address; the message shows it without its password."""


class ServerError(FailedError, RuntimeError):
    """The MLflow server does not come up; the message names its log."""


class TrackingServer:
    """Starts in the background at once; `uri` waits until it answers.

    Given MLFLOW_TRACKING_URI in the environment, that server is used and none is started.

    Parameters
    ----------
    port : this one and no other; None for any that is free
    prefer : the port to take where it is free, and none is asked for
    host : the address to listen on
    password : what every request must bring; without one it is `host` 127.0.0.1

    Raises
    ------
    OpenServerError
        An address beyond loopback without a password that is worth the name.
    """

    def __init__(
        self,
        record: Record,
        port: int | None = None,
        prefer: int | None = None,
        *,
        host: str = LOOPBACK,
        password: str | None = None,
    ) -> None:
        refuse_open_server(host, password)
        self.host, self._password = host, password
        self.record = record
        self.team_uri = team_uri()
        self.port = port or (prefer if prefer and is_free(prefer, host) else free_port(host))
        self._fixed = port is not None
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False

    def __enter__(self) -> TrackingServer:
        self.record.check()
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
        if not self._fixed and not is_free(self.port, self.host):
            self.port = free_port(self.host)  # somebody took it meanwhile
        self._ready = False
        # -P: a `models.py` or `data/` of the user's own must not stand before the packages.
        run_module = [sys.executable, "-P", "-m"]
        command = [*run_module, "harness.tracking.server.app", self.host, str(self.port)]
        environment = quiet_environment()
        if self._password is not None:
            environment[PASSWORD] = self._password
        else:
            environment.pop(PASSWORD, None)  # a sweep's own server: its clients bring none
        with self.record.server_log.open("ab") as log:
            self._process = subprocess.Popen(
                [*run_module, "harness.tracking.server.supervisor", *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
                cwd=self.record.root,
                umask=PRIVATE,
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
            if ended and not self._fixed and not is_free(self.port, self.host):
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
            self._ready = self._listens() and _answers(f"http://{self.host}:{self.port}/health")
            if not self._ready:
                time.sleep(0.1)
        return f"http://{self.host}:{self.port}"

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
        """End the server and wait for it, at most 15 s before its process group is killed; safe to call twice."""
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


def team_uri() -> str | None:
    """The address of the team's server that is to be used; None where there is none.

    Raises
    ------
    TeamServerError
        It is no http(s) address.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return None
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        given = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        raise TeamServerError(
            f"MLFLOW_TRACKING_URI is {given!r}, not the address of an MLflow server such as "
            "http://mlflow.example:5000: correct it, or unset it for the record's own"
        )
    return uri


def refuse_open_server(host: str, password: str | None) -> None:
    """Refuse a server that others could read and change the record through.

    Raises
    ------
    OpenServerError
        It would listen beyond loopback without a password, at no single IPv4 address of this machine, or the password
        has fewer than PASSWORD_LENGTH characters.
    """
    if password is not None and len(password) < PASSWORD_LENGTH:
        raise OpenServerError(
            f"{PASSWORD} has {len(password)} characters, {PASSWORD_LENGTH} or more are wanted: "
            "`python -c 'import secrets; print(secrets.token_urlsafe())'` makes one"
        )
    if host == LOOPBACK:
        return
    if host in ("0.0.0.0", "") or not _is_ipv4(host):
        raise OpenServerError(
            f"{host!r} is not one IPv4 address of this machine: give the address that the others use; "
            f"it is the only name under which the server answers. Without --host it is {LOOPBACK}"
        )
    if password is None:
        raise OpenServerError(
            f"anybody who reaches {host} could read and change the record: set {PASSWORD} to a password first, or "
            f"leave --host out and use `ssh -L 5000:{LOOPBACK}:5000 THIS_MACHINE`, which is encrypted as well"
        )
    free_port(host)


def _is_ipv4(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def free_port(host: str = LOOPBACK) -> int:
    """A port that nobody listens on now; OpenServerError where the address is not this machine's.

    It may be taken before it is used: `TrackingServer` looks for another then.
    """
    with socket.socket() as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            raise OpenServerError(f"{host} is not an address of this machine ({error.strerror})") from None
        return int(probe.getsockname()[1])


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether nobody listens on this port; connections that wait to be forgotten by the kernel do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _answers(address: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=2) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code == 401  # it is up, and asks for its password
    except (urllib.error.URLError, OSError):
        return False
