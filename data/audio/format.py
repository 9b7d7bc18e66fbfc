"""The one form in which audio is heard here: 16 kHz, mono, windows of 3 s."""

from __future__ import annotations

SAMPLE_RATE = 16_000  # Hz
WINDOW_S = 3.0
WINDOW_SAMPLES = int(WINDOW_S * SAMPLE_RATE)
