import io
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from data.corpora import CORPORA
from data.corpora.base import Request
from data.corpora.hub import check_download, download_text, size_text
from data.corpora.librispeech.hub import LibriSpeechHubReader
from data.corpora.librispeech.layouts import PARTS
from data.corpora.librispeech.rows import FEWEST_SPEAKERS, RowGroup, choose_speakers, groups_of, order_of
from data.errors import DataError

READER = LibriSpeechHubReader()
PART = "test.clean"
SCHEMA = pa.schema(
    {
        "file": pa.string(),
        "audio": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "text": pa.string(),
        "speaker_id": pa.int64(),
        "chapter_id": pa.int64(),
        "id": pa.string(),
    }
)


@cache
def flac(seed):
    noise = np.random.default_rng(seed).normal(0, 0.1, 8_000)
    encoded = io.BytesIO()
    soundfile.write(encoded, noise, 16_000, format="FLAC")
    return encoded.getvalue()


def row(speaker, chapter, number, audio=b"", **other):
    name = f"{speaker}-{chapter}-{number:04d}"
    encoded = flac(speaker * 7 + number) if audio == b"" else audio
    return {
        "file": f"{name}.flac",
        "audio": {"bytes": encoded, "path": f"{name}.flac"},
        "text": "",
        "speaker_id": speaker,
        "chapter_id": chapter,
        "id": name,
        **other,
    }


def rows_of(speakers, utterances=3):
    return [row(s, 1_000 + s, number) for s in speakers for number in range(utterances)]


def write(path, rows, row_group=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, row_group_size=row_group)
    return path


def fetch(root, cache, parts=(PART,), said=None, **wants):
    """Locate, list and scan; return the scan."""
    say = [] if said is None else said
    folder = READER.locate(Request(tuple(parts), root, cache, say.append, **wants))
    return READER.scan(folder, READER.listing(folder, parts))


def ids(scan, part=PART):
    return [recording.id for recording in scan.recordings[part]]


@st.composite
def indexes(draw):
    """A part's row groups: speakers of 1 to 6 utterances, in any order, in row groups of any size."""
    speakers = draw(st.lists(st.integers(1, 9_999), min_size=1, max_size=70, unique=True))
    utterances = [f"{s}-1-{n:04d}" for s in speakers for n in range(draw(st.integers(1, 6)))]
    size = draw(st.integers(1, 9))
    cut = [tuple(utterances[at : at + size]) for at in range(0, len(utterances), size)]
    return [RowGroup("0000.parquet", number, 1, of) for number, of in enumerate(cut)]


@given(indexes(), st.integers(0, 500), st.integers(0, 500), st.randoms())
def test_chosen_speakers_are_whole_and_more_windows_only_add_some(groups, fewer, more, random):
    fewer, more = sorted((fewer, more))
    chosen = choose_speakers(groups, fewer, per_row=2)
    read = groups_of(groups, chosen)
    # Exactly the row groups that hold them, so all their rows.
    assert [g for g in groups if any(i.split("-")[0] in chosen for i in g.ids)] == read
    everyone = {i.split("-")[0] for g in groups for i in g.ids}
    rows = sum(i.split("-")[0] in chosen for g in read for i in g.ids)
    assert len(chosen) >= min(len(everyone), FEWEST_SPEAKERS)
    assert 2 * rows >= fewer or set(chosen) == everyone
    assert choose_speakers(groups, more, per_row=2)[: len(chosen)] == chosen
    assert set(choose_speakers(groups, None, per_row=2)) == everyone
    shuffled = list(groups)
    random.shuffle(shuffled)
    assert choose_speakers(shuffled, fewer, per_row=2) == chosen
    assert choose_speakers(groups, more, per_row=2, most=3) == order_of(everyone, {})[:3]


def test_the_order_takes_the_sexes_in_turn_and_not_the_first_of_the_file():
    speakers = [str(number) for number in range(100)]
    sexes = {s: "FM"[int(s) % 4 == 0] for s in speakers}
    ordered = order_of(speakers, sexes)
    assert sorted(ordered) == sorted(speakers)
    assert [sexes[s] for s in ordered[:50]] == ["F", "M"] * 25
    assert 30 < sum(map(int, ordered[:20])) / 20 < 70


@pytest.mark.parametrize(
    "path",
    [
        "all/test.clean/0000.parquet",
        "test.clean/anything.parquet",
        "clean/test/0000.parquet",
        "data/test.clean-00000-of-00001.parquet",
    ],
)
def test_a_part_is_found_in_every_layout(tmp_path, path):
    write(tmp_path / "hub" / path, rows_of([7, 3]))
    scan = fetch(tmp_path / "hub", tmp_path / "cache")
    assert ids(scan) == [f"{s}-{1_000 + s}-{n:04d}" for s in (3, 7) for n in range(3)]
    first = scan.recordings[PART][0]
    assert (first.speaker, first.chapter, first.num_samples) == ("3", "1003", 8_000)
    assert first.path.read_bytes() == flac(21)
    assert "sex unknown for 2 of 2 speakers" in scan.remarks[0]


