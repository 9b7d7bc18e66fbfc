"""The way over the network: the hub's own client against a server of this machine that speaks its protocol."""

from __future__ import annotations

import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfFileSystem, constants

from data.corpora.base import Request
from data.corpora.librispeech.hub import LibriSpeechHubReader
from data.corpora.librispeech.layouts import REPO, REVISION
from data.errors import DataError

PART = "train.clean.100"
FILE = f"all/{PART}/0000.parquet"
SPEAKERS, UTTERANCES, ROW_GROUP, AUDIO = 64, 2, 4, 40_000


class Hub(ThreadingHTTPServer):
    """Serves a folder as one data set at one commit, and counts the bytes of files it gave."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.root, self.given = root, []
        self.files_until: int | None = None


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args: object) -> None:
        pass

    def entry(self, path: Path) -> dict[str, object]:
        name = path.relative_to(self.server.root).as_posix()
        if path.is_dir():
            return {"type": "directory", "oid": "0" * 40, "path": name, "size": 0}
        return {"type": "file", "oid": "0" * 40, "path": name, "size": path.stat().st_size}

    def reply(self, code: int, body: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def json(self, value: object) -> None:
        self.reply(200, json.dumps(value).encode(), Content_Type="application/json")

    def absent(self, code: str) -> None:
        self.reply(404, b"{}", X_Error_Code=code)

    def do_GET(self) -> None:
        path = unquote(self.path.split("?")[0])
        if REVISION not in path:
            self.absent("RevisionNotFound")
        elif "/resolve/" in path and len(self.server.given) == self.server.files_until:
            self.reply(403, b"{}")
        elif "/resolve/" in path:
            content = (self.server.root / path.partition(f"{REVISION}/")[2]).read_bytes()
            first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
            self.server.given.append(last + 1 - first)
            self.reply(206, content[first : last + 1])
        elif "/tree/" in path:
            folder = self.server.root / path.partition(REVISION)[2].strip("/")
            if folder.is_dir():
                self.json([self.entry(path) for path in sorted(folder.iterdir())])
            else:
                self.absent("EntryNotFound")
        else:
            self.json({"id": REPO, "sha": REVISION, "siblings": [], "private": False, "tags": []})


@pytest.fixture
def hub(tmp_path):
    ids = [(s, n) for s in range(1, SPEAKERS + 1) for n in range(UTTERANCES)]
    columns = {
        "audio": [{"bytes": os.urandom(AUDIO), "path": "x.flac"} for _ in ids],
        "speaker_id": [s for s, _ in ids],
        "chapter_id": [1 for _ in ids],
        "id": [f"{s}-1-{n:04d}" for s, n in ids],
    }
    path = tmp_path / "hub" / FILE
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(columns), path, row_group_size=ROW_GROUP)
    server = Hub(tmp_path / "hub")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def ask(tmp_path, hub, monkeypatch):
    """Ask the reader; the client believes that the hub is at the server's address."""
    address = f"http://127.0.0.1:{hub.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )

    def run(offline=False, part=PART, **wants):
        monkeypatch.setenv("HF_HUB_OFFLINE", str(int(offline)))
        HfFileSystem.clear_instance_cache()
        hub.given.clear()
        said = []
        reader = LibriSpeechHubReader()
        try:
            root = reader.locate(Request((part,), None, tmp_path / "cache", said.append, **wants))
        except DataError as error:
            return {"said": said, "error": str(error)}
        return {"said": said, "files": len(reader.listing(root, [part]))}

    yield run
    HfFileSystem.clear_instance_cache()


def test_only_the_ids_and_then_only_the_chosen_row_groups_are_downloaded(ask, hub):
    whole = (hub.root / FILE).stat().st_size
    refused = ask(windows={PART: 2}, max_download_gb=1e-6)
    assert f"{PART} 40 of {SPEAKERS} speakers" in refused["error"]
    assert (
        "more than data.max_download_gb (1e-06) allows; raise it, lower data.train_windows"
        in refused["error"]
    )
    assert sum(hub.given) < whole / 20  # ids, without audio
    fetched = ask(windows={PART: 2}, max_download_gb=1)
    assert fetched["files"] == 40 * UTTERANCES
    assert f"{REPO} at {REVISION[:10]}" in fetched["said"][0]
    assert "about 1 min at an assumed 20 MB/s" in fetched["said"][0]
    groups = int(re.search(r"in (\d+) row groups", fetched["said"][0])[1])
    assert groups * ROW_GROUP * AUDIO < sum(hub.given) < 1.3 * groups * ROW_GROUP * AUDIO + 1e5
    again = ask(windows={PART: 2}, offline=True)  # what is here needs no network
    assert again == {"said": [], "files": 40 * UTTERANCES}
    assert "HF_HUB_OFFLINE is set" in ask(windows={PART: 1_000}, offline=True)["error"]


def test_what_the_hub_does_not_have_is_said(ask):
    assert "has no revision 'nonsense' on the hub" in ask(revision="nonsense")["error"]
    absent = ask(part="test.clean")["error"]
    assert f"has no part test.clean in parquet (it holds: {PART})" in absent


def test_a_hub_that_goes_away_says_how_to_go_on(ask, hub):
    ask(windows={PART: 2}, max_download_gb=1e-6)  # the index is here
    hub.files_until = 6  # the footer, and five row groups
    error = ask(windows={PART: 2})["error"]
    assert "the hub stopped answering" in error
    assert "run the same again: what has arrived is kept" in error
    hub.files_until = None
    said = ask(windows={PART: 2})["said"]
    assert "(5 row groups are here)" in said[0]
