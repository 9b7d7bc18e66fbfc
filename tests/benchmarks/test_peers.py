"""Laws of B3's and B4's code: the other arms train what ours trains, and one that drops work is found out."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.config.trial.training_config import TrainingConfig
from harness.training.fit import Split, fit
from models.front_ends.build import build_front_end
from models.networks.cnn import FastDiarizationModel
from models.networks.config import CnnConfig
from tests.benchmarks import peer_environments, programs
from tests.benchmarks.baselines.peer_trial import SCORE, Cached, training
from tests.benchmarks.baselines.plain_training import Recipe, rate
from tests.benchmarks.rounds import CannotRun
from tests.benchmarks.stored_runs import ArmsDifferError, StoredRun, require_agreement, require_complete

RECIPE = Recipe(learning_rate=0.003, epochs=2, seed=5, batch_size=16)
WIDTH = 0.0625


@pytest.fixture(scope="module")
def cached() -> Cached:
    generator = torch.Generator().manual_seed(0)
    labels = {"train": torch.arange(40) % 2, "val": torch.arange(20) % 2}
    features = {
        split: torch.randn(len(some), 8, 40, generator=generator) + some.view(-1, 1, 1)
        for split, some in labels.items()
    }
    return Cached(features, labels)


def test_the_plain_loop_and_the_harness_train_the_same_weights(cached: Cached) -> None:
    model, epochs = training(cached, RECIPE, WIDTH)
    scores = [metrics[SCORE] for metrics in epochs]
    torch.manual_seed(RECIPE.seed)
    ours = FastDiarizationModel(8, CnnConfig(width=WIDTH), num_frames=40)
    splits = {
        split: Split(cached.features[split], cached.labels[split], ["one"] * len(cached.labels[split]))
        for split in ("train", "val")
    }
    config = TrainingConfig(epochs=2, batch_size=16, learning_rate=0.003)
    result = fit(ours, splits["train"], splits["val"], config, seed=RECIPE.seed, device=torch.device("cpu"))
    assert scores == pytest.approx([report.metrics[SCORE] for report in result.reports])
    theirs = model.state_dict()
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-5)


def test_a_notebooks_network_is_ours_written_in_one_dimension() -> None:
    from tests.benchmarks.baselines.notebook_way import Network

    config = CnnConfig(width=WIDTH)
    torch.manual_seed(0)
    ours = FastDiarizationModel(8, config, num_frames=40).eval()
    torch.manual_seed(0)
    theirs = Network(8, list(config.channels()), config.dropout).eval()
    features = torch.randn(3, 8, 40)
    with torch.no_grad():
        torch.testing.assert_close(theirs(features), ours(features))


@pytest.mark.parametrize(("front_end", "rows"), [("mfcc", 40), ("log_mel", 80)])
def test_a_notebook_featurises_a_window_as_we_do(front_end: str, rows: int, tmp_path: Path) -> None:
    import soundfile

    from models.front_ends.config import parse_front_end
    from tests.benchmarks.baselines.notebook_way import Windows

    samples = (3000 * np.random.default_rng(0).standard_normal(60_000)).astype(np.int16)
    soundfile.write(tmp_path / "speech.wav", samples, 16_000, subtype="PCM_16")
    features, label = Windows([(str(tmp_path / "speech.wav"), 1_000, 1)], front_end)[0]
    window = torch.from_numpy(samples[1_000:49_000]).float() / 32768
    ours = build_front_end(parse_front_end({"kind": front_end}))(window[None])[0]
    assert features.shape == (rows, 301)
    assert label == 1
    torch.testing.assert_close(features, ours, atol=1e-3, rtol=1e-3)


def test_the_rate_climbs_to_its_top_and_falls_to_nothing() -> None:
    rates = [rate(step, 20, RECIPE) for step in range(20)]
    assert rates[1] == max(rates) == RECIPE.learning_rate  # a tenth of 20 steps is warm-up
    assert rates[-1] < 0.01 * RECIPE.learning_rate


def run_of(**changes: object) -> StoredRun:
    values = {
        "run_id": "a", "learning_rate": 0.003, "front_end": "mfcc", "ended_s": 1.0, "curve": (0.5, 0.6),
        "export_s": 0.1, "files": ("labels.png", "model.onnx"),
    }  # fmt: skip
    return StoredRun(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"curve": (0.5,)}, "1 epochs"),
        ({"files": ("labels.png",)}, "no ONNX"),
        ({"files": ("model.onnx",)}, "histogram"),
    ],
)
def test_an_arm_that_leaves_less_behind_is_refused(changes: dict[str, object], missing: str) -> None:
    with pytest.raises(ArmsDifferError, match=missing):
        require_complete([run_of(**changes)], trials=1, epochs=2)


def test_an_arm_that_runs_fewer_trials_is_refused() -> None:
    assert len(require_complete([run_of()], trials=1, epochs=2)) == 1
    with pytest.raises(ArmsDifferError, match="1 runs were stored, not 2"):
        require_complete([run_of()], trials=2, epochs=2)


def test_accuracies_that_differ_are_told() -> None:
    assert require_agreement([(0.5, 0.5), (0.7, 0.72)], 0.05, "B3") == pytest.approx(0.02)
    with pytest.raises(ArmsDifferError, match=r"B3: final accuracies differ by 0\.200"):
        require_agreement([(0.5, 0.7)], 0.05, "B3")


def test_what_a_program_leaves_behind_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "ENDING_S", 1.0)
    daemon = "import subprocess, sys; subprocess.Popen(['sleep', '600'], start_new_session=True)"
    assert programs.run_program([sys.executable, "-c", daemon], tmp_path, 60).left_over == 1


def test_a_program_that_fails_says_how(tmp_path: Path) -> None:
    with pytest.raises(programs.ProgramFailed, match="no such thing") as failed:
        programs.run_program([sys.executable, "-c", "raise SystemExit('no such thing')"], tmp_path, 60)
    assert failed.value.reason == "exit code 1"


def test_the_reason_is_the_exception_and_not_what_is_printed_after_it() -> None:
    talk = "(actor pid=7)   File 'a.py'\nray.exceptions.RayTaskError: it broke\nRan out. 0 trials left\n"
    assert programs.exception_line(talk) == "ray.exceptions.RayTaskError: it broke"
    assert programs.exception_line("killed\n") is None


def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(programs.ProgramFailed, match="not done after"):
        programs.run_program(["sleep", "600"], tmp_path, 0.2)
    assert time.monotonic() - began < 60


def test_without_an_index_a_peer_says_why_it_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if "venv" in words:
            (Path(words[-1]) / "lib" / "python3" / "site-packages").mkdir(parents=True)
            return subprocess.CompletedProcess(words, 0, "", "")
        return subprocess.CompletedProcess(words, 1, "", "ERROR: no index here\n")

    monkeypatch.setattr(subprocess, "run", refused)
    with pytest.raises(CannotRun, match="ray: its environment cannot be installed: ERROR: no index here"):
        peer_environments.environment("ray", tmp_path)
