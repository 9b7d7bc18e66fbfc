"""How much audio a model hears at once, in samples."""

from __future__ import annotations

SAMPLE_RATE = 16_000  # Hz
WINDOW_SAMPLES = 48_000  # 3.0 s
EMBEDDING_SAMPLES = 24_000  # 1.5 s, of a sliding embedding
EMBEDDING_SHIFT = 4_000  # 0.25 s
