"""Row 23: who may not speak to the servers that the harness starts, and where they listen."""

import asyncio
import base64
import http.client
import json
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.study.storage.record import Record
from harness.tracking.server.access_control import AccessControlMiddleware
from harness.tracking.server.app import allowed_hosts
from harness.tracking.server.server import OpenServerError, refuse_open_server
from tests.harness.places.workplace import Workspace, run_in_process

PASSWORD = "correct horse battery"
API = "/api/2.0/mlflow"


def proof(password: str, scheme: str = "Basic") -> dict[str, str]:
    return {"Authorization": f"{scheme} {base64.b64encode(f'me:{password}'.encode()).decode()}"}


@dataclass
class Door:
    """A server that asks for a password, and raw requests to it."""

    port: int
    process: psutil.Process
    known: dict[str, str] = field(default_factory=lambda: proof(PASSWORD))

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: str = "",
        hosts: tuple[str, ...] | None = None,
        **headers: str,
    ) -> tuple[int, str]:
        """Status and text of one request; `hosts` are its Host headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_host=True)
            for host in (self.host,) if hosts is None else hosts:
                connection.putheader("Host", host)
            for name, value in {**self.known, "Content-Type": "application/json", **headers}.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body.encode())
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")
        finally:
            connection.close()


@pytest.fixture(scope="module")
def door(
    tmp_path_factory: pytest.TempPathFactory, new_record: Callable[[Path], Record], demo_cache: Path
) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("doors")
    new_record(folder / "mlruns")
    place = Workspace(folder, demo_cache)
    process = place.start("ui", "--quiet", HARNESS_UI_PASSWORD=PASSWORD)
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:"), process.communicate()
    yield Door(int(url.rpartition(":")[2]), psutil.Process(process.pid))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0


EVIL = "http://evil.example"


def host_probes(door: Door) -> list[tuple[str, dict[str, Any]]]:
    port = door.port
    hosts = [
        ("evil.example",), (f"evil.example:{port}",), (f"127.0.0.1.evil.example:{port}",), ("localhost.evil.example",),
        (f"10.0.0.5:{port}",), (f"0.0.0.0:{port}",), (f"localhost@evil.example:{port}",), ("localhost:80.evil.example",), (),
        (door.host, "evil.example"),
    ]  # fmt: skip
    return [(f"{API}/experiments/search?max_results=1", {"hosts": one}) for one in hosts] + [
        ("/health", {"hosts": ("evil.example",)})
    ]


def origin_probes(door: Door) -> list[tuple[str, dict[str, Any]]]:
    create: dict[str, Any] = {"method": "POST", "body": '{"name": "planted"}'}
    other = "http://localhost:8888"  # a notebook, another user's page: MLflow alone lets them in
    foreign = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"}
    framed = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"}
    return [
        (f"{API}/experiments/create", {**create, "Origin": EVIL}),
        (f"{API}/experiments/create", {**create, "Origin": "null"}),
        (f"{API}/experiments/create", {**create, "Origin": other}),
        (f"{API}/experiments/create", {**create, "Origin": f"https://{door.host}"}),
        (f"{API}/experiments/create", {**create, "Content_Type": "text/plain", **foreign}),
        (f"{API}/experiments/search?max_results=1", {"Origin": other}),
        (
            f"{API}/experiments/create",
            {"method": "OPTIONS", "Origin": other, "Access_Control_Request_Method": "POST"},
        ),
        ("/graphql", {**create, "Origin": EVIL}),
        ("/v1/traces", {**create, "Origin": other}),
        ("/", framed),
    ]


def path_probes(door: Door) -> list[tuple[str, dict[str, Any]]]:
    _, text = door.ask(f"{API}/runs/create", "POST", '{"experiment_id": "0"}')
    run = json.loads(text)["run"]["info"]["run_id"]
    artifacts = "/api/2.0/mlflow-artifacts/artifacts"
    paths = [
        f"{artifacts}/../../mlflow.db", f"{artifacts}/%2e%2e/%2e%2e/mlflow.db", f"{artifacts}/%252e%252e/mlflow.db",
        f"{artifacts}//etc/passwd", f"{artifacts}?path=../..", f"/get-artifact?run_uuid={run}&path=../../../mlflow.db",
        f"/get-artifact?run_uuid={run}&path=/etc/passwd", "/static-files/../../../../../etc/passwd",
        "/static-files/..%5c..%5cetc/passwd",
    ]  # fmt: skip
    written = {"method": "PUT", "body": "planted"}
    assistant = {"method": "POST", "body": "{}"}
    return [
        *((path, {}) for path in paths),
        (f"{artifacts}/%2e%2e/planted", written),
        ("/ajax-api/3.0/mlflow/assistant/message", assistant),
    ]


def password_probes() -> list[tuple[str, dict[str, Any]]]:
    wrong = [
        {"Authorization": ""}, proof("wrong"), proof(""), proof(PASSWORD, "Bearer"), proof(PASSWORD + "x"),
        {"Authorization": "Basic ???"}, {"Authorization": "Basic " + PASSWORD},
        {"Authorization": "Basic \xe9\xe9"},
    ]  # fmt: skip
    return [(f"{API}/experiments/search?max_results=1", one) for one in wrong] + [
        ("/", wrong[0]), ("/health", wrong[0]), ("/static-files/index.html", wrong[0]),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.row(23)
def test_nobody_else_gets_in(door: Door, measured: Callable[..., None]) -> None:
    probes = {
        "Host": (host_probes(door), {403, 400}),
        "Origin": (origin_probes(door), {403}),
        "path": (path_probes(door), {400, 403}),
        "password": (password_probes(), {401}),
    }
    passed, refused = [], {kind: 0 for kind in probes}
    for kind, (asked, wanted) in probes.items():
        for path, how in asked:
            status, text = door.ask(path, **how)
            refused[kind] += status in wanted
            if status not in wanted or "root:" in text or "SQLite" in text:
                passed.append((kind, path, how, status, text[:80]))
    assert passed == []
    _, text = door.ask(f"{API}/experiments/search?max_results=100")
    assert [one["name"] for one in json.loads(text)["experiments"]] == ["Default"], "a probe wrote"
    total = sum(len(asked) for asked, _ in probes.values())
    kinds = ", ".join(f"{count} {kind}" for kind, count in refused.items())
    measured(
        f"{sum(refused.values())} of {total} probes refused ({kinds})",
        holds=sum(refused.values()) == total >= 30,
    )


@pytest.mark.slow
def test_who_may_come_in_does(door: Door) -> None:
    """The user's own browser, a tunnel from another port, a link that somebody sent."""
    search = f"{API}/experiments/search?max_results=1"
    tunnel = "localhost:8080"
    own = {"Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "cors", "Origin": f"http://{tunnel}"}
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert door.ask(search)[0] == 200
    assert door.ask(search, hosts=(tunnel,), **own)[0] == 200
    assert (
        door.ask(f"{API}/experiments/search", "POST", '{"max_results": 1}', hosts=(tunnel,), **own)[0] == 200
    )
    assert door.ask("/", **link)[0] == 200
    assert door.ask("/health")[0] == 200


def listeners(process: psutil.Process) -> list[str]:
    """Addresses, without ports, on which a process and its descendants listen."""
    family = [process, *process.children(recursive=True)]
    found = [one for member in family for one in member.net_connections("inet")]
    return [
        one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN or one.type == socket.SOCK_DGRAM
    ]


@pytest.mark.slow
@pytest.mark.row(23)
def test_the_ui_listens_on_loopback_only(door: Door, measured: Callable[..., None]) -> None:
    found = listeners(door.process)
    outside = [ip for ip in found if ip != "127.0.0.1"]
    measured(
        f"ui: {len(found)} listener, {len(outside)} beyond loopback", holds=len(found) == 1 and not outside
    )


@pytest.mark.parametrize(
    ("host", "password", "told"),
    [
        ("192.0.2.7", None, "set HARNESS_UI_PASSWORD .* `ssh -L"),
        ("192.0.2.7", "short", "has 5 characters, 16 or more"),
        ("127.0.0.1", "short", "has 5 characters"),
        ("0.0.0.0", PASSWORD, "is not one IPv4 address"),
        ("::", PASSWORD, "is not one IPv4 address"),
        ("example.org", PASSWORD, "is not one IPv4 address"),
        ("192.0.2.77", PASSWORD, "is not an address of this machine"),
    ],
)
def test_an_open_server_is_refused(host: str, password: str | None, told: str) -> None:
    with pytest.raises(OpenServerError, match=told):
        refuse_open_server(host, password)


def test_the_command_refuses_before_anything_starts(
    tmp_path: Path, new_record: Callable[[Path], Record], demo_cache: Path
) -> None:
    record = new_record(tmp_path / "mlruns")
    assert run_in_process(tmp_path, demo_cache, "ui", "--host", "192.0.2.7", code=2) == ""
    assert not record.server_log.exists()


async def application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})


def status_of(door: AccessControlMiddleware, **headers: str) -> int:
    """What a door that nobody listens behind answers to a request."""
    answers: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answers.append(message["status"])

    sent = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    asyncio.run(door({"type": "http", "method": "GET", "path": "/", "headers": sent}, None, send))
    (status,) = answers
    return status


@pytest.mark.parametrize("how", [one[1] for one in password_probes()])
def test_whatever_is_no_password_is_answered_401(how: dict[str, str]) -> None:
    asks = AccessControlMiddleware(application, allowed_hosts("127.0.0.1"), PASSWORD)
    assert status_of(asks, Host="127.0.0.1", **how) == 401
    assert status_of(asks, Host="127.0.0.1", **proof(PASSWORD)) == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("192.0.2.7:5000", 200), ("192.0.2.7", 200), ("localhost:5000", 403), ("evil.example", 403)],
)
def test_another_address_is_its_servers_only_name(host: str, status: int) -> None:
    assert status_of(AccessControlMiddleware(application, allowed_hosts("192.0.2.7")), Host=host) == status