def test_the_table_of_speakers_in_the_data_root_is_used(tmp_path):
    write(tmp_path / "hub/all/test.clean/0000.parquet", rows_of([7, 3]))
    (tmp_path / "hub/SPEAKERS.TXT").write_text("3 | F | test-clean | 8 | A\n7 | M | test-clean | 8 | B\n")
    scan = fetch(tmp_path / "hub", tmp_path / "cache")
    assert {r.speaker: r.sex[r.speaker] for r in scan.recordings[PART]} == {"3": "F", "7": "M"}
    assert scan.remarks == ()


def test_every_part_of_the_corpus_is_a_known_one():
    subsets = CORPORA["librispeech_hub"].subsets
    assert isinstance(CORPORA["librispeech_hub"].reader(), LibriSpeechHubReader)
    assert {p for parts in subsets.values() for s in ("train", "val", "test") for p in parts.of(s)} <= set(
        PARTS
    )


def test_an_absent_part_is_named_with_what_is_there(tmp_path):
    write(tmp_path / "all/test-clean/0000.parquet", rows_of([1]))
    write(tmp_path / "other/validation/0000.parquet", rows_of([2]))
    with pytest.raises(DataError) as caught:
        fetch(tmp_path, tmp_path / "cache")
    for words in (
        "has no part test.clean",
        "test-clean, validation.other",
        "did you mean 'test-clean'",
        f"all/{PART}/",
    ):
        assert words in str(caught.value)


def test_a_file_that_was_not_downloaded_is_missed(tmp_path):
    write(tmp_path / "data/test.clean-00001-of-00003.parquet", rows_of([1]))
    with pytest.raises(DataError, match=r"has 1 of 3 files; number 0, 2 is missing"):
        fetch(tmp_path, tmp_path / "cache")


def test_what_others_fetched_changes_nothing_and_only_new_row_groups_are_read(tmp_path):
    root, part = tmp_path / "hub", "train.clean.100"
    write(root / f"all/{part}/0000.parquet", rows_of(range(1, 51), utterances=2), row_group=6)
    few, said = fetch(root, tmp_path / "a", [part], windows={part: 2}), []
    assert len({r.speaker for r in few.recordings[part]}) == FEWEST_SPEAKERS
    everyone = fetch(root, tmp_path / "a", [part], said, windows={part: 10_000})
    assert len(everyone.recordings[part]) == 100
    assert "row groups are here" in said[0]
    again = fetch(root, tmp_path / "a", [part], said, windows={part: 2})
    alone = fetch(root, tmp_path / "b", [part], windows={part: 2}, speakers=50)
    assert ids(again, part) == ids(few, part) == ids(alone, part)
    assert len({r.speaker for r in fetch(root, tmp_path / "a", [part], speakers=5).recordings[part]}) == 5


def test_a_row_without_audio_is_lost_with_the_reason(tmp_path):
    rows = [row(1, 2, 0), row(1, 2, 1, None), row(1, 2, 2, b"no flac"), row(1, 2, 3, audio={}.get("x"))]
    rows[3]["audio"] = None
    write(tmp_path / "all/test.clean/0000.parquet", rows)
    scan = fetch(tmp_path, tmp_path / "cache")
    assert ids(scan) == ["1-2-0000"]
    reasons = {lost.path.rpartition("/")[2]: lost.reason for lost in scan.lost}
    assert "empty" in reasons["1-2-0001.flac"]
    assert "unreadable" in reasons["1-2-0002.flac"]
    assert "empty" in reasons["1-2-0003.flac"]


@pytest.mark.parametrize("name", ["../../etc/1-2-0000", "1-3-0000", "12-2-0000", "1-2-", "1-2-0/..", None])
def test_an_id_that_does_not_fit_its_row_is_refused(tmp_path, name):
    write(tmp_path / "all/test.clean/0000.parquet", [row(1, 2, 0), row(1, 2, 1, id=name)])
    with pytest.raises(DataError, match=r"row 1 of all/test.clean/0000.parquet has the id"):
        fetch(tmp_path, tmp_path / "cache")


