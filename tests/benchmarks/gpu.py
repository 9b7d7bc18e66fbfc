"""`python -m tests.benchmarks.gpu --out gpu.json`: ceilings, B1, B5, B6 and B12 on one GPU, in at most 8 minutes.

Torch, onnx, onnxruntime and this project are all that it imports. Without a GPU it says so and ends with 2;
`--device cpu --tiny` runs every part on a CPU in seconds, and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks import table
from tests.benchmarks.gpu_ceilings import Ceilings, ceilings
from tests.benchmarks.gpu_inference import run_inference
from tests.benchmarks.gpu_training import cases, run_case, run_packing
from tests.benchmarks.machine import described
from tests.benchmarks.result import Result, not_measured
from tests.benchmarks.rounds import CannotRun

LAST_START_S = 5 * 60  # of 8 minutes: no part is begun later, each takes less than three (`PART_S`)
ROUNDS = 3
UNWANTED = ("mlflow", "optuna", "librosa", "click", "ray", "hydra")

Part = Callable[[], list[Result]]


def main(arguments: list[str] | None = None) -> int:
    """Measure and write; 2 without the device, 1 if a part failed."""
    asked = _parser().parse_args(arguments)
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: torch sees no CUDA device", file=sys.stderr)
        return 2
    began, device = time.perf_counter(), _opened(asked.device)
    known = ceilings(device, tiny=asked.tiny)
    print(known, file=sys.stderr, flush=True)
    results: list[Result] = []
    failed: dict[str, str] = {}
    machine = described() | {"gpu": _name(device)}

    def rows() -> table.Rows:
        dry = ("dry run, nothing measured",)
        found = (
            [replace(one, holds=None, notes=(*dry, *one.notes)) for one in results] if asked.tiny else results
        )
        return table.merged({}, found, machine)

    for name, part in _parts(device, known, tiny=asked.tiny).items():
        if time.perf_counter() - began > LAST_START_S:
            results.append(not_measured(name, name, "no time was left"))
            continue
        try:
            results += part()
        except CannotRun as reason:
            results.append(not_measured(name, name, str(reason)))
        except Exception:  # the others are worth having: a GPU may not come again
            failed[name] = traceback.format_exc()
            results.append(not_measured(name, name, "it failed"))
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        _write(asked.out, {  # at once: a later part may end the process
            "measures": not asked.tiny, "ceilings": asdict(known), "rows": rows(), "failed": failed,
            "imported": [module for module in UNWANTED if module in sys.modules],
            "seconds": round(time.perf_counter() - began, 1),
        })  # fmt: skip
    print(table.markdown(rows()))
    for text in failed.values():
        print(text, file=sys.stderr)
    return bool(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.benchmarks.gpu", description="Measure one GPU.")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a dry run: every part, nothing measured")
    parser.add_argument("--out", type=Path, help="JSON file")
    return parser


def _opened(name: str) -> torch.device:
    """Set a device up as a worker does (harness/training/trial.py), for every arm."""
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    return torch.device(name)


def _parts(device: torch.device, known: Ceilings, *, tiny: bool) -> dict[str, Part]:
    by_name = cases(tiny=tiny)
    rounds, members = (1, 2) if tiny else (ROUNDS, 32)
    short = by_name["MFCC"]
    if not tiny:
        config = short.config.model_copy(update={"epochs": 2, "train_score_windows": 102})
        short = type(short)("MFCC", short.rows, short.frames, 2_000, 200, short.width, config)
    return {
        "B6 MFCC": lambda: run_case(by_name["MFCC"], known, device, rounds),
        "B12 GPU": lambda: run_inference(device, tiny=tiny),
        "B5 GPU": lambda: [run_packing(short, device, rounds, members, min(4, members))],
        "B6 raw": lambda: run_case(by_name["raw"], known, device, rounds),
    }


def _name(device: torch.device) -> str | None:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def _write(path: Path | None, content: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
