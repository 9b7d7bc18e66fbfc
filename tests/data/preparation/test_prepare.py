import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from data.audio.decode import read_audio, to_int16
from data.errors import DataError
from data.parts import SPLITS
from data.preparation import prepare as preparing
from data.preparation.prepare import load_prepared, prepare


def digests(prepared):
    return [prepared.splits[split].manifest.digest for split in SPLITS]


def silence(path):
    soundfile.write(path, np.zeros(soundfile.info(path).frames), 16_000)


def test_windows_are_the_samples_of_their_recordings(prepared, tmp_path):
    for split in SPLITS:
        data = prepared.splits[split]
        stored = data.windows()
        assert stored.shape == (len(data.manifest), 48_000)
        assert stored.dtype == np.int16
        for row, window in enumerate(data.manifest.windows[:5]):
            (source,) = window.sources
            folder = tmp_path / "LibriSpeech" / source.part / source.speaker / source.chapter
            samples = to_int16(read_audio(folder / f"{source.recording_id}.wav"))
            start = source.start_sample
            assert np.array_equal(stored[row], samples[start : start + 48_000])


def test_splits_are_balanced_and_chapter_disjoint(prepared):
    assert prepared.split_rule == "chapter-disjoint"
    assert prepared.flags == prepared.lost == ()
    assert prepared.examined == 72
    assert [len(prepared.splits[split].manifest) for split in SPLITS] == [96, 48, 48]
    assert all(prepared.splits[split].manifest.share_1 == 0.5 for split in SPLITS)


def test_the_map_does_not_write_through_to_the_store(prepared):
    prepared.val.windows()[:] = 0
    assert prepared.val.windows().any()


