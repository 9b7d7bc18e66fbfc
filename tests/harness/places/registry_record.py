"""Sealed bundles of a tiny real ONNX, and a warm process whose forks register, roll back, promote and die.

Run as a script it reads one JSON list of orders a line, forks a child for each order at once, and prints what
became of them. MLflow takes 3 s to import, what promotes 5 s more: so that is done once for all the children that
get killed. The script's words are the modules to import.
"""

from __future__ import annotations

import http.client
import http.server
import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from harness.core import atomic_swap
from harness.metrics.intervals import clustered_interval
from harness.promotion.bundle.files import SUMS, bundle_digest, sums_text
from harness.promotion.registry.fetch_bundle import fetch_bundle
from harness.promotion.registry.model_registry import Registration, register
from harness.promotion.registry.model_versions import champion_of, version_by_alias, versions_of
from harness.promotion.rollback import roll_back
from harness.study.storage.promotion_lock import only_promotion
from harness.study.storage.record import Record
from harness.tracking.experiment import Tracking, connect
from harness.tracking.server.server import TrackingServer
from models.export.specification import Specification

if TYPE_CHECKING:
    from mlflow import MlflowClient

NAME = "overlap-any"
WARM = ("mlflow.artifacts", "mlflow.models", "mlflow.onnx", "mlflow.pyfunc", "onnxruntime")
ALIASES = ("champion", "challenger", "previous")
FRONT_END = {"kind": "mfcc"}


def specification(number: int) -> dict[str, Any]:
    made = Specification(
        task="overlap", variant="any", label_meaning={"0": "one speaker", "1": "two"}, front_end=FRONT_END,
        architecture={"width": 0.125}, label_map_digest="a" * 64,
        manifest_digests={"train": "b" * 64, "val": "c" * 64, "test": "d" * 64}, fingerprint=f"{number:064x}",
        run_id=source_run(number), versions={"onnx": onnx.__version__}, created="2025-01-31T12:00:00+00:00",
    )  # fmt: skip
    return made.model_dump(mode="json")


def source_run(number: int) -> str:
    return f"{number:032x}"


