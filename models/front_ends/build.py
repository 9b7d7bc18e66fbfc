"""From a front end as a value to the torch module that computes it; the only place that joins the two."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.front_ends.config import FrontEnd
    from models.front_ends.features import FeatureExtractor


def build_front_end(front_end: FrontEnd) -> FeatureExtractor:
    """Make the torch module that computes a front end.

    It maps (batch, sample) float32 in [-1, 1] at 16 kHz to (batch, feature, frame) float32, with
    ``front_end.num_features`` rows and ``front_end.num_frames(sample)`` columns. Nothing in it is trained.

    Raises
    ------
    EmbeddingError
        An external front end whose file is missing, altered or other than its configuration says.
    """
    extractor: FeatureExtractor = _extractor(front_end)(front_end)
    return extractor


def why_unavailable(front_end: FrontEnd) -> str | None:
    """Say why a front end cannot be computed on this machine, in one line for people; None where it can.

    Only external front ends are tried, by opening their file; the others need nothing that is not installed.
    """
    if not front_end.external:
        return None
    reason: str | None = _extractor(front_end).why_unavailable(front_end)
    return reason


def _extractor(front_end: FrontEnd) -> Any:
    module, _, name = front_end.extractor.partition(":")
    return getattr(importlib.import_module(module), name)
