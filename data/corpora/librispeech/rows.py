"""The index of a part in parquet, known without touching audio, and the choice of whole speakers from it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from data.corpora.base import UNKNOWN_SEX
from data.corpora.hub import ParquetFile, ParquetSource
from data.digests import rank
from data.errors import DataError, listed
from data.store.content_store import build_once

if TYPE_CHECKING:
    import pyarrow.parquet as pq

AUDIO = "audio.bytes"
_KEYS = ("speaker_id", "chapter_id", "id")
_ID = re.compile(r"(\d+)-(\d+)-\d+")
_INDEX = "row_groups.json"
_AT_ONCE = 8  # files: what takes time is the way to the hub and back

# A speaker is a cluster of the interval: fewer than 40, the size of test-clean, widen it for nothing.
FEWEST_SPEAKERS = 40
# Whole 3 s windows in an utterance. Panayotov et al. 2015, table 1: 100.6 h in the 28,539 utterances of
# train-clean-100 are 12.7 s each, 5.4 h in the 2,703 of dev-clean 7.2 s; the tail holds no window.
_TRAIN_WINDOWS, _OTHER_WINDOWS = 4, 2


@dataclass(frozen=True)
class RowGroup:
    """Rows that are read at once: ``size`` is what their ids and audio take in the file, in bytes."""

    file: str
    number: int
    size: int
    ids: tuple[str, ...]

    @property
    def speakers(self) -> frozenset[str]:
        """The speakers of its rows; a group may hold several, and a speaker stand in several."""
        return frozenset(map(speaker_of, self.ids))

    @property
    def name(self) -> str:
        """Name of the folder it is kept in, unique in the part: the file's stem and the group's number."""
        return f"{Path(self.file).stem}-{self.number:05d}"


def speaker_of(utterance: str) -> str:
    """Return the speaker of an id, ``<speaker>-<chapter>-<utterance>``."""
    return utterance.partition("-")[0]


def relative_path(utterance: str) -> Path:
    """Return where the OpenSLR layout has an utterance: ``<speaker>/<chapter>/<id>.flac``."""
    speaker, chapter, _ = utterance.split("-")
    return Path(speaker, chapter, f"{utterance}.flac")


def windows_per_row(part: str) -> int:
    """Estimate how many whole 3 s windows an utterance of ``part`` holds: 4 in training parts, 2 elsewhere."""
    return _TRAIN_WINDOWS if part.startswith("train") else _OTHER_WINDOWS


def load_index(source: ParquetSource, files: Sequence[ParquetFile], folder: Path) -> tuple[RowGroup, ...]:
    """Return the row groups of ``files``, read once and kept in ``folder``."""
    build_once(folder, partial(_write_index, source, files))
    stored = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    return tuple(RowGroup(g["file"], g["number"], g["size"], tuple(g["ids"])) for g in stored)


def _write_index(source: ParquetSource, files: Sequence[ParquetFile], aside: Path) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        groups = [group for of in pool.map(partial(_read_index, source), files) for group in of]
    twice = [i for i, count in Counter(i for group in groups for i in group.ids).items() if count > 1]
    if twice:
        raise DataError(
            f"{len(twice)} utterances stand twice in the parquet files of {Path(files[0].path).parent} of "
            f"{source.name} ({listed(sorted(twice), 3)}); remove the files that were copied twice"
        )
    (aside / _INDEX).write_text(json.dumps([asdict(group) for group in groups]), encoding="utf-8")


def _read_index(source: ParquetSource, file: ParquetFile) -> list[RowGroup]:
    """Read the footer and the three columns of ids; audio is passed over."""
    with source.said("read", file.path), source.open(file.path) as parquet:
        sizes = _sizes(parquet.metadata, f"{file.path} of {source.name}")
        columns = parquet.read(columns=list(_KEYS)).to_pydict()
        counts = [parquet.metadata.row_group(number).num_rows for number in range(len(sizes))]
    rows = zip(*(columns[key] for key in _KEYS), strict=True)
    ids = iter([_checked(file.path, row, *keys) for row, keys in enumerate(rows)])
    return [
        RowGroup(file.path, number, size, tuple(islice(ids, count)))
        for number, (size, count) in enumerate(zip(sizes, counts, strict=True))
    ]


def _sizes(footer: pq.FileMetaData, path: str) -> list[int]:
    """Return the compressed bytes of each row group's ids and audio."""
    there = {footer.schema.column(i).path: i for i in range(footer.num_columns)}
    missing = [name for name in (*_KEYS, AUDIO) if name not in there]
    if missing:
        raise DataError(
            f"{path} lacks {listed(missing)} (it has {listed(sorted(there))}): it is not in the schema of "
            "openslr/librispeech_asr, whose columns are file, audio (bytes, path), text, speaker_id, chapter_id, id"
        )
    read = (there["id"], there[AUDIO])
    groups = (footer.row_group(number) for number in range(footer.num_row_groups))
    return [sum(group.column(i).total_compressed_size for i in read) for group in groups]


def _checked(path: str, row: int, speaker: object, chapter: object, utterance: object) -> str:
    """Return the id, which becomes a path: it must be made of its speaker, its chapter and digits."""
    fits = _ID.fullmatch(str(utterance))
    if fits is None or fits.groups() != (str(speaker), str(chapter)):
        raise DataError(
            f"row {row} of {path} has the id {utterance!r}, which does not begin with its speaker {speaker} and "
            f"chapter {chapter}, as in {speaker}-{chapter}-0000; the file is not LibriSpeech as the hub has it"
        )
    return str(utterance)


def order_of(speakers: Collection[str], sexes: Mapping[str, str]) -> list[str]:
    """Return ``speakers`` spread evenly over the part: by sha256 rank, the sexes in turn."""
    of_sex: Counter[str] = Counter()
    turns: list[tuple[int, str, str]] = []
    for speaker in sorted(speakers, key=rank):
        sex = sexes.get(speaker, UNKNOWN_SEX)
        turns.append((of_sex[sex], sex, speaker))
        of_sex[sex] += 1
    return [speaker for *_, speaker in sorted(turns)]


def choose_speakers(
    groups: Sequence[RowGroup],
    windows: int | None,
    *,
    per_row: int,
    most: int | None = None,
    sexes: Mapping[str, str] | None = None,
) -> list[str]:
    """Return whose utterances are wanted, a prefix of `order_of`: more windows only add speakers.

    Speakers are taken until their rows should hold ``windows`` (None: everyone's), and until there are
    `FEWEST_SPEAKERS` of them, but never more than ``most``.
    """
    rows = Counter(speaker_of(utterance) for group in groups for utterance in group.ids)
    chosen: list[str] = []
    held = 0
    for speaker in order_of(rows, sexes or {})[:most]:
        if windows is not None and held >= windows and len(chosen) >= FEWEST_SPEAKERS:
            break
        chosen.append(speaker)
        held += per_row * rows[speaker]
    return chosen


def groups_of(groups: Sequence[RowGroup], speakers: Collection[str]) -> list[RowGroup]:
    """Return the row groups that hold any of ``speakers``: what has to be read, other speakers' rows in it too."""
    wanted = frozenset(speakers)
    return [group for group in groups if group.speakers & wanted]
