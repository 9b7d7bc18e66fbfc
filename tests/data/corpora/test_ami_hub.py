"""Laws of AMI in the hub's parquet: the same meetings as on disk, copied once, never decoded on the way."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from fsspec.implementations.local import LocalFileSystem

from data.corpora import CORPORA
from data.corpora.ami.disk import AmiReader
from data.corpora.ami.hub import REPO, AmiHubReader
from data.corpora.base import Request
from data.corpora.hub import ParquetSource
from data.errors import DataError
from tests.data.meetings import MEETINGS, SCHEMA, hub_row, write_ami, write_hub, write_parquet

PARTS = ("train", "validation", "test")
ON_DISK = {"train": "train", "validation": "dev", "test": "test"}
TURNS = [(0.0, 1.0, "MEE001"), (0.5, 2.0, "FEE002")]


@pytest.fixture(scope="module")
def ami(tmp_path_factory):
    return write_ami(tmp_path_factory.mktemp("written") / "AMI", seconds=10.0, voices=False)


@pytest.fixture(scope="module")
def hub(ami, tmp_path_factory):
    return write_hub(ami, tmp_path_factory.mktemp("hub"))


def read(hub, cache, *parts, progress=print, **fields):
    reader = AmiHubReader()
    root = reader.locate(Request(parts or PARTS, hub, cache, progress, **fields))
    files = reader.listing(root, parts or PARTS)
    return reader.scan(root, files), files


def refusal(hub, cache, *parts, **fields):
    with pytest.raises(DataError) as caught:
        read(hub, cache, *parts, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def wav(path: Path, seconds: float = 4.0) -> bytes:
    soundfile.write(
        path, np.random.default_rng(0).normal(0, 0.1, int(16_000 * seconds)), 16_000, subtype="PCM_16"
    )
    return path.read_bytes()


def one(tmp_path, *rows, split="train"):
    write_parquet(tmp_path / f"ihm/{split}-00000-of-00001.parquet", rows)
    return tmp_path


@pytest.mark.parametrize("place", ["{config}/{split}-{shard}", "data/{split}-{shard}", "{split}/{shard}"])
def test_the_meetings_are_those_of_the_folder(ami, tmp_path, place):
    reader = AmiReader()
    root = reader.locate(Request(tuple(ON_DISK.values()), ami, tmp_path, print))
    disk = reader.scan(root, reader.listing(root, list(ON_DISK.values()))).recordings
    scan, _ = read(write_hub(ami, tmp_path / "hub", place=place), tmp_path / "cache")
    assert scan.lost == scan.remarks == ()
    assert list(scan.recordings) == [*PARTS]
    for part, recordings in scan.recordings.items():
        assert [r.id for r in recordings] == [*MEETINGS[ON_DISK[part]]]
        for ours, theirs in zip(recordings, disk[ON_DISK[part]], strict=True):
            assert ours.part == part
            assert ours.path.read_bytes() == theirs.path.read_bytes()
            for name in (
                "id",
                "chapter",
                "group",
                "num_samples",
                "sample_rate",
                "segments",
                "sex",
                "conversation",
            ):
                assert getattr(ours, name) == getattr(theirs, name)


def test_copied_once_and_listed_the_same_ever_after(hub, tmp_path):
    said: list[str] = []
    _, before = read(hub, tmp_path, progress=said.append)
    assert len(said) == 3
    assert "copying 3 meetings of ami_hub/train" in said[0]
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.wav")}
    assert len(stamps) == 6
    _, after = read(hub, tmp_path, progress=said.append)
    assert len(said) == 3
    assert before == after
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.wav")}
    # Another machine, another time: the same listing, so prepared windows are found again.
    assert read(hub, tmp_path / "other")[1] == before


def test_only_the_parts_asked_for_are_copied(hub, tmp_path):
    scan, files = read(hub, tmp_path, "validation")
    assert list(scan.recordings) == ["validation"]
    assert {path.stem for path in tmp_path.rglob("*.wav")} == {*MEETINGS["dev"]}
    assert len(files) == 4


def test_an_interrupted_copy_goes_on(hub, tmp_path):
    def stop(message: str) -> None:
        if "ami_hub/test" in message:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read(hub, tmp_path, progress=stop)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.wav")}
    assert len(stamps) == 5
    cut_off = next(path for path in stamps if path.stem == "EN2001a")
    cut_off.write_bytes(cut_off.read_bytes()[:100])
    said: list[str] = []
    scan, _ = read(hub, tmp_path, progress=said.append)
    assert [line.split(" meetings")[0] for line in said] == ["copying 1", "copying 1"]
    assert sum(map(len, scan.recordings.values())) == 6
    assert scan.lost == ()
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items() if path != cut_off)


def test_a_changed_file_is_copied_anew(ami, tmp_path):
    hub = write_hub(ami, tmp_path / "hub")
    _, before = read(hub, tmp_path / "cache", "test")
    (file,) = (hub / "ihm").glob("test-*.parquet")
    row = pq.read_table(file).to_pylist()[0]
    write_parquet(file, [hub_row(row["audio"]["bytes"], row["audio"]["path"], TURNS)])
    scan, after = read(hub, tmp_path / "cache", "test")
    assert before != after
    assert [(s.start_s, s.end_s, s.speaker) for s in scan.recordings["test"][0].segments] == TURNS


def test_compressed_dictionary_encoded_float_lists_are_read_too(tmp_path):
    audio = wav(tmp_path / "x.wav")
    rows = [hub_row(audio + bytes(n), f"EN2001{'ab'[n]}.Mix-Headset.wav", TURNS) for n in range(2)]
    floats = pa.schema(
        [f if "time" not in f.name else pa.field(f.name, pa.list_(pa.float32())) for f in SCHEMA]
    )
    (tmp_path / "train").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=floats), tmp_path / "train/0.parquet")
    recordings = read(tmp_path, tmp_path / "cache", "train")[0].recordings["train"]
    assert [(r.id, len(r.segments)) for r in recordings] == [("EN2001a", 2), ("EN2001b", 2)]
    assert [r.path.read_bytes() for r in recordings] == [audio, audio + b"\0"]


@pytest.mark.parametrize("path", [None, "", "../..", "a b.wav"])
def test_a_row_that_does_not_tell_its_meeting_is_named_by_its_place(tmp_path, path):
    audio = wav(tmp_path / "x.wav")
    for shard in range(2):
        rows = [hub_row(audio, path, TURNS)] * 2
        write_parquet(tmp_path / f"ihm/train-{shard:05d}-of-00002.parquet", rows)
    scan, _ = read(tmp_path, tmp_path / "cache", "train")
    assert [r.id for r in scan.recordings["train"]] == ["train-0", "train-1", "train-2", "train-3"]
    assert "4 meetings do not tell their AMI id" in scan.remarks[0]


def test_rows_without_audio_or_speech_are_lost(tmp_path):
    audio = wav(tmp_path / "x.wav")
    rows = [
        hub_row(None, "EN2001a.wav", TURNS),
        hub_row(audio, "EN2001b.wav", []),
        hub_row(b"RIFF", "EN2001d.wav", TURNS),
        hub_row(audio, "EN2001e.wav", TURNS),
    ]
    scan, _ = read(one(tmp_path, *rows), tmp_path / "cache", "train")
    assert [r.id for r in scan.recordings["train"]] == ["EN2001e"]
    reasons = {lost.path.rpartition("/")[2]: lost.reason for lost in scan.lost}
    assert set(reasons) == {"EN2001a.wav", "EN2001b.wav", "EN2001d.wav"}
    assert "empty" in reasons["EN2001a.wav"]
    assert "nobody speaks" in reasons["EN2001b.wav"]
    assert "unreadable" in reasons["EN2001d.wav"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"speakers": ["A"]}, "2 starts, 2 ends and 1 speakers"),
        ({"timestamps_start": [float("nan"), 0.5]}, "turn 0 is from nan to 1.0"),
        ({"timestamps_end": [1.0, 0.2]}, "turn 1 is from 0.5 to 0.2"),
        ({"timestamps_start": [-1.0, 0.5]}, "turn 0 is from -1.0"),
        ({"timestamps_start": [None, 0.5]}, "turn 0 is from None"),
        ({"speakers": ["A", None]}, "turn 1 names no speaker: None"),
        ({"speakers": ["A", "B C"]}, "turn 1 names no speaker: 'B C'"),
    ],
)
def test_a_bad_row_is_named(tmp_path, change, words):
    row = {**hub_row(b"", "EN2001a.wav", TURNS), **change}
    said = refusal(one(tmp_path, row), tmp_path / "cache", "train")
    assert "row 0 (EN2001a)" in said
    assert words in said


def test_one_row_an_utterance_is_refused(tmp_path):
    (tmp_path / "ihm").mkdir()
    table = pa.table({"meeting_id": ["EN2001a"], "text": ["yes"], "begin_time": [1.0], "end_time": [2.0]})
    pq.write_table(table, tmp_path / "ihm/train-0.parquet")
    said = refusal(tmp_path, tmp_path / "cache", "train")
    assert "no column audio, timestamps_start" in said
    assert "one whole meeting" in said


def test_what_is_no_parquet_is_one_error(tmp_path):
    (tmp_path / "ihm").mkdir()
    (tmp_path / "ihm/train-0.parquet").write_bytes(b"PAR1 not")
    assert "train-0.parquet" in refusal(tmp_path, tmp_path / "cache", "train")


def test_a_missing_part_or_folder_says_what_was_expected(tmp_path, hub):
    said = refusal(tmp_path, tmp_path / "cache")
    assert "ihm/train-*.parquet" in said
    assert "--data-root DIR" in said
    assert "is not a folder" in refusal(tmp_path / "nowhere", tmp_path / "cache")
    assert "did you mean 'validation'" in refusal(hub, tmp_path, "validaton")


# ---------------------------------------------------------------- partition


def test_the_es2003_trap_and_lists(tmp_path):
    meetings = {"train": ["EN2001a"], "dev": ["ES2003a"], "test": ["EN2002a"]}
    hub = write_hub(
        write_ami(tmp_path / "AMI", meetings, seconds=4, voices=False), tmp_path / "hub", meetings
    )
    said = refusal(hub, tmp_path / "cache", "train")
    assert "ES2003a: validation there, train officially" in said
    assert "`partition: lists`" in said
    scan, _ = read(hub, tmp_path / "cache", partition="lists")
    assert [r.id for r in scan.recordings["validation"]] == ["ES2003a"]
    assert "not comparable" in scan.remarks[0]


def test_the_meeting_whose_speakers_are_in_dev_is_left_out(tmp_path):
    audio = wav(tmp_path / "x.wav")
    one(tmp_path, hub_row(audio, "EN2001a.wav", TURNS), hub_row(audio, "IB4005.wav", [(0.0, 1.0, "FIE038")]))
    one(tmp_path, hub_row(audio, "IB4001.wav", [(0.0, 1.0, "FIE038")]), split="validation")
    scan, _ = read(tmp_path, tmp_path / "cache", "train")
    assert [r.id for r in scan.recordings["train"]] == ["EN2001a"]
    assert scan.remarks == ("IB4005 in no part of the official partition and left out",)
    said = refusal(tmp_path, tmp_path / "cache", "train", partition="lists")
    assert "speakers in two parts: FIE038 (train: IB4005; validation: IB4001)" in said


def test_a_meeting_held_twice_is_refused(tmp_path):
    audio = wav(tmp_path / "x.wav")
    one(tmp_path, *[hub_row(audio, "EN2001a.wav", TURNS)] * 2)
    assert "EN2001a more than once" in refusal(tmp_path, tmp_path / "cache", "train")


# ---------------------------------------------------------------- memory, network


def test_a_long_meeting_is_neither_decoded_nor_held_with_its_neighbours(tmp_path):
    """Four meetings of 5 min in one row group: 9.6 MB each, 76.8 MB decoded as float32.

    Arrow holds a meeting up to three times (page, builder, value); all four would be 38 MB and more.
    """
    minutes, meetings, hub = 5, "abde", tmp_path / "hub"
    audio = wav(tmp_path / "x.wav", 60.0 * minutes)
    write_parquet(hub / "ihm/train-0.parquet", [hub_row(audio, f"EN2001{m}.wav", TURNS) for m in meetings])
    write_parquet(tmp_path / "small/ihm/train-0.parquet", [hub_row(audio[:9_000], "EN2001a.wav", TURNS)])
    script = f"""
        import resource
        from pathlib import Path
        from data.corpora.ami.hub import AmiHubReader
        from data.corpora.base import Request

        def peak(hub):
            reader = AmiHubReader()
            cache = Path({str(tmp_path / "cache")!r})
            root = reader.locate(Request(("train",), Path(hub), cache, lambda message: None))
            reader.scan(root, reader.listing(root, ["train"]))
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

        print(-peak({str(tmp_path / "small")!r}) + peak({str(hub)!r}))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    grown, decoded = int(run.stdout), len(meetings) * minutes * 60 * 16_000 * 4
    assert len(list((tmp_path / "cache").rglob("EN2001?.wav"))) == 5
    assert grown < 4 * len(audio) < decoded


