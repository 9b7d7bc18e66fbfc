from collections import Counter

import numpy as np
import pytest

from data.audit.audit import audit
from data.config import DataConfig
from data.corpora.base import Request
from data.corpora.demo import demo
from data.corpora.demo.demo import CHAPTERS, SPEAKERS, DemoReader, DemoSpeaker, make_utterance
from data.errors import DataError
from data.parts import SPLITS
from data.preparation.prepare import prepare

SHORT = ((2, 2), (2,), (2,))  # windows in each utterance of three chapters
EVERYONE = [DemoSpeaker(index) for index in range(SPEAKERS)]


@pytest.fixture(scope="module")
def small_cache(tmp_path_factory):
    """Both parts of a demo corpus of 8 speakers."""
    cache = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "SPEAKERS", 8)
        patch.setattr(demo, "CHAPTERS", SHORT)
        DemoReader().locate(Request(("clean", "other"), None, cache, lambda message: None))
    return cache


def test_speakers_are_half_women_and_hash_deals_them_70_30():
    assert len({speaker.id for speaker in EVERYONE}) == SPEAKERS == 96
    assert Counter(speaker.sex for speaker in EVERYONE) == Counter(F=48, M=48)
    odd = sum(int(speaker.id) % 2 for speaker in EVERYONE)
    assert round(100 * odd / SPEAKERS) == 30


def test_chapters_hold_36_15_and_15_seconds_of_windows():
    assert [3 * sum(utterances) for utterances in CHAPTERS] == [36, 15, 15]
    assert all(3 * windows >= 6 and 3 * windows + 0.5 <= 12.5 for of in CHAPTERS for windows in of)


def test_women_speak_higher_than_men():
    pitches = {sex: [s.voice.f0_hz for s in EVERYONE if s.sex == sex] for sex in "FM"}
    assert min(pitches["F"]) > max(pitches["M"])


@pytest.mark.parametrize("part", ["clean", "other"])
def test_an_utterance_is_the_same_whenever_it_is_made(part):
    once, again = (make_utterance(part, 5, 1, 0) for _ in range(2))
    assert np.array_equal(once, again)
    assert np.isfinite(once).all()
    assert 0.01 < np.sqrt(np.mean(once**2)) < 0.25
    assert np.abs(once).max() < 1.5  # what clips is rare
    assert np.mean(np.abs(once) > 1) < 1e-3


def test_conditions_say_the_same_differently():
    clean, other = (make_utterance(part, 5, 1, 0) for part in ("clean", "other"))
    assert len(clean) == len(other)
    likeness = np.corrcoef(clean, other)[0, 1]
    assert 0.3 < likeness < 0.99
    # Pauses are filled with noise at 5 to 15 dB: the quietest tenth of other is much louder.
    quiet = [np.percentile(np.abs(signal) / signal.std(), 10) for signal in (clean, other)]
    assert quiet[1] > 1.5 * quiet[0]


def test_speakers_utterances_and_chapters_differ():
    signals = [make_utterance("clean", *key)[:48_000] for key in ((0, 1, 0), (2, 1, 0), (0, 2, 0), (0, 1, 1))]
    likeness = np.abs(np.corrcoef(signals) - np.eye(4))
    assert likeness.max() < 0.2


def test_the_corpus_has_the_layout_of_openslr(small_cache):
    root = small_cache / "demo" / demo.VERSION
    files = sorted((root / "clean").rglob("*.wav"))
    assert len(files) == 8 * sum(map(len, SHORT))
    assert files[0].relative_to(root).as_posix() == "clean/1001/100000/1001-100000-0000.wav"
    assert (root / "SPEAKERS.TXT").read_text().startswith(";ID")


@pytest.mark.parametrize("variant", ["seen", "unseen"])
def test_the_demo_passes_the_gate_and_conditions_share_their_evaluation(small_cache, variant):
    outcomes = []
    for subset in ("clean", "other"):
        config = DataConfig(subset=subset, evaluate_on=("clean", "other"), variant=variant)
        prepared = prepare(config, data_root=None, cache=small_cache)
        assert audit(prepared).ok, audit(prepared).refusals
        assert prepared.flags == ()
        outcomes.append(prepared)
    for split in ("val", "test"):
        assert outcomes[0].splits[split].manifest == outcomes[1].splits[split].manifest
        parts = Counter(w.sources[0].part for w in outcomes[0].splits[split].manifest.windows)
        assert parts["clean"] == parts["other"] > 0
    assert outcomes[0].train.manifest.digest != outcomes[1].train.manifest.digest


def test_seen_splits_hold_every_window(small_cache):
    prepared = prepare(DataConfig(), data_root=None, cache=small_cache)
    assert [len(prepared.splits[split].manifest) for split in SPLITS] == [8 * 4, 8 * 2, 8 * 2]


def test_a_part_that_the_demo_lacks_is_named(tmp_path):
    config = DataConfig(parts={"clean": ["claen"]})
    with pytest.raises(DataError, match="unknown part of corpus demo 'claen'; did you mean 'clean'"):
        prepare(config, data_root=None, cache=tmp_path)
