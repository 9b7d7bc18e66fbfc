"""The champion answers raw audio over HTTP, as MLflow serves it and as the registry holds it."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile

from harness.core.environment import quiet_environment
from harness.metrics.intervals import clustered_interval
from harness.promotion.bundle.verify import verify
from harness.promotion.registry.model_registry import Registration, register
from harness.study.storage.record import Record
from harness.tracking.experiment import Tracking, connect
from harness.tracking.server.server import TrackingServer, free_port
from models.onnx_io.session import open_session, run_onnx

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(280),
    pytest.mark.filterwarnings("ignore:.*type hint is inferred as AnyType"),  # of MLflow's own, at its import
]

NAME = "pseudo-seen"


@pytest.fixture(scope="module")
def tracking(
    sealed: Path, tmp_path_factory: pytest.TempPathFactory, new_record: Callable[[Path], Record]
) -> Iterator[Tracking]:
    """A record whose champion is the bundle's model."""
    with TrackingServer(new_record(tmp_path_factory.mktemp("serving") / "mlruns")) as server:
        tracking = Tracking(connect(server.uri), "small", identity="small")
        digest = verify(sealed, latency=False).digest
        new = Registration(
            name=NAME, source_run="e" * 32, study="small", subject_tags={"harness.trial": "3"}, bundle=sealed,
            bundle_digest=digest, test=clustered_interval([1, 1, 0, 1] * 10, [str(k) for k in range(40)]),
            manifest="c" * 64, macs=1, stamp="unconfirmed", tags={},
        )  # fmt: skip
        register(tracking, new, wins=True, seen_champion=None)
        assert (
            not {"MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"} & os.environ.keys()
        )  # or it outlives its server
        yield tracking


@pytest.fixture(scope="module")
def url(tracking: Tracking, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`mlflow models serve` of the champion; its whole process group ends with this test."""
    port, scratch = free_port(), tmp_path_factory.mktemp("scratch")
    serve = [
        sys.executable, "-P", "-m", "mlflow", "models", "serve", "-m", f"models:/{NAME}@champion",
        "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    environment = {
        **quiet_environment(), "MLFLOW_TRACKING_URI": str(tracking.client.tracking_uri), "TMPDIR": str(scratch),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # MLflow calls `uvicorn` by its name
    }  # fmt: skip
    log = scratch / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "harness.tracking.server.supervisor", *serve], stdin=subprocess.PIPE, stdout=file,
            stderr=file, start_new_session=True, env=environment, cwd=scratch,
        )  # fmt: skip
    descendants: list[psutil.Process] = []
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 180
        while not answers(f"{address}/ping"):
            assert process.poll() is None, log.read_text("utf-8", "replace")
            assert time.monotonic() < deadline, log.read_text("utf-8", "replace")
            time.sleep(0.3)
        descendants = psutil.Process(process.pid).children(recursive=True)
        yield address
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)
        _, alive = psutil.wait_procs(descendants, timeout=10)
        assert alive == []


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def post(url: str, document: Any) -> Any:
    request = urllib.request.Request(
        f"{url}/invocations", json.dumps(document).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.needs_corpora
def test_raw_audio_posted_to_the_served_champion_is_answered_as_onnxruntime_does(
    url: str, sealed: Path, corpora: Path
) -> None:
    paths = sorted((corpora / "LibriSpeech").rglob("*.flac"))
    audio = [soundfile.read(path, frames=48_000, dtype="int16")[0] for path in (paths[0], paths[-1])]
    says = json.loads((sealed / "specification.json").read_text("utf-8"))
    windows = np.stack(audio).astype(np.float32) / says["int16_divisor"]
    served = post(url, {"inputs": windows.tolist()})["predictions"]
    logits = np.asarray(served[says["output_name"]] if isinstance(served, dict) else served, np.float32)
    assert logits.shape == (2, 2)
    np.testing.assert_allclose(logits, run_onnx(open_session(sealed / "model.onnx"), windows), atol=1e-5)


def test_a_window_of_another_length_is_refused(url: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(url, {"inputs": [[0.0] * 100]})
    assert refused.value.code == 400
    refused.value.close()