def test_files_that_are_no_such_parquet_are_refused(tmp_path):
    path = write(tmp_path / "all/test.clean/0000.parquet", rows_of([1]))
    write(path.with_name("copy.parquet"), rows_of([1]))
    with pytest.raises(DataError, match="3 utterances stand twice"):
        fetch(tmp_path, tmp_path / "cache")
    path.with_name("copy.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match=r"copy.parquet of .* is no readable parquet"):
        fetch(tmp_path, tmp_path / "cache")
    pq.write_table(pa.table({"id": ["1-2-0"], "audio": ["x"]}), path.with_name("copy.parquet"))
    with pytest.raises(DataError, match=r"lacks speaker_id, chapter_id, audio\.bytes"):
        fetch(tmp_path, tmp_path / "cache")


def test_costs_are_said_and_bounded():
    assert size_text(1_940_000_000) == "1.94 GB"
    assert size_text(8_100_000) == "8.1 MB"
    assert download_text(2_400_000_000) == "2.40 GB, about 2 min at an assumed 20 MB/s"
    check_download(2_000_000_000, 2.0, "x", "y")
    check_download(10**12, None, "x", "y")
    with pytest.raises(DataError, match=r"2\.40 GB.*max_download_gb \(2\) allows; raise it, lower"):
        check_download(2_400_000_000, 2, "train", "lower data.train_windows")


KILLED = """
import os, signal, sys, threading
from pathlib import Path
from data.corpora.base import Request
from data.corpora.librispeech.hub import LibriSpeechHubReader
root, cache = map(Path, sys.argv[1:])

def kill_in_the_middle():
    while not any(cache.rglob(".*.aside/*/*/*.flac")):
        pass
    os.kill(os.getpid(), signal.SIGKILL)

def say(line):
    if " 3 of " in line:
        threading.Thread(target=kill_in_the_middle).start()

LibriSpeechHubReader().locate(Request(("test.clean",), root, cache, say))
"""


def row_groups(cache):
    return {
        path.name: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in cache.glob("librispeech_hub/*/*/row_groups/0*")
    }


def test_a_fetch_that_was_killed_goes_on_where_it_stopped(tmp_path):
    root, cache, total = tmp_path / "hub", tmp_path / "cache", 10
    write(root / "all/test.clean/0000.parquet", rows_of(range(1, 151), utterances=2), row_group=30)
    child = subprocess.run([sys.executable, "-c", KILLED, str(root), str(cache)], check=False)
    assert child.returncode == -signal.SIGKILL
    done = row_groups(cache)
    assert 3 <= len(done) < total
    said = []
    scan = fetch(root, cache, said=said)
    assert f"({len(done)} row groups are here)" in said[0]
    assert f" of {total - len(done)} row groups" in said[-1]
    after = row_groups(cache)
    assert len(after) == total
    assert {name: after[name] for name in done} == done  # not touched again
    assert len(scan.recordings[PART]) == 300
    assert not scan.lost
    assert fetch(root, cache, said=(again := [])).recordings == scan.recordings
    assert again == []


MEASURED = """
import resource, sys
from pathlib import Path
from data.corpora.base import Request
from data.corpora.librispeech.hub import LibriSpeechHubReader
def peak(part):
    LibriSpeechHubReader().locate(Request((part,), Path(sys.argv[1]), Path(sys.argv[2]), lambda line: None))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(peak("test.clean"), peak("test.other"))
"""


def test_memory_holds_one_row_group(tmp_path):
    def rows(count):
        return [row(1, 2, n, os.urandom(500_000)) for n in range(count)]

    write(tmp_path / "all/test.clean/0000.parquet", rows(16), row_group=16)  # one row group of 8 MB
    write(tmp_path / "all/test.other/0000.parquet", rows(96), row_group=16)  # six of them
    child = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path), str(tmp_path / "cache")],
        check=True,
        capture_output=True,
        text=True,
    )
    one_mb, six_mb = map(int, child.stdout.split())
    assert six_mb < one_mb + 3 * 8


def test_offline_the_hub_is_refused_at_once_with_what_to_do(tmp_path, monkeypatch):
    write(tmp_path / "ami/ihm/train-00000-of-00001.parquet", rows_of([1]))
    began = time.perf_counter()
    for root, offline in ((None, "1"), (tmp_path / "ami", "1"), (None, "0")):
        monkeypatch.setenv("HF_HUB_OFFLINE", offline)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody answers
        with pytest.raises(DataError) as caught:
            fetch(root, tmp_path / "cache")
        reason = "HF_HUB_OFFLINE is set" if offline == "1" else "the hub is not reachable"
        for words in (reason, "openslr/librispeech_asr", "--data-root DIR", "corpus: librispeech"):
            assert words in str(caught.value)
        assert ("holds no parquet of it (ihm)" in str(caught.value)) == (root is not None)
    assert time.perf_counter() - began < 30  # seconds; a client that retries takes minutes


def test_a_data_root_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="is not a folder; pass --data-root DIR"):
        fetch(tmp_path / "nowhere", tmp_path / "cache")
    assert not Path(tmp_path / "cache").exists()
