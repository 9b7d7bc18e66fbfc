"""A TCP proxy before an MLflow server that loses answers after they were given, refuses connections, or stands still."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal
from urllib.parse import urlsplit

CHUNK = 65_536
BACKEND_S = 60.0


class Proxy:
    """Forwards whole requests one by one, and answers as they come back, unless it is told otherwise.

    mode : `pass`; `refuse` (nobody listens) or `stall` (requests are taken and never passed on)
    requests : "POST /api/2.0/mlflow/runs/create", in the order in which they came
    lost : of these the answers that were swallowed, after the server had given them
    lose : which answers to lose; asked with the number of the request (from 0) and the request
    """

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        self._server = (parts.hostname, parts.port)
        self.mode: Literal["pass", "refuse", "stall"] = "pass"
        self.requests: list[str] = []
        self.lost: list[str] = []
        self.lose: Callable[[int, str], bool] = lambda number, request: False
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = self._listen(0)
        self.port = self._listener.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def refuse(self) -> None:
        """Be gone: connections break, new ones are refused."""
        self.mode = "refuse"
        self._close(self._listener)
        self._hang_up()

    def stall(self) -> None:
        """Take every request from now on, and answer none."""
        self.mode = "stall"

    def go_on(self) -> None:
        """Be there as before; what came while it stood still is answered by a closed connection."""
        before, self.mode = self.mode, "pass"
        if before == "refuse":
            self._listener = self._listen(self.port)
        else:
            self._hang_up()

    def close(self) -> None:
        self.refuse()

    def _hang_up(self) -> None:
        with self._lock:
            for one in list(self._open):
                self._close(one)

    @staticmethod
    def _close(one: socket.socket) -> None:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)  # wakes whoever reads from it
        one.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            self._open.add(client)
        try:
            with client.makefile("rb") as reader:
                while (request := _request(reader)) is not None:
                    if self.mode == "stall":
                        client.recv(1)  # until somebody hangs up
                        return
                    if not self._answer(client, *request):
                        return
        except OSError:
            return
        finally:
            with self._lock:
                self._open.discard(client)
            self._close(client)

    def _answer(self, client: socket.socket, name: str, content: bytes) -> bool:
        """Pass a request on and its answer back; false where the answer is lost."""
        with self._lock:
            lose = self.lose(len(self.requests), name)
            self.requests.append(name)
        answer = self._ask(content)
        if lose:
            with self._lock:
                self.lost.append(name)
            return False
        client.sendall(answer)
        return False  # the server closes after each answer, and so do we

    def _ask(self, content: bytes) -> bytes:
        with socket.create_connection(self._server, timeout=BACKEND_S) as server:
            server.sendall(content)
            parts = []
            while part := server.recv(CHUNK):
                parts.append(part)
            return b"".join(parts)


def _request(reader) -> tuple[str, bytes] | None:
    """The next request: method and path, and its bytes, which ask the server to close afterwards."""
    first = reader.readline()
    if not first:
        return None
    method, path, _ = first.split(b" ", 2)
    lines, length, chunked = [first, b"Connection: close\r\n"], 0, False
    while (line := reader.readline()) not in (b"\r\n", b""):
        key, _, value = line.partition(b":")
        if key.lower() == b"content-length":
            length = int(value)
        chunked = chunked or (key.lower() == b"transfer-encoding" and b"chunked" in value.lower())
        if key.lower() != b"connection":
            lines.append(line)
    body = b"".join(_chunks(reader)) if chunked else reader.read(length)
    return f"{method.decode()} {path.decode().partition('?')[0]}", b"".join([*lines, b"\r\n", body])


def _chunks(reader) -> Iterator[bytes]:
    """A chunked body, as it came."""
    while True:
        size = reader.readline()
        chunk = reader.read(int(size.partition(b";")[0], 16) + 2)
        yield size + chunk
        if len(chunk) == 2:
            return


@contextmanager
def proxied(uri: str) -> Iterator[Proxy]:
    """A proxy before the server at this address."""
    proxy = Proxy(uri)
    try:
        yield proxy
    finally:
        proxy.close()
