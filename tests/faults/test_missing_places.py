"""A hub that does not answer, and folders that may not be used: one error says what, where and what to do."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from huggingface_hub import constants

from data.corpora import hub
from data.corpora.base import Request
from data.corpora.librispeech.hub import LibriSpeechHubReader
from data.errors import DataError
from harness.cli.main import cli
from tests.faults.rights import without_rights

PATIENCE_S = 1.0


class Hub(ThreadingHTTPServer):
    """Gives every question the same answer, or none."""

    code, error, body, silent = 200, "", b"{}", False


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.server.silent:
            time.sleep(3 * PATIENCE_S)
        self.send_response(self.server.code)
        if self.server.error:
            self.send_header("X-Error-Code", self.server.error)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        with contextlib.suppress(OSError):  # who asked may be gone
            self.wfile.write(self.server.body)


@pytest.fixture
def server() -> Iterator[Hub]:
    found = Hub(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"code": 404, "error": "RevisionNotFound"}, "has no revision '0123456789' on the hub; leave data.revision out"),
        ({"code": 404, "error": "RepoNotFound"}, "the hub does not give openslr/librispeech_asr at 0123456789: 404"),
        ({"code": 401}, "401"),
        ({"code": 403}, "the hub does not give openslr/librispeech_asr at 0123456789"),
        ({"code": 500}, "the hub does not give openslr/librispeech_asr at 0123456789"),
        ({"body": b"<html>a portal</html>"}, "the hub is not reachable for openslr/librispeech_asr"),
        ({"silent": True}, "the hub is not reachable for openslr/librispeech_asr"),
        (None, "the hub is not reachable for openslr/librispeech_asr"),
    ],
    ids=["no revision", "no data set", "401", "403", "500", "a portal", "silent", "nobody there"],
)  # fmt: skip
def test_a_hub_that_gives_nothing_is_told_with_what_to_do(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: dict[str, object] | None, words: str
) -> None:
    port = server.server_port
    if answer is None:
        server.server_close()
    for name, value in (answer or {}).items():
        setattr(server, name, value)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(hub, "PATIENCE_S", PATIENCE_S)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    began = time.monotonic()
    with pytest.raises(DataError) as caught:
        LibriSpeechHubReader().locate(
            Request(("train.clean.100",), None, tmp_path, print, revision="0123456789")
        )
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert "leave data.revision out" in message or "pass --data-root DIR" in message
    assert time.monotonic() - began < 60
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words", [["status"], ["report", "x"], ["why", "x", "1"]], ids=lambda words: words[0]
)
def test_a_record_that_may_not_be_read_is_named(words: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="record-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "mlruns").mkdir(mode=0)
        with contextlib.chdir(folder):
            CliRunner().invoke(cli, words)  # what is imported at the first use, nobody might not read
            with without_rights():
                done = CliRunner().invoke(cli, words)
    assert done.exit_code == 2
    assert str(folder / "mlruns") in done.stderr
    assert "Permission denied: give yourself the right to it, or name another place" in done.stderr
