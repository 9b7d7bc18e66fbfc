"""A tracking server that is away, stopped, or never there: training goes on and no epoch is lost."""

from __future__ import annotations

import http.server
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.study.storage.record import Record
from harness.tracking.experiment import Tracking, connect
from harness.tracking.server.server import TeamServerError, TrackingServer
from harness.tracking.writer import Writer
from tests.faults.outages import (
    SLOWER,
    Outages,
    epochs_of,
    meanwhile,
    one_trial,
    told_since,
    trial_of,
    wait_for_epochs,
)
from tests.faults.proxy import Proxy, proxied
from tests.harness.places.tracked_trials import ended, everything, spooled
from tests.harness.places.workplace import run_in_process, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, new_record: Callable[[Path], Record]
) -> Iterator[TrackingServer]:
    """A team's server, on a record of its own."""
    record = new_record(tmp_path_factory.mktemp("team") / "mlruns")
    with TrackingServer(record) as server:
        assert server.uri
        yield server


@contextmanager
def stopped(server: TrackingServer) -> Iterator[None]:
    """In this block the server stands still."""
    assert server._process is not None
    os.killpg(server._process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(server._process.pid, signal.SIGCONT)


@pytest.mark.row(11)
def test_a_team_server_goes_comes_stands_still_and_never_comes_back(
    server: TrackingServer, tmp_path: Path, demo_cache: Path, new_record: Callable[[Path], Record], full: bool,
    measured: Callable[..., None],
) -> None:  # fmt: skip
    place, outages, total = one_trial(tmp_path, demo_cache, new_record, full), Outages(), epochs_of(full)
    away, still = ((20.0, 60.0), 20.0) if full else ((2.0,), 1.5)

    def break_it(proxy: Proxy) -> None:
        wait_for_epochs(place, 3)
        for length in away:
            with outages.one(length):
                proxy.refuse()
            proxy.go_on()
            wait_for_epochs(place, 3)
        with stopped(server), outages.one(still):
            pass
        wait_for_epochs(place, 3)
        outages.spans.append((time.time(), float("inf")))
        proxy.refuse()

    with proxied(server.uri) as proxy, meanwhile(lambda: break_it(proxy)):
        shown = run_in_process(
            tmp_path, demo_cache, "sweep", "tiny.yaml", code=1, MLFLOW_TRACKING_URI=proxy.uri
        )
    # The shorter stop of the short form may pass unnoticed.
    assert len(told_since(shown)) >= (2 if full else 1), shown
    assert "answers again, after" in shown
    assert "1 run waits in the spool for MLflow (nothing listens at its address, since " in shown
    assert "; the next launch stores it" in shown
    assert [path.name for path in place.record.spooled("tiny")] == ["00000"]
    run_in_process(tmp_path, demo_cache, "sweep", "tiny.yaml", MLFLOW_TRACKING_URI=server.uri)
    assert list(place.record.spooled("tiny")) == []
    status, steps, times = trial_of(server.uri)
    outside, during = outages.epoch_s(times)
    measured(
        f"a team's server refuses connections {' and '.join(f'{one:.0f}' for one in away)} s, is stopped {still:.1f} s, "
        f"refuses for good: "
        f"{total - len(set(steps))} of {total} epochs lost, an epoch takes {during:.2f} s meanwhile, {outside:.2f} s else",
        holds=steps == list(range(total)) and status == "FINISHED" and during < SLOWER * outside,
    )


@pytest.mark.row(11)
def test_what_was_given_up_while_the_server_stood_still_is_not_there_twice(
    server: TrackingServer, tmp_path: Path, full: bool, monkeypatch: pytest.MonkeyPatch,
    measured: Callable[..., None],
) -> None:  # fmt: skip
    """A stopped server reads, once it goes on, every request that its client gave up and sent again."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    turns, extra, wrong = 20 if full else 1, 0, 0
    for turn in range(turns):
        study, client = f"still-{turn}", connect(server.uri)
        tracking = Tracking(client, study)
        writer = Writer(TrackingServer(server.record), lambda uri, tracking=tracking: tracking)
        spool = spooled(tmp_path / study)
        create, given_up = client.create_run, threading.Event()

        def late(
            *words: object, create: Callable = create, given_up: threading.Event = given_up, **more: object
        ):  # type: ignore[no-untyped-def]
            if given_up.is_set():
                return create(*words, **more)
            with stopped(server), pytest.MonkeyPatch.context() as patch:
                patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
                try:
                    return create(*words, **more)
                except Exception:
                    given_up.set()
                    raise

        monkeypatch.setattr(client, "create_run", late)
        writer.notify(ended(spool, "FINISHED", "complete"))
        wait_for(lambda spool=spool: not spool.folder.exists(), 120)
        assert writer.finish(lambda text: None, hurried=False) == []
        writer.stop(1.0)
        assert given_up.is_set()
        rows = everything(client, tracking)
        extra += len(rows) - 1
        wrong += [step for step, _, _ in rows[0]["metrics"]["score"]] != [0, 1, 2]
    measured(
        f"{turns} times a run made by a request that was given up: {extra} runs too many, {wrong} incomplete",
        holds=extra == wrong == 0,
    )


class Other(http.server.BaseHTTPRequestHandler):
    """Another application at the address: `status` is what it answers to everything."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b"<html>welcome</html>")

    do_POST = do_GET  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (200, "what answers there is not an MLflow server"),
        (404, "what answers there is not an MLflow server"),
        (401, "it does not let us in (HTTP 401): set MLFLOW_TRACKING_USERNAME"),
        (403, "it does not let us in (HTTP 403): set MLFLOW_TRACKING_USERNAME"),
        (502, "it answers HTTP 502"),
        (0, "nothing listens at its address"),
    ],
)
def test_a_wrong_address_is_told_at_once_and_everything_waits(
    status: int, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = type("Handler", (Other,), {"status": status})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as other:
        uri = f"http://me:secret@127.0.0.1:{other.server_port}"
        if status:
            threading.Thread(target=other.serve_forever, daemon=True).start()
        else:
            other.server_close()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        writer = Writer(TrackingServer(Record(tmp_path)), lambda uri: Tracking(connect(uri), "wrong"))
        spool = spooled(tmp_path)
        began = time.monotonic()
        writer.notify(spool)
        while (line := writer.status_message()) is None and time.monotonic() < began + 20:
            time.sleep(0.02)
        assert writer.finish(lambda text: None, hurried=True) == [spool.folder]
        writer.stop(1.0)
        if status:
            other.shutdown()
    assert line is not None
    assert f"({told}" in line
    assert line.startswith("MLflow takes nothing since ")
    assert line.endswith("; training goes on, the spool keeps everything")
    assert told in (writer.reason or "")
    assert "secret" not in line
    assert len(spool.epochs()) == 3


@pytest.mark.parametrize("uri", ["localhost:5000", "sqlite:///mlflow.db", "./mlruns", "http://"])
def test_what_is_no_address_is_refused(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(TeamServerError, match=r"MLFLOW_TRACKING_URI is .*such as http://mlflow.example:5000"):
        TrackingServer(Record(tmp_path))
