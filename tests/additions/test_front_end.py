"""A front end as a plug-in, from the sweep file to the ONNX file of a trained trial."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from harness.study.storage.record import Record
from harness.tracking.experiment import connect
from harness.tracking.server.server import TrackingServer
from models.onnx_io.session import open_session, run_onnx
from tests.harness.places.workplace import SWEEP, Workspace, trial_runs

NAMED = SWEEP.replace("[mfcc, log_mel]", "linear_bands\n  linear_bands.n_bands: 32").replace(
    "trials: 3", "trials: 1"
)


def test_it_is_known_wherever_front_ends_are_named(plugged, tmp_path: Path) -> None:
    place, plugin = Workspace(tmp_path, tmp_path), plugged("front_end_example")
    parameters = place.json("schema", **plugin)["properties"]["parameters"]
    shown = json.dumps(parameters)
    assert '"linear_bands.n_bands"' in shown
    assert '"xvector", "linear_bands"' in shown
    place.write(NAMED.replace("feature: linear_bands", "feature: linear_band"))
    assert "did you mean linear_bands?" in place.run("sweep", "tiny.yaml", code=2, **plugin)
    place.write(NAMED.replace("n_bands: 32", "n_bands: 33"))
    assert "line 5: parameters.linear_bands.n_bands" in place.run("sweep", "tiny.yaml", code=2, **plugin)
    place.write(NAMED)
    assert "no front end is called 'linear_bands'" in place.run("sweep", "tiny.yaml", code=2)


@pytest.mark.slow
@pytest.mark.parametrize("plugged", ["entry_point"], indirect=True)  # the workers inherit either
def test_it_is_trained_and_exported(plugged, tmp_path: Path, demo_cache: Path) -> None:
    place, plugin = Workspace(tmp_path, demo_cache, NAMED), plugged("front_end_example")
    assert place.json("sweep", "tiny.yaml", **plugin)["new_trials"] == 1
    with TrackingServer(Record(place.folder / "mlruns")) as server:
        client = connect(server.uri)
        (run,) = trial_runs(client)
        assert run.data.params["feature"] == "linear_bands"
        folder = client.download_artifacts(run.info.run_id, "model", str(tmp_path))
    specification = json.loads(Path(folder, "specification.json").read_text())
    assert specification["front_end"] == {"kind": "linear_bands", "n_bands": 32, "hop_length": 160}
    windows = np.random.default_rng(0).normal(scale=0.1, size=(3, 48_000)).astype(np.float32)
    assert run_onnx(open_session(Path(folder, "model.onnx")), windows).shape == (3, 2)
    without = place.run("promote", "tiny", code=2)
    assert "a recorded configuration cannot be read here: feature: Input tag 'linear_bands'" in without
    assert "install it, or name its module in HARNESS_PLUGINS" in without
