"""A corpus, a task and a label rule as plug-ins: named in a sweep file, prepared, and judged by the data gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.harness.places.workplace import Workspace

SMALL = "train_windows: 96, val_windows: 24, test_windows: 24"
SWEEP = "name: tiny\ndata: {%s, %s}\nparameters: {feature: mfcc}\nsampler: random\nbudget: {trials: 1}\n"


def audited(place: Workspace, data: str, *words: str, code: int = 0, **plugin: str) -> dict[str, Any]:
    place.write(SWEEP % (data, SMALL))
    shown = place.json("data", "audit", "tiny.yaml", *words, code=code, **plugin)
    assert shown["ok"]
    (inspection,) = shown["data"]
    return inspection


def test_a_corpus(plugged, tmp_path: Path) -> None:
    folder = tmp_path / "wavs"
    folder.mkdir()
    for number in range(12 * 3 * 2):  # 12 speakers in 3 sessions each, of which the first is the longest
        speaker, session = number // 6, number // 2 % 3
        samples = np.random.default_rng(number).integers(-3_000, 3_000, 100_000 * (2 if session == 0 else 1))
        soundfile.write(folder / f"s{speaker:02}_{session}_{number}.wav", samples.astype(np.int16), 16_000)
    (folder / "cover.wav").write_bytes(b"not audio")
    found = audited(
        Workspace(tmp_path, tmp_path / "cache"), "corpus: wav_folder, subset: voices, max_lost_share: 0.1",
        "--data-root", str(folder), **plugged("corpus_example"),
    )  # fmt: skip
    assert (found["examined"], found["split_rule"]) == (73, "chapter-disjoint")
    (lost,) = found["lost"]
    assert "is not called <speaker>_<session>_<number>.wav" in lost["reason"]


def test_a_task(plugged, tmp_path: Path, demo_cache: Path) -> None:
    place = Workspace(tmp_path, demo_cache)
    found = audited(place, "corpus: demo, task: dialogue", **plugged("task_example"))
    assert found["split_rule"] == "speaker-disjoint"


def test_a_label_rule(plugged, tmp_path: Path, demo_cache: Path) -> None:
    place = Workspace(tmp_path, demo_cache)
    found = audited(place, "corpus: demo, labels: snake", **plugged("label_rule_example"))
    checks = {check["name"]: check["ok"] for check in found["checks"]}
    assert checks["label map digest"]  # the child processes of the gate know the rule too
    assert checks["label map balance"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("corpus: wav_folders", "unknown corpus 'wav_folders'; did you mean 'wav_folder'?"),
        ("task: dialog", "unknown task 'dialog'; did you mean 'dialogue'?"),
        ("labels: snakes", "unknown label rule 'snakes'; did you mean 'snake'?"),
    ],
)
def test_a_misspelt_addition_is_told_its_nearest_name(tmp_path: Path, data: str, message: str) -> None:
    place = Workspace(tmp_path, tmp_path, SWEEP % (data, SMALL))
    plugins = "corpus_example,task_example,label_rule_example"
    here = str(Path(__file__).parent)
    shown = place.run("data", "audit", "tiny.yaml", code=2, HARNESS_PLUGINS=plugins, PYTHONPATH=here)
    assert message in shown
