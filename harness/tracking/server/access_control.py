"""Who may speak to a server on loopback: the checks before MLflow's application, for every path of it.

    Host             a name of this machine that was expected, else 403 (a rebound DNS name)
    Origin           the server's own, else 403: another page in the user's browser, of another port too
    Sec-Fetch-Site   the same: what a page of another site makes the browser fetch without an Origin
    password         where one is set: else 401
    path             without `..`, else 400
    assistant        403: MLflow's runs programs of the user for whoever asks

MLflow's own checks come after these. Alone they let pages of any other port of this machine read and write.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost")
BLOCKED_PATHS = ("/ajax-api/3.0/mlflow/assistant",)
_HEADERS = (
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"referrer-policy", b"same-origin"),
)


class AccessControlMiddleware:
    """The ASGI application that stands before MLflow's: it answers what it refuses, and hands everything else on.

    Answers of both get headers that keep other origins from reading them. WebSockets are closed (code 1008).

    Parameters
    ----------
    names : hosts by which the server may be called, at any port: an ssh tunnel may come in through another one
    password : what HTTP's basic authentication must bring, with any user name; None asks for nothing
    """

    def __init__(self, app: App, names: Iterable[str], password: str | None = None) -> None:
        self._app = app
        self._names = frozenset(names)
        self._password = password

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refusal (400, 401 or 403, in one line of text), or hand the request on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await _answer(send, *refusal)
            return

        async def hardened(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        await self._app(scope, receive, hardened)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        host = headers.get("host", [])
        if len(host) != 1 or not self._is_allowed_host(host[0]):
            return 403, "this server is not called by that name"
        if any(origin != f"http://{host[0]}" for origin in headers.get("origin", [])):
            return 403, "requests of other pages are refused"
        if _is_cross_site(scope["method"], headers):
            return 403, "requests of other sites are refused"
        if self._password is not None and not _has_password(headers.get("authorization", []), self._password):
            return 401, "the password is missing or wrong"
        path = scope["path"]
        if ".." in path.replace("\\", "/").split("/") or "\0" in path:
            return 400, "this path leads out of its folder"
        if path.startswith(BLOCKED_PATHS):
            return 403, "the assistant is off"
        return None

    def _is_allowed_host(self, host: str) -> bool:
        name, colon, port = host.rpartition(":")
        return (name if colon else host) in self._names and (not colon or port.isdecimal())


def _is_cross_site(method: str, headers: dict[str, list[str]]) -> bool:
    """Whether a browser says that a page of elsewhere asks; a link that a person follows is no such request."""
    site = headers.get("sec-fetch-site", ["none"])
    if all(one in ("same-origin", "none") for one in site):
        return False
    followed = headers.get("sec-fetch-mode") == ["navigate"] and headers.get("sec-fetch-dest") == ["document"]
    return not (followed and method == "GET")


def _has_password(authorization: list[str], password: str) -> bool:
    scheme, _, encoded = authorization[0].partition(" ") if len(authorization) == 1 else ("", "", "")
    try:
        given = base64.b64decode(encoded, validate=True).partition(b":")[2]
    except ValueError:  # not of base64, or of letters beyond ASCII
        return False
    return scheme.lower() == "basic" and hmac.compare_digest(given, password.encode())


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="harness", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode() + b"\n"})
