"""Real speech for the tests of the models."""

from pathlib import Path

import numpy as np
import pytest
import soundfile


@pytest.fixture(scope="session")
def real_speech(corpora: Path) -> np.ndarray:
    """Windows (12, 48000) float32 of several LibriSpeech speakers."""
    windows = []
    for path in sorted((corpora / "LibriSpeech").rglob("*.flac"))[::15]:
        if len(windows) == 12:
            break
        samples, rate = soundfile.read(path, dtype="int16")
        assert rate == 16_000
        if len(samples) >= 48_000:
            windows.append(samples[:48_000] / 32_768)
    return np.asarray(windows, np.float32)
