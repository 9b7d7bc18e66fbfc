"""Windows as sums of pieces, from utterances in memory and from conversations by seeking."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from data.audio.decode import digest_audio, load_audio, read_excerpt, to_int16
from data.audit.audit import audit
from data.config import DataConfig
from data.parts import SPLITS
from data.preparation.prepare import prepare
from data.preparation.windows import FADE, mix
from data.tasks import TASKS
from data.tasks.base import Piece
from data.tasks.mixing import splice_lengths
from tests.data.meetings import write_ami
from tests.data.task_pools import plan, pool_of, read_speech

UTTERANCE = read_speech(speakers=1)[0]
WINDOW = plan(TASKS["overlap"]).splits["train"][0]


def of(*pieces, level=None):
    return dataclasses.replace(WINDOW, pieces=pieces, level_dbfs=level)


def test_a_whole_window_is_its_samples_bit_for_bit():
    samples = np.random.default_rng(0).uniform(-1, 1, 48_000).astype(np.float32)
    assert np.array_equal(mix(of(Piece(UTTERANCE, 0)), [samples]), samples)


@given(st.floats(0.75, 2.25))
@settings(max_examples=30)
def test_the_two_fades_of_a_splice_sum_to_one(at_s):
    first, second = splice_lengths(at_s)
    assert first + second - FADE == 48_000
    pieces = Piece(UTTERANCE, 0, first, 0), Piece(UTTERANCE, 0, second, first - FADE)
    flat = mix(of(*pieces), [np.ones(first, np.float32), np.ones(second, np.float32)])
    assert np.allclose(flat, 1, atol=1e-6)


@given(st.floats(-60, 20), st.floats(-40, -20))
@settings(max_examples=30)
def test_a_window_has_the_level_that_was_drawn_whatever_the_gains(gain, level):
    noise = np.random.default_rng(1).normal(0, 0.05, 48_000).astype(np.float32)
    made = mix(of(Piece(UTTERANCE, 0, gain_db=gain), level=level), [noise])
    assert 10 * np.log10(np.mean(made.astype(np.float64) ** 2)) == pytest.approx(level, abs=0.01)


def test_no_sum_clips():
    loud = np.zeros(48_000, np.float32)
    loud[::4_000] = 1.0  # peaks 36 dB above the root mean square
    made = mix(of(Piece(UTTERANCE, 0), level=-12.0), [loud])
    assert np.abs(made).max() == pytest.approx(0.99, abs=1e-3)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_an_excerpt_found_by_seeking_is_that_of_the_whole_file(tmp_path, rate):
    path = tmp_path / "long.wav"
    noise = np.random.default_rng(2).normal(0, 0.1, (rate * 20, 2))
    soundfile.write(path, noise, rate, subtype="PCM_16")
    whole = load_audio(path)
    assert digest_audio(path) == whole.sha256
    for start in (0, 1, 100_001, len(whole.samples) - 48_000):
        excerpt = read_excerpt(path, start, 48_000)
        expected = whole.samples[start : start + 48_000]
        assert excerpt.shape == (48_000,)
        if rate == 16_000:
            assert np.array_equal(excerpt, expected)
        else:  # resampled by itself: the same to the last bit of an int16, but for the file's own ends
            inner = slice(100, -100)
            assert np.abs(to_int16(excerpt)[inner].astype(int) - to_int16(expected)[inner]).max() <= 1


@pytest.fixture(scope="module")
def two_corpora(tmp_path_factory):
    """Read speech of noise, and meetings, under one data root."""
    root = tmp_path_factory.mktemp("corpora")
    write_ami(root / "AMI", seconds=90.0, voices=False)
    rows = []
    for speaker in range(200, 230):
        rows.append(f"{speaker} | {'FM'[speaker % 2]} | part-a | 1.0 | Name")
        for chapter in range(2):
            folder = root / f"LibriSpeech/part-a/{speaker}/{speaker}{chapter}"
            folder.mkdir(parents=True)
            noise = np.random.default_rng(speaker * 10 + chapter).normal(0, 0.05, 7 * 16_000)
            soundfile.write(folder / f"{speaker}-{speaker}{chapter}-0000.flac", noise, 16_000)
    (root / "LibriSpeech" / "SPEAKERS.TXT").write_text("\n".join(rows))
    return root


def prepared(root, cache, **fields):
    given = {
        "corpus": "librispeech", "subset": "a", "parts": {"a": ["part-a"]}, "task": "speaker_change",
        "evaluate_on": ("a", "ami"), "train_windows": 64, "val_windows": 48, "test_windows": 48, **fields,
    }  # fmt: skip
    return prepare(DataConfig.model_validate(given), data_root=root, cache=cache)


def test_one_sweep_reads_utterances_and_meetings(two_corpora, tmp_path):
    arms = [prepared(two_corpora, tmp_path, subset=subset) for subset in ("a", "ami")]
    for arm in arms:
        assert audit(arm).ok, audit(arm).refusals
        for split in SPLITS[1:]:
            subsets = arm.splits[split].manifest.subsets()
            assert set(subsets) == {"a", "ami"}
            for subset in set(subsets):  # each balanced by itself
                of_subset = [w.label for w in arm.splits[split].manifest.windows if w.subset == subset]
                assert 2 * sum(of_subset) == len(of_subset)
    # Arms that train on different subsets are judged on the same windows, to the bit.
    for split in SPLITS[1:]:
        assert arms[0].splits[split].manifest == arms[1].splits[split].manifest
    assert {w.subset for w in arms[1].train.manifest.windows} == {"ami"}


def test_a_subset_that_gives_no_windows_is_refused(two_corpora, tmp_path):
    """Else a pooled score would leave it out without a word, and so would the matrix."""
    parts = {"a": ["part-a"], "none": {"train": ["part-b"], "val": ["part-b"], "test": ["part-b"]}}
    folder = two_corpora / "LibriSpeech" / "part-b" / "900" / "1"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(5).normal(0, 0.05, 9 * 16_000)
    soundfile.write(folder / "900-1-0000.flac", noise, 16_000)  # one speaker changes into nobody
    refusals = audit(prepared(two_corpora, tmp_path, parts=parts, evaluate_on=("a", "none"))).refusals
    assert {check.name for check in refusals} == {"subsets val", "subsets test"}
    assert "none of none" in refusals[0].message
    assert "data.evaluate_on" in refusals[0].message


def test_stored_windows_are_made_as_the_manifest_says(two_corpora, tmp_path):
    arm = prepared(two_corpora, tmp_path)
    windows = arm.val.windows()
    for row, window in list(enumerate(arm.val.manifest.windows))[::5]:
        if window.subset == "ami":
            (source,) = window.sources
            path = two_corpora / f"AMI/amicorpus/{source.chapter}/audio/{source.chapter}.Mix-Headset.wav"
            assert np.array_equal(windows[row], to_int16(read_excerpt(path, source.start_sample, 48_000)))
            continue
        first = window.sources[0]
        path = two_corpora / f"LibriSpeech/part-a/{first.speaker}/{first.chapter}/{first.recording_id}.flac"
        whole = load_audio(path)
        assert first.audio_sha256 == whole.sha256
        head = whole.samples[first.start_sample :][: first.num_samples - FADE]
        made = windows[row][: len(head)] / 32_768
        assert np.corrcoef(head, made)[0, 1] > 0.999  # the same samples, at another level
        assert 20 * np.log10(np.sqrt(np.mean(windows[row].astype(float) ** 2)) / 32_768) == pytest.approx(
            window.level_dbfs, abs=0.05
        )


def test_voice_variants_are_trained_on_and_never_evaluated(two_corpora, tmp_path):
    fields = {"evaluate_on": ("a",), "train_windows": 120}
    plain = prepared(two_corpora, tmp_path, **fields)
    varied = prepared(two_corpora, tmp_path, voice_variants=2, **fields)
    variants = {s.variant for w in varied.train.manifest.windows for s in w.sources}
    assert "" in variants
    assert len(variants) > 2
    for split in SPLITS[1:]:
        assert varied.splits[split].manifest == plain.splits[split].manifest
    assert audit(varied).ok


def test_only_what_is_used_must_be_there(two_corpora, tmp_path):
    """A subset that is only evaluated needs no training part on disk."""
    parts = {"a": ["part-a"], "b": {"train": ["absent"], "val": ["part-a"], "test": ["part-a"]}}
    assert prepared(two_corpora, tmp_path, parts=parts, evaluate_on=("b",)).val.manifest.windows


def test_a_pool_forgets_what_is_lost():
    recordings = read_speech(speakers=4)
    pool = pool_of(recordings).knowing({}, {recordings[0].key})
    assert [r.key for r in pool.of("s", "train")] == [r.key for r in recordings[1:]]