def test_a_second_call_reads_no_header_and_decodes_nothing(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(preparing._Preparation, "run", None)
    again = prepare(prepared.config, data_root=tmp_path, cache=tmp_path / "cache")
    assert again == prepared
    assert load_prepared(prepared.folder) == prepared


def test_manifests_depend_on_content_not_on_place_or_time(prepared, tmp_path):
    moved = tmp_path / "elsewhere" / "LibriSpeech"
    shutil.copytree(tmp_path / "LibriSpeech", moved)
    for path in moved.rglob("*.wav"):
        os.utime(path, (1, 1))
    other = prepare(prepared.config, data_root=moved, cache=tmp_path / "other-cache")
    assert other.folder.name != prepared.folder.name
    assert digests(other) == digests(prepared)
    assert other.label_map.digest == prepared.label_map.digest


def test_a_cache_can_be_moved(prepared, tmp_path):
    moved = (tmp_path / "cache").rename(tmp_path / "moved")
    again = load_prepared(moved / "prepared" / prepared.folder.name)
    assert np.array_equal(again.val.windows()[0], np.load(again.val.folder / "windows.npy")[0])


def test_a_changed_corpus_is_prepared_anew(prepared, tmp_path):
    path = next((tmp_path / "LibriSpeech").rglob("*.wav"))
    samples = read_audio(path)
    soundfile.write(path, samples[::-1], 16_000)
    assert digests(prepare(prepared.config, data_root=tmp_path, cache=tmp_path / "cache")) != digests(
        prepared
    )


def test_windows_that_were_cleaned_away_are_cut_again(prepared, tmp_path):
    shutil.rmtree(tmp_path / "cache" / "windows")
    with pytest.raises(DataError, match="prepare the data again"):
        load_prepared(prepared.folder)
    again = prepare(prepared.config, data_root=tmp_path, cache=tmp_path / "cache")
    assert digests(again) == digests(prepared)
    assert len(again.train.windows()) == 96


@pytest.mark.parametrize("name", ["manifest_val.json", "label_map.json"])
def test_what_was_changed_by_hand_is_not_loaded(prepared, name):
    path = prepared.folder / name
    content = json.loads(path.read_text())
    content["digest"] = "0" * 64
    text = path.read_text().replace(json.loads(path.read_text())["digest"], "0" * 64)
    path.write_text(text)  # of the same size
    with pytest.raises(DataError, match="was changed"):
        load_prepared(prepared.folder)


def test_unchanged_manifests_are_read_once_and_rewritten_ones_again(prepared):
    first = load_prepared(prepared.folder)
    assert load_prepared(prepared.folder) is first
    for path in prepared.folder.iterdir():  # the same bytes in other files: as after a copy
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    assert load_prepared(prepared.folder) is first
    shutil.rmtree(prepared.folder)
    with pytest.raises(DataError, match="not a finished prepared folder"):
        load_prepared(prepared.folder)


def test_a_stranger_folder_is_not_loaded(tmp_path):
    with pytest.raises(DataError, match="not a finished prepared folder"):
        load_prepared(tmp_path)


def test_unusable_recordings_are_set_aside_listed_and_planned_around(make_corpus, configured, tmp_path):
    root = make_corpus(utterances=3)
    whole = prepare(configured(), data_root=root, cache=tmp_path / "cache")
    files = sorted(root.rglob("*.wav"))
    silence(files[0])
    files[40].write_bytes(b"garbage")
    kept = prepare(configured(), data_root=root, cache=tmp_path / "cache")
    assert [(lost.path, lost.reason.split(":")[0]) for lost in kept.lost] == [
        (files[0].relative_to(root).as_posix(), "silent"),
        (files[40].relative_to(root).as_posix(), "unreadable"),
    ]
    assert kept.examined == 108
    used = {w.sources[0].recording_id for split in SPLITS for w in kept.splits[split].manifest.windows}
    assert not used & {files[0].stem, files[40].stem}
    assert kept.label_map == whole.label_map  # nobody's class changes because a file is broken
    assert all(kept.splits[split].manifest.share_1 == 0.5 for split in SPLITS)


@pytest.mark.parametrize(
    "damage", [silence, lambda path: path.write_bytes(b"garbage")], ids=["decoding", "header"]
)
def test_a_corpus_that_loses_too_much_stops_with_the_list(make_corpus, configured, tmp_path, damage):
    root = make_corpus()
    broken = sorted(root.rglob("*.wav"))[::10]
    for path in broken:
        damage(path)
    with pytest.raises(DataError, match=r"max_lost_share is 5\.0%") as caught:
        prepare(configured(), data_root=root, cache=tmp_path / "cache")
    assert all(path.stem in str(caught.value) for path in broken)
    assert not any((tmp_path / "cache" / "prepared").glob("[0-9a-f]*"))
    kept = prepare(configured(max_lost_share=0.2), data_root=root, cache=tmp_path / "cache")
    assert len(kept.lost) == len(broken)


def test_parts_that_no_split_needs_are_not_asked_for(make_corpus, configured, tmp_path):
    parts = {"small": {"train": ["part-a"], "val": ["absent"], "test": ["absent"]}}
    root = make_corpus()
    assert prepare(configured(parts=parts), data_root=root, cache=tmp_path / "cache").split_rule
    with pytest.raises(DataError, match="has no part absent"):
        prepare(configured(parts=parts, variant="unseen"), data_root=root, cache=tmp_path / "cache")


def test_other_formats_go_the_same_way(make_corpus, configured, tmp_path):
    root = make_corpus()
    for number, path in enumerate(sorted(root.rglob("*.wav"))[:30]):
        samples = read_audio(path)
        path.unlink()
        if number % 3 == 0:
            stereo = np.stack([samples] * 2, axis=1)
            soundfile.write(path, stereo, 16_000, subtype="FLOAT")
        elif number % 3 == 1:
            soundfile.write(path, np.repeat(samples, 3), 48_000, subtype="FLOAT")
        else:
            soundfile.write(path.with_suffix(".flac"), samples, 16_000)
    prepared = prepare(configured(), data_root=root, cache=tmp_path / "cache")
    assert prepared.lost == ()
    assert [len(prepared.splits[split].manifest) for split in SPLITS] == [96, 48, 48]


def test_an_empty_split_is_an_empty_array(make_corpus, configured, tmp_path):
    root = make_corpus(chapters=1, utterances=1)
    prepared = prepare(configured(), data_root=root, cache=tmp_path / "cache")
    assert prepared.train.windows().shape == (0, 48_000)
    assert "left out" in prepared.flags[-1]


def test_another_process_prepares_the_same(prepared, tmp_path):
    code = (
        "import sys; from pathlib import Path; from data.preparation.prepare import *; from data.config import DataConfig\n"
        "config = DataConfig.model_validate_json(sys.argv[1]); root = Path(sys.argv[2])\n"
        "print(*prepare(config, data_root=root, cache=root / 'fresh').digests.values())"
    )
    child = subprocess.run(
        [sys.executable, "-c", code, prepared.config.model_dump_json(), str(tmp_path)],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout.split() == digests(prepared)


def test_progress_is_told(make_corpus, configured, tmp_path):
    told = []
    prepare(configured(), data_root=make_corpus(), cache=tmp_path / "cache", progress=told.append)
    assert told[0] == "reading the headers of 72 files of librispeech"
    assert told[-1] == "making windows: 48 of 48"
