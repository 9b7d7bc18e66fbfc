"""Real LibriSpeech audio through preparation and the data gate."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data.audit.audit import audit
from data.config import DataConfig
from data.corpora.base import Request
from data.corpora.librispeech.disk import LibriSpeechReader, read_speakers
from data.parts import SPLITS
from data.preparation.prepare import prepare

CORPORA = Path(__file__).parents[3] / "shared" / "corpora"
pytestmark = [
    pytest.mark.needs_corpora,
    pytest.mark.skipif(not (CORPORA / "LibriSpeech").is_dir(), reason=f"{CORPORA}/LibriSpeech is absent"),
]


def real(cache, subset, part, **fields):
    config = DataConfig(corpus="librispeech", subset=subset, parts={subset: [part]}, **fields)
    return prepare(config, data_root=CORPORA, cache=cache)


def test_the_table_knows_every_speaker_of_the_cut():
    sexes = read_speakers(CORPORA / "LibriSpeech" / "SPEAKERS.TXT")
    assert len(sexes) > 2_400
    reader = LibriSpeechReader()
    root = reader.locate(Request(("test-other",), CORPORA, CORPORA, print))
    scan = reader.scan(root, reader.listing(root, ["train-clean-100", "test-other", "dev-clean"]))
    assert {part: len(recordings) for part, recordings in scan.recordings.items()} == {
        "train-clean-100": 157,
        "test-other": 60,
        "dev-clean": 2,
    }
    assert scan.lost == scan.remarks == ()
    speakers = {r.speaker: r.sex[r.speaker] for r in scan.recordings["test-other"]}
    assert Counter(speakers.values()) == Counter(F=3, M=3)


def test_six_seen_speakers_fall_back_to_utterances_flagged(tmp_path):
    prepared = real(tmp_path, "other", "test-other")
    assert prepared.split_rule == "utterance-disjoint"
    assert "utterance-disjoint fallback: 0 of 6 speakers" in prepared.flags[0]
    assert prepared.lost == ()
    outcome = audit(prepared)
    assert outcome.ok, [check.message for check in outcome.refusals]
    assert {"clusters val", "clusters test", "flags"} == {check.name for check in outcome.warnings}
    for split in SPLITS:
        windows = prepared.splits[split].windows()
        assert (np.abs(windows.astype(np.int32)).max(axis=1) > 300).all()  # speech, not zeros


def test_unseen_speakers_of_train_clean_100(tmp_path):
    prepared = real(tmp_path, "clean", "train-clean-100", variant="unseen")
    outcome = audit(prepared)
    assert outcome.ok, [check.message for check in outcome.refusals]
    assert outcome.warnings == ()
    speakers = [{w.speaker for w in prepared.splits[split].manifest.windows} for split in SPLITS]
    assert [len(of) for of in speakers] == [108, 24, 24]


def test_one_utterance_a_speaker_cannot_be_seen(tmp_path):
    outcome = audit(real(tmp_path, "clean", "train-clean-100"))
    assert not outcome.ok
    assert "156 of 156 speakers lack 3 utterances" in outcome.refusals[0].message
