"""Small corpora written on the fly, in the OpenSLR layout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data.config import DataConfig
from data.labels import LABEL_RULES
from data.preparation.prepare import Prepared, prepare

HISTORIC = "historic_bugs"
MakeCorpus = Callable[..., Path]


def _noise(seed: int, seconds: float) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3_000, 3_000, int(seconds * 16_000), dtype=np.int16)


@pytest.fixture
def make_corpus(tmp_path: Path) -> MakeCorpus:
    def make(
        part: str = "part-a",
        speakers: int = 12,
        chapters: int = 3,
        utterances: int = 2,
        seconds: float = 6.2,
        first_id: int = 100,
        root: Path = tmp_path / "LibriSpeech",
    ) -> Path:
        table = root / "SPEAKERS.TXT"
        rows = table.read_text().splitlines() if table.exists() else ["; a comment | with bars"]
        for index in range(speakers):
            speaker = str(first_id + index)
            rows.append(f"{speaker} | {'FM'[index % 2]} | {part} | 1.0 | A Name | with a bar")
            for chapter in range(chapters):
                folder = root / part / speaker / f"{speaker}{chapter}"
                folder.mkdir(parents=True)
                for utterance in range(utterances):
                    seed = int(speaker) * 100 + chapter * 10 + utterance
                    # Chapter 0 is the longest, so that it trains.
                    audio = _noise(seed, seconds * (2 if chapter == 0 else 1))
                    soundfile.write(
                        folder / f"{speaker}-{speaker}{chapter}-{utterance:04d}.wav", audio, 16_000
                    )
        table.write_text("\n".join(rows) + "\n")
        return root

    return make


@pytest.fixture
def configured() -> Callable[..., DataConfig]:
    def configure(**fields: object) -> DataConfig:
        given = {"corpus": "librispeech", "subset": "small", "parts": {"small": ["part-a"]}, **fields}
        return DataConfig.model_validate(given)

    return configure


@pytest.fixture
def prepared(make_corpus: MakeCorpus, configured: Callable[..., DataConfig], tmp_path: Path) -> Prepared:
    return prepare(configured(), data_root=make_corpus(), cache=tmp_path / "cache")


@pytest.fixture
def historic_bugs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = dict(LABEL_RULES)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("HARNESS_PLUGINS", HISTORIC)
    yield
    LABEL_RULES.clear()
    LABEL_RULES.update(before)
    sys.modules.pop(HISTORIC, None)
