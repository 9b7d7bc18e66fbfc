"""The main job on real speech: sweep over front ends, promotion, one test opening, golden outputs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

CORPORA = Path(__file__).parents[3] / "shared" / "corpora"
pytestmark = [
    pytest.mark.needs_corpora,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not (CORPORA / "LibriSpeech").is_dir(), reason=f"{CORPORA}/LibriSpeech is absent"),
]

# Width and epochs are as small as lets the paths be walked; six speakers carry no claim.
SWEEP = """\
name: other
data:
  corpus: librispeech
  subset: other
  parts: {other: [test-other]}
  task: pseudo
  variant: seen
parameters:
  feature: [waveform, mfcc_delta, log_mel]
  learning_rate: 0.003
  width: 0.125
  batch_size: 8
  epochs: 8
  waveform.normalize: true
sampler: grid
pruner: none
budget: {trials: 3}
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("real")
    (folder / "other.yaml").write_text(SWEEP)
    return folder, harness(folder, "sweep", "other.yaml")


def harness(folder: Path, *words: str) -> str:
    environment = {**os.environ, "HARNESS_CACHE": str(folder / "cache"), "HARNESS_DATA": str(CORPORA)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli.main", *words], cwd=folder, env=environment, text=True,
        capture_output=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_front_end_trains_and_six_speakers_claim_nothing(swept: tuple[Path, str]) -> None:
    folder, shown = swept
    trials = json.loads(harness(folder, "status", "other", "--json"))["trials"]
    assert [(t["parameters"]["feature"], t["state"]) for t in trials] == [
        ("waveform", "complete"), ("mfcc_delta", "complete"), ("log_mel", "complete"),
    ]  # fmt: skip
    assert {t["interval"]["clusters"] for t in trials} == {6}
    assert "K = 6" in shown
    assert "not evidence" in shown
    assert "utterance-disjoint fallback" in shown


def test_the_promoted_model_says_k_and_repeats_its_golden_outputs(swept: tuple[Path, str]) -> None:
    import onnxruntime

    folder, _ = swept
    document = json.loads(harness(folder, "promote", "other", "--run", "1", "--json"))
    assert document["test"]["clusters"] == 6
    assert document["test_openings"] == 1
    warned = {guard["name"] for guard in document["guards"] if not guard["ok"]}
    assert "clusters in the test" in warned
    bundle = folder / document["bundle"]
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    waveform = np.load(bundle / "golden" / "waveform.npy")
    assert waveform.shape[1:] == (48_000,)
    logits = session.run(["logits"], {"waveform": waveform})[0]
    assert np.abs(logits - np.load(bundle / "golden" / "logits.npy")).max() < 1e-4
    assert "K = 6, few clusters" in (bundle / "card.md").read_text()
