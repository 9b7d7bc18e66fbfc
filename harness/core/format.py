"""Durations, sizes and errors as people read them."""

from __future__ import annotations

import math

from models.errors import one_line as one_line  # of an error


def format_duration(seconds: float | None) -> str:
    """A time span as people say it: 40 s, 12 min, 3.5 h; `?` for None, an unknown one. Never below 1 s."""
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def format_size(num_bytes: float) -> str:
    """Bytes as people read them, in powers of 1000: `512 B`, `1.5 GB`."""
    power = min(4, max(0, int(math.log10(max(num_bytes, 1)) / 3)))
    value = num_bytes / 1000**power
    return f"{value:.0f} B" if power == 0 else f"{value:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"