def write_model(path: Path, number: int) -> None:
    """logits = mean of the waveform times (number, -number)."""
    nodes = [
        helper.make_node("ReduceMean", ["waveform", "axis"], ["mean"], keepdims=1),
        helper.make_node("MatMul", ["mean", "weight"], ["logits"]),
    ]
    weights = [
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
        numpy_helper.from_array(np.array([[number, -number]], np.float32), "weight"),
    ]
    inputs = [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", 48_000])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, Specification.model_validate(specification(number)).to_metadata())
    path.write_bytes(model.SerializeToString())


def write_bundle(folder: Path, number: int) -> Path:
    """A sealed bundle that verifies; equal numbers give equal bytes."""
    (folder / "golden").mkdir(parents=True)
    waveform = np.full((2, 48_000), 0.25, np.float32)
    logits = np.array([[number / 4, -number / 4]] * 2, np.float32)
    np.save(folder / "golden" / "waveform.npy", waveform)
    np.save(folder / "golden" / "logits.npy", logits)
    write_model(folder / "model.onnx", number)
    (folder / "specification.json").write_text(json.dumps(specification(number)), "utf-8")
    variant = {
        "name": "fp32", "file": "model.onnx", "device": "cpu", "included": True, "golden": "golden/logits.npy",
        "golden_tolerance": 1e-4,
    }  # fmt: skip
    (folder / "evidence.json").write_text(
        json.dumps({"variants": [variant], "run_id": source_run(number)}), "utf-8"
    )
    (folder / SUMS).write_text(sums_text(folder), "utf-8")
    return folder


def run_order(todo: dict[str, Any]) -> Any:
    if "failpoint" in todo:
        os.environ["HARNESS_FAILPOINT"] = f"{todo['failpoint']}:1:{todo.get('action', 'kill')}"
    if not todo.get("exchange", True):  # as on a file system that has no such call
        atomic_swap.exchange = lambda one, other: False
    return {"register": _register, "rollback": _roll_back, "promote": _promote}[todo["do"]](todo)


def _register(todo: dict[str, Any]) -> str:
    number, bundle = todo["number"], Path(todo["bundle"])
    study = todo.get("study", "sweep")
    test = clustered_interval([1, 1, 0, 1] * 10, [str(i // 4) for i in range(40)])
    new = Registration(
        todo.get("name", NAME), source_run(todo.get("source", number)), study, {"harness.trial": str(number)},
        bundle, bundle_digest(bundle), test, "d" * 64, 1_000_000, "unconfirmed", {"harness.code": "x"},
    )  # fmt: skip
    with only_promotion(Record(Path(todo["lock"]))) if "lock" in todo else nullcontext():
        tracking = Tracking(connect(todo["uri"]), study, identity="i" * 32)
        tracking.end_orphans("promotion")
        return register(tracking, new, wins=todo.get("wins", True), seen_champion=todo.get("seen"))


def _roll_back(todo: dict[str, Any]) -> dict[str, Any]:
    os.environ["MLFLOW_TRACKING_URI"] = todo["uri"]
    record, output = Record(Path(todo["record"])), Path(todo["output"])
    return roll_back(record, todo["name"], todo.get("to"), "it drifts", output).as_json()


def _promote(todo: dict[str, Any]) -> dict[str, Any]:
    from harness.config.files.policy_file import load_policy
    from harness.core.settings import Settings
    from harness.promotion.bundle import latency
    from harness.promotion.promote import PromotionRequest, promote

    latency.MAX_SECONDS, latency.WARM_UP = 0.01, 1  # nobody asks here how fast it is
    os.environ["MLFLOW_TRACKING_URI"] = todo["uri"]
    settings = Settings(Path(todo["record"]), Path(todo["cache"]), device="cpu")
    policy = load_policy("default")
    champion = policy.champion.model_copy(update={"margin": 0.5, "cheaper": 0.01})
    policy = policy.model_copy(update={"champion": champion})
    request = PromotionRequest(policy, Path(todo["output"]), todo["run"])
    done = promote(todo["study"], request, settings, lambda text: None)
    return {"version": done.version, "alias": done.alias, "bundle": str(done.bundle)}


class WarmProcess:
    """The warm process, seen from a test."""

    def __init__(self, process: Any) -> None:
        self._process = process

    def __call__(self, *orders: dict[str, Any]) -> list[dict[str, Any]]:
        """Carry out the orders at the same time; of each what it returned, its error, or that it was killed."""
        self._process.stdin.write(json.dumps(orders) + "\n")
        self._process.stdin.flush()
        answer: list[dict[str, Any]] = json.loads(self._process.stdout.readline())
        return answer

    def one(self, todo: dict[str, Any]) -> Any:
        """Carry out one order that must succeed."""
        [answer] = self(todo)
        assert "returned" in answer, answer
        return answer["returned"]

    def killed(self, todo: dict[str, Any]) -> None:
        """Carry out one order that must be killed at its failpoint."""
        assert self(todo) == [{"killed": True}], todo


@dataclass
class RegistryRecord:
    """A record's real server, the warm process, bundles, and the registered model that they become versions of."""

    record: Record
    uri: str
    client: MlflowClient
    children: WarmProcess
    folder: Path
    name: str = NAME
    made: int = 0

    def order(self, number: int | None = None, **more: Any) -> dict[str, Any]:
        """What a child is to register; `seen`, `wins`, `failpoint`, `lock`, `study`, `source`, `uri` may be given.

        Without a number it is a bundle that nobody has registered yet.
        """
        if number is None:
            self.made += 1
            number = self.made
            write_bundle(self.folder / str(number), number)
        bundle = str(self.folder / str(number))
        return {
            "do": "register", "uri": self.uri, "name": self.name, "bundle": bundle, "number": number, **more
        }  # fmt: skip

    def promoted(self, **more: Any) -> str:
        """The version that a new bundle became, against the present champion."""
        return str(self.children.one(self.order(**{"seen": self.alias("champion"), **more})))

    def alias(self, alias: str) -> str | None:
        found = version_by_alias(self.client, self.name, alias)
        return found.version if found else None

    def aliases(self) -> list[str | None]:
        return [self.alias(one) for one in ALIASES]

    def verified(self) -> list[str]:
        return [one.version for one in versions_of(self.client, self.name) if one.state == "verified"]

    def assert_whole(self, folder: Path) -> None:
        """Every alias names a version that was verified; the champion's bundle is the one that was sealed."""
        named = [found for one in ALIASES if (found := version_by_alias(self.client, self.name, one))]
        assert {one.state for one in named} == {"verified"}
        champion = champion_of(self.client, self.name)
        assert champion is not None
        fetched = fetch_bundle(self.client, champion.run_id, champion.bundle_digest, folder)
        assert bundle_digest(fetched) == champion.bundle_digest

    def stored(self, version: str, file: str) -> Path:
        """Where the server keeps a file of a version's bundle."""
        run_id = self.client.get_model_version(self.name, version).run_id
        [found] = self.record.artifacts.glob(f"*/{run_id}/artifacts/bundle/{file}")
        return found


@contextmanager
def altered(path: Path) -> Iterator[None]:
    """One bit of a file is another one in this block."""
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    try:
        yield
    finally:
        path.write_bytes(content)


@contextmanager
def proxy(uri: str, *, lose: bool = False, spoil: str = "") -> Iterator[str]:
    """A way to the server on which every first answer to a change is lost, or one uploaded file altered."""
    target, lost = urlsplit(uri).netloc, set()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if spoil and self.command == "PUT" and self.path.endswith(spoil):
                body = body[:-1] + bytes([body[-1] ^ 1])
            connection = http.client.HTTPConnection(target, timeout=30)
            headers = {key: value for key, value in self.headers.items() if key.lower() != "host"}
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            content = response.read()
            connection.close()
            place = (self.command, urlsplit(self.path).path)
            if lose and self.command != "GET" and not place[1].endswith("search") and place not in lost:
                lost.add(place)
                self.close_connection = True
                return
            self.send_response(response.status)
            for key, value in response.getheaders():
                if key.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                    self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    between = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=between.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{between.server_port}"
        assert bool(lost) == lose
    finally:
        between.shutdown()
        between.server_close()
        thread.join()


@contextmanager
def warm(root: Path, *modules: str) -> Iterator[WarmProcess]:
    """The warm process, which has imported these modules too."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, __file__, *modules]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield WarmProcess(process)
        assert process.stdin is not None
        process.stdin.close()


@contextmanager
def open_registry(record: Record, root: Path, folder: Path) -> Iterator[RegistryRecord]:
    """The server and the warm process, with a first champion."""
    with TrackingServer(record) as server, warm(root) as children:
        place = RegistryRecord(record, server.uri, connect(server.uri), children, folder)
        place.promoted()
        yield place


def _fork(todo: dict[str, Any]) -> tuple[int, int]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    os.dup2(2, 1)  # nothing but answers on the standard output
    try:
        answer = {"returned": run_order(todo)}
    except BaseException as error:
        answer = {"error": str(error), "kind": type(error).__name__}
    os.write(writing, json.dumps(answer).encode())
    os._exit(0)


def _main() -> None:
    from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

    warn_dependency_requirement_mismatches(["numpy"])  # lists what is installed: 0.3 s, once for all
    for module in (*WARM, *sys.argv[1:]):
        importlib.import_module(module)
    for line in sys.stdin:
        children = [_fork(todo) for todo in json.loads(line)]
        answers = []
        for pid, reading in children:
            with os.fdopen(reading, "rb") as pipe:
                content = pipe.read()
            os.waitpid(pid, 0)
            answers.append(json.loads(content) if content else {"killed": True})
        print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    _main()
