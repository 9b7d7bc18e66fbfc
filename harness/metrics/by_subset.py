"""Scores of one set of predictions, evaluation subset by evaluation subset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from data.preparation.manifest import Manifest
from harness.metrics.few_clusters import few_clusters_note
from harness.metrics.intervals import clustered_interval


def subset_lines(scores: Mapping[str, Mapping[str, float | int]]) -> list[str]:
    """One line a subset, where there are several: its score never hides in the pooled one.

    Parameters
    ----------
    scores : as `scores_by_subset` gives them
    """
    if len(scores) < 2:
        return []
    return [
        f"{subset}: {of['balanced_accuracy']:.3f} [{of['low']:.3f}, {of['high']:.3f}] "
        f"({of['windows']} windows, K = {of['clusters']}{few_clusters_note(int(of['clusters']))})"
        for subset, of in scores.items()
    ]


def scores_by_subset(correct: Any, manifest: Manifest) -> dict[str, dict[str, float | int]]:
    """Return subset -> balanced_accuracy, low and high (95 %, see `clustered_interval`), windows and clusters.

    Every subset is balanced by itself, so that its share of right windows is its balanced accuracy.

    Parameters
    ----------
    correct : (window,) bool, whether each prediction is right, in the manifest's own order
    """
    correct = np.asarray(correct, dtype=bool)
    subsets, clusters = np.array(manifest.subsets()), np.array(manifest.clusters())
    scores: dict[str, dict[str, float | int]] = {}
    for subset in sorted(set(manifest.subsets())):
        of = subsets == subset
        interval = clustered_interval(correct[of], clusters[of].tolist())
        scores[subset] = {
            "balanced_accuracy": interval.value,
            "low": interval.low,
            "high": interval.high,
            "windows": interval.windows,
            "clusters": interval.clusters,
        }
    return scores