@pytest.mark.parametrize("how", ["told to be offline", "unreachable"])
def test_without_the_hub_it_is_refused_at_once(tmp_path, monkeypatch, how):
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    if how == "unreachable":
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    else:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    began = time.monotonic()
    said = refusal(None, tmp_path, "train")
    assert time.monotonic() - began < 20  # seconds; a client that retries takes minutes
    for words in ("diarizers-community/ami", "--data-root DIR", "corpus: ami"):
        assert words in said


def test_from_the_hub_the_cost_is_limited_and_the_commit_is_the_identity(hub, tmp_path, monkeypatch):
    """The same way as from the network, with a folder in the place of the hub's file system."""
    source = ParquetSource(str(hub), REPO, "0" * 40, "advice")
    vars(source)["files"] = LocalFileSystem()
    monkeypatch.setattr(ParquetSource, "on_hub", lambda *_: source)
    assert "max_download_gb (0.001) allows" in refusal(None, tmp_path, max_download_gb=0.001)
    assert not list(tmp_path.rglob("*.wav"))
    said: list[str] = []
    _, files = read(None, tmp_path, progress=said.append, max_download_gb=1)
    assert said[0] == f"ami_hub: {REPO} at 0000000000"
    assert "fetching 3 meetings of ami_hub/train" in said[1]
    for path in hub.rglob("*.parquet"):
        os.utime(path)
    assert read(None, tmp_path)[1] == files  # a commit does not change, whatever the files' times


def test_ami_hub_is_registered_with_its_parts():
    corpus = CORPORA["ami_hub"]
    assert isinstance(corpus.reader(), AmiHubReader)
    assert [corpus.subsets["ami"].of(s) for s in ("train", "val", "test")] == [
        ("train",),
        ("validation",),
        ("test",),
    ]
