"""Real LibriSpeech in the hub's schema, written by `datasets`, through the hub's reader."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pyarrow as pa
import pytest
import soundfile

from data.corpora import CORPORA
from data.corpora.base import Request
from data.corpora.librispeech.disk import LibriSpeechReader

pytestmark = pytest.mark.needs_corpora
ROWS = 10  # a row group; the hub's hold 100


def utterances(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.flac"))


def write_parquet(flacs: list[Path], target: Path, rows: int = ROWS) -> None:
    """Write the schema of openslr/librispeech_asr as the hub's own tool does."""
    from datasets import Audio, Dataset, Features, Value

    ids = [flac.stem.split("-") for flac in flacs]
    features = Features(
        file=Value("string"),
        audio=Audio(sampling_rate=16_000, decode=False),
        text=Value("string"),
        speaker_id=Value("int64"),
        chapter_id=Value("int64"),
        id=Value("string"),
    )
    columns = {
        "file": [flac.name for flac in flacs],
        "audio": [{"bytes": flac.read_bytes(), "path": flac.name} for flac in flacs],
        "text": ["" for _ in flacs],
        "speaker_id": [int(speaker) for speaker, *_ in ids],
        "chapter_id": [int(chapter) for _, chapter, _ in ids],
        "id": [flac.stem for flac in flacs],
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    # As a table: encoding a dictionary needs torchcodec, even of bytes that are encoded already.
    table = pa.Table.from_pydict(columns, schema=features.arrow_schema)
    Dataset(table).to_parquet(target, batch_size=rows)


@pytest.fixture(scope="module")
def hub_root(corpora, tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    speech = corpora / "LibriSpeech"
    flacs = utterances(speech / "train-clean-100")
    for number in range(2):
        write_parquet(flacs[number::2], root / f"all/train.clean.100/{number:04d}.parquet")
    write_parquet(utterances(speech / "dev-clean"), root / "clean/validation/0000.parquet")
    write_parquet(utterances(speech / "test-other"), root / "data/test.other-00000-of-00001.parquet")
    (root / "SPEAKERS.TXT").write_bytes((speech / "SPEAKERS.TXT").read_bytes())
    return root


def request(root, cache, parts, said, **wants):
    return Request(tuple(parts), root, cache, said.append, **wants)


def test_the_rows_are_the_corpus_as_it_lies_on_disk(hub_root, corpora, tmp_path):
    parts = {
        "train.clean.100": "train-clean-100",
        "validation.clean": "dev-clean",
        "test.other": "test-other",
    }
    reader, said = CORPORA["librispeech_hub"].reader(), []
    root = reader.locate(request(hub_root, tmp_path, parts, said))
    found = reader.scan(root, reader.listing(root, list(parts)))
    disk = LibriSpeechReader()
    there = disk.scan(corpora / "LibriSpeech", disk.listing(corpora / "LibriSpeech", list(parts.values())))
    assert found.lost == found.remarks == ()
    for part, folder in parts.items():
        ours, theirs = found.recordings[part], there.recordings[folder]
        assert [(r.id, r.segments, r.sex, r.chapter, r.num_samples) for r in ours] == [
            (r.id, r.segments, r.sex, r.chapter, r.num_samples) for r in theirs
        ]
        assert all(o.path.read_bytes() == t.path.read_bytes() for o, t in zip(ours, theirs, strict=True))
    assert any("MB of local parquet" in line for line in said)


def test_a_stream_of_datasets_gives_the_same_bytes(hub_root, tmp_path):
    """The independent way: `load_dataset`, streaming, undecoded, as the library reads the hub."""
    from datasets import Audio, load_dataset

    files = str(hub_root / "data/test.other-*.parquet")
    stream = load_dataset(
        "parquet",
        data_files={"test.other": files},
        split="test.other",
        streaming=True,
        cache_dir=str(tmp_path),
    )
    stream = stream.cast_column("audio", Audio(decode=False)).select_columns(["id", "audio"])
    reader = CORPORA["librispeech_hub"].reader()
    root = reader.locate(request(hub_root, tmp_path, ["test.other"], []))
    (recordings,) = reader.scan(root, reader.listing(root, ["test.other"])).recordings.values()
    fetched = {r.id: r.path.read_bytes() for r in recordings}
    assert {row["id"]: row["audio"]["bytes"] for row in stream} == fetched


def test_forty_speakers_of_the_cut_are_spread_over_it_and_half_are_women(hub_root, tmp_path):
    reader, said = CORPORA["librispeech_hub"].reader(), []
    began = time.perf_counter()
    root = reader.locate(
        request(hub_root, tmp_path, ["train.clean.100"], said, windows={"train.clean.100": 100})
    )
    seconds = time.perf_counter() - began
    (recordings,) = reader.scan(root, reader.listing(root, ["train.clean.100"])).recordings.values()
    sexes = {r.speaker: r.sex[r.speaker] for r in recordings}
    assert len(sexes) == 40
    assert sorted(sexes.values()).count("F") == 20
    rows = sum(r.num_samples for r in recordings)
    print(f"{rows / 16_000:.0f} s of speech in {seconds:.2f} s,", said)
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "MB")
    assert soundfile.info(recordings[0].path).samplerate == 16_000
