"""A small sealed bundle of a real network, and ways to seal an altered one again; nothing is trained."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from harness.config.files.policy_file import load_policy
from harness.metrics.intervals import clustered_interval
from harness.promotion.bundle.card import card_of
from harness.promotion.bundle.files import SUMS, golden_of, sums_text
from harness.promotion.bundle.verify import verify
from harness.promotion.bundle.write import write_bundle
from models.front_ends.config import Mfcc
from models.networks.cnn import build_network
from models.networks.config import CnnConfig
from models.onnx_io.session import open_session, run_onnx
from tests import learned_network

WINDOWS = 3
SPECIFICATION = learned_network.specification(front_end=Mfcc(), architecture=CnnConfig(width=0.0625))


def export(path: Path, seed: int) -> None:
    front_end, config = Mfcc(), CnnConfig(width=0.0625)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        cnn = build_network(config, front_end.num_features)
    learned_network.export(front_end, cnn.eval(), path)


def seal(folder: Path) -> None:
    """What somebody would do who alters a bundle on purpose."""
    (folder / SUMS).unlink(missing_ok=True)
    (folder / SUMS).write_text(sums_text(folder), "utf-8")


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """Change a JSON file of a bundle, and seal it again."""
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")
    seal(path.parent)


def edit_model(folder: Path, change: Callable[[onnx.ModelProto], None], file: str = "model.onnx") -> None:
    """Change a graph of a bundle, and seal it again."""
    model = onnx.load(str(folder / file), load_external_data=False)
    change(model)
    (folder / file).write_bytes(model.SerializeToString())
    seal(folder)


def example_evidence() -> dict[str, Any]:
    correct = np.tile([1, 1, 1, 0], 30)
    test = clustered_interval(correct, [f"s{k // 10}" for k in range(120)])
    return {
        "study": "small", "registered_name": "pseudo-seen", "subject": "trial 3", "stamp": "unconfirmed",
        "configuration": "mfcc, width 0.0625", "data": {"task": "pseudo", "variant": "seen", "corpus": "demo", "subset": "all"},
        "split_rule": "chapter-disjoint", "windows": {"train": 240, "val": 96, "test": 120},
        "manifests": SPECIFICATION.manifest_digests, "test": asdict(test), "test_openings": 1, "test_openings_by_all": 1,
        "test_by_cluster": {f"s{k}": {"windows": 10, "accuracy": 0.5 + k / 30} for k in range(12)},
        "trial": {"score": 0.8}, "optimism": 0.05, "trials_compared": 4, "flags": [], "limits": ["small"],
        "guards": [{"name": "gap", "level": "quality", "ok": False, "measured": "0.2", "bound": "<= 0.1", "advice": "More dropout."}],
        "specification": SPECIFICATION.model_dump(mode="json"),
        "policy": load_policy("default").model_dump(mode="json"),
    }  # fmt: skip


def make_bundle(folder: Path) -> Path:
    """Two networks of one specification as fp32 and int8, and one for a GPU that is not here."""
    folder.mkdir()
    files = {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
    waveform = (0.1 * np.random.default_rng(0).standard_normal((WINDOWS, 48_000))).astype(np.float32)
    golden = {}
    for seed, file in enumerate(files.values()):
        export(folder / file, seed)
        golden[file] = run_onnx(open_session(folder / file), waveform)
    variants = [
        {"name": name, "file": file, "device": "cuda" if name == "fp16" else "cpu", "included": True,
         "bytes": (folder / file).stat().st_size, "golden": golden_of(file), "golden_tolerance": 1e-4}
        for name, file in files.items()
    ]  # fmt: skip
    evidence = {**example_evidence(), "variants": variants}
    write_bundle(
        folder, specification=SPECIFICATION, evidence=evidence, golden_waveform=waveform, golden_logits=golden,
        card=card_of(evidence),
    )  # fmt: skip
    return folder


def refused(folder: Path, digest: str | None = None) -> str:
    """What is said of a bundle that is not verified."""
    result = verify(folder, digest, latency=False)
    assert not result.ok
    return "\n".join(result.lines(quiet=True))
