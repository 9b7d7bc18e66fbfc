"""Which module measures what; imported only when it is asked for."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.benchmarks.result import Result
from tests.benchmarks.scale import Scale

MODULES = {
    "B1": "b01_loop",
    "B2": "b02_fixed_cost",
    "B3": "b03_notebook",
    "B4": "b04_peers",
    "B5": "b05_packing",
    "B6": "b06_roofline",
    "B7": "b07_reuse",
    "B8": "b08_start",
    "B9": "b09_tracking",
    "B10": "b10_scale",
    "B11": "b11_pruning",
    "B12": "b12_inference",
    "B13": "b13_export",
}


def run(name: str, scale: Scale, place: Path) -> list[Result]:
    """Run one benchmark, with an empty folder of its own."""
    module = importlib.import_module(f"tests.benchmarks.{MODULES[name]}")
    results: list[Result] = module.run(scale, place)
    return results
