"""The bundle of a promoted model: one folder, enough for an inference server in another language."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.guards import Guard
from harness.statistics import ClusteredInterval
from harness.subsets import subset_lines


def write_golden(folder: Path, waveform: npt.NDArray[np.float32], logits: npt.NDArray[np.float32]) -> None:
    """Inputs (window, 48000) float32 and the outputs (window, 2) float32 that any runtime must repeat."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "waveform.npy", waveform, allow_pickle=False)
    np.save(folder / "logits.npy", logits, allow_pickle=False)


def write_card(path: Path, evidence: dict[str, Any], test: ClusteredInterval, guards: list[Guard]) -> None:
    """card.md: the same for a person."""
    trial, data = evidence["trial"], evidence["data"]
    labels = evidence["specification"]["label_meaning"]
    lines = [
        f"# {evidence['registered_name']}, from study {evidence['study']}, {evidence['subject']}",
        "",
        f"**{evidence['stamp']}**",
        "",
        f"One 3.0 s window of speech at 16 kHz in (`waveform`, batch x 48000 float32 in [-1, 1]), two logits out. "
        f"Class 0: {labels['0']}. Class 1: {labels['1']}.",
        "",
        "| | |",
        "|---|---|",
        f"| task | {data['task']} / {data['variant']}, {evidence['split_rule']} |",
        f"| trained on | {data['corpus']} {data['subset']}, {evidence['windows']['train']} windows |",
        f"| configuration | {evidence['configuration']} |",
        f"| test (opening {evidence['test_openings']} of these windows by this study, "
        f"{evidence['test_openings_by_all']} in all) | {test} |",
        *(f"| test on {line} |".replace(": ", " | ", 1) for line in subset_lines(evidence["test_by_subset"])),
        f"| validation score ({evidence['score_is']}) | {trial['score']:.3f}, "
        f"{luck_line(evidence['optimism'], evidence['trials_compared'])} |",
        f"| latency, batch 1 | P50 {evidence['latency']['p50_ms']:.1f} ms, P99 {evidence['latency']['p99_ms']:.1f} ms, "
        f"{evidence['latency']['provider']} |",
        "",
        "## Guards",
        "",
        *[f"- {'ok' if guard.ok else '**' + guard.level + '**'}: {guard}" for guard in guards],
        "",
        "## Limits",
        "",
        *[f"- {limit}" for limit in [*evidence["flags"], *evidence["limits"]]],
        "- The winner was not retrained on fresh seeds, so its validation score flatters it: read the test's interval.",
        *(["- Fewer than 10 clusters in the test: it proves that every path works, and nothing about the model."]
          if test.few_clusters else []),
        "",
    ]  # fmt: skip
    path.write_text("\n".join(lines), encoding="utf-8")


def luck_line(luck: float | None, trials: int) -> str:
    """How far the validation score may be trusted."""
    if luck is None:
        return f"best of {trials} trials: every window alike, so how much of it is luck cannot be said"
    return f"best of {trials} trials: about {luck:.3f} of it may be luck"


def put_in_place(aside: Path, final: Path) -> None:
    """Swap a complete bundle in; the one before it stays whole until then."""
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    aside.rename(final)
    shutil.rmtree(old, ignore_errors=True)
