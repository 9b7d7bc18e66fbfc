"""AMI as `diarizers-community/ami` has it: parquet in which one row is one whole meeting.

::

    audio: struct<bytes, path>   timestamps_start, timestamps_end: list<float>   speakers: list<string>

The encoded bytes of a row are copied to a file of their own, once, and never decoded on the way; after
that a meeting is read like one on disk, window by window. One page of parquet is held at a time: one
meeting, as recent versions of `datasets` write them; a writer with dictionaries and large pages puts
several into one, and they are held encoded together.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyannote.core import Annotation, Segment

from data.corpora.ami.meetings import Meeting, check_disjoint, check_official, is_official, scan_meetings
from data.corpora.ami.partition import OFFICIAL
from data.corpora.base import FileStamp, Request, Scan
from data.corpora.hub import ParquetFile, ParquetSource, check_download, size_text
from data.digests import digest_of
from data.errors import DataError, listed, unknown
from data.store.content_store import build_once, is_complete

REPO = "diarizers-community/ami"
# A branch: it is resolved to its commit, which is shown and is part of where the meetings are kept.
REVISION = "main"
CONFIG = "ihm"
PARTS = ("train", "validation", "test")
_OFFICIAL_NAME = {"validation": "dev"}
_TIMES = ("timestamps_start", "timestamps_end")
_COLUMNS = ("audio", *_TIMES, "speakers")
_ADVICE = (
    "pass --data-root DIR (or set HARNESS_DATA) with that data set's parquet files under DIR/ihm/, "
    "or use corpus: ami with the corpus on disk"
)
_PIECE = 8 << 20  # bytes read at once
_ID = re.compile(r"\w[\w-]*")


@dataclass(frozen=True, eq=False)
class _Row:
    """One meeting as its row describes it, without its audio; ``number`` counts in its file."""

    id: str
    file: ParquetFile
    number: int
    reference: Annotation

    @property
    def folder(self) -> str:
        """Where it is kept: one content, one name."""
        return digest_of([self.file.path, self.file.size, self.file.stamp])[:32]


class AmiHubReader:
    """Copies the meetings of the parts asked for under ``<cache>/ami_hub``, and reads them there.

    It remembers what `locate` found.
    """

    def __init__(self) -> None:
        self._meetings: list[Meeting] = []
        self._remarks: tuple[str, ...] = ()

    def locate(self, request: Request) -> Path:
        """Return the folder of the meetings, copying those that are missing.

        Raises
        ------
        DataError
            No parquet there, or no hub; a row that cannot be used; a partition that is not the one
            asked for; parts that share a meeting series or a speaker; a download above its limit.
        """
        for part in request.parts:
            if part not in PARTS:
                raise DataError(unknown("part of corpus ami_hub", part, PARTS))
        official = is_official(request.partition)
        source = _source(request)
        files = {part: _files(source, part) for part in PARTS}
        if missing := [part for part in request.parts if not files[part]]:
            raise DataError(_no_files(source, missing, files))
        if source.remote:
            size = sum(file.size for part in request.parts for file in files[part])
            check_download(
                size, request.max_download_gb, f"ami_hub ({listed(request.parts)})", "or name fewer parts"
            )
            request.progress(f"ami_hub: {source.name}")
        rows = {part: list(_rows(source, part, files[part])) for part in PARTS}
        self._check(rows, official, source.name)
        root = request.cache / "ami_hub"
        self._meetings = []
        for part in request.parts:
            kept = [row for row in rows[part] if not official or _official_or_unknown(row.id)]
            self._meetings += _extract(source, root, part, kept, request)
        return root

    def listing(self, root: Path, parts: Sequence[str]) -> list[FileStamp]:
        """Return the copied files of ``parts``; their folder tells their content, so no time is needed."""
        paths = [path for m in self._meetings if m.part in parts for path in (m.audio, m.rttm) if path]
        return sorted(FileStamp(p.relative_to(root).as_posix(), p.stat().st_size, 0) for p in paths)

    def scan(self, root: Path, files: Sequence[FileStamp]) -> Scan:
        """Read headers and references; ``files`` is what `listing` gave."""
        names = {file.path for file in files}
        meetings = [m for m in self._meetings if m.audio and m.audio.relative_to(root).as_posix() in names]
        scan = scan_meetings(meetings, root, PARTS)
        return Scan(scan.recordings, scan.lost, (*scan.remarks, *self._remarks))

    def _check(self, rows: dict[str, list[_Row]], official: bool, where: str) -> None:
        claims = [(row.id, part) for part in PARTS for row in rows[part]]
        remarks = []
        if official:
            check_official(claims, where, _OFFICIAL_NAME)
            if strangers := sorted(meeting for meeting, _ in claims if not _official_or_unknown(meeting)):
                remarks.append(f"{listed(strangers)} in no part of the official partition and left out")
                claims = [(meeting, part) for meeting, part in claims if _official_or_unknown(meeting)]
            if nameless := sum(meeting not in OFFICIAL for meeting, _ in claims):
                remarks.append(
                    f"{nameless} meetings do not tell their AMI id: their part could not be checked"
                )
        else:
            remarks.append("AMI by this copy's own splits: not comparable with the official partition")
        counts = [meeting for meeting, _ in claims]
        if twice := sorted({meeting for meeting in counts if counts.count(meeting) > 1}):
            raise DataError(
                f"{where} holds {listed(twice)} more than once; one row must be one whole meeting"
            )
        speakers = {row.id: row.reference.labels() for part in PARTS for row in rows[part]}
        check_disjoint(dict(claims), speakers, where)
        self._remarks = tuple(remarks)


def _official_or_unknown(meeting: str) -> bool:
    """Tell whether a meeting takes part: all but those with an AMI id that no official part has (IB4005)."""
    return meeting in OFFICIAL or not re.fullmatch(r"[IETB][SNB]\d{4}[a-z]?", meeting)


def _source(request: Request) -> ParquetSource:
    root = request.data_root
    if root is None:
        return ParquetSource.on_hub(REPO, request.revision or REVISION, _ADVICE)
    if not root.is_dir():
        raise DataError(f"data root {root} is not a folder; {_ADVICE}")
    return ParquetSource.in_folder(root)


def _files(source: ParquetSource, part: str) -> list[ParquetFile]:
    """Return the files of ``part`` from the first of the layouts that has any."""
    places = [(CONFIG, f"{part}-*.parquet"), ("data", f"{part}-*.parquet"), (part, "*.parquet")]
    return next(filter(None, (source.parquet(*place) for place in places)), [])


def _no_files(source: ParquetSource, missing: Sequence[str], files: dict[str, list[ParquetFile]]) -> str:
    there = [part for part in PARTS if files[part]] or source.folders()
    part = missing[0]
    return (
        f"{source.name} has no parquet of {listed(missing)} (it holds: {listed(there) or 'no folders'}): expected "
        f"{CONFIG}/{part}-*.parquet, data/{part}-*.parquet or {part}/*.parquet; {_ADVICE}"
    )


def _rows(source: ParquetSource, part: str, files: Sequence[ParquetFile]) -> Iterator[_Row]:
    """Yield the meetings of ``part``; of the audio only its path is read."""
    before = 0
    for file in files:
        with source.said("read", file.path), source.open(file.path) as opened:
            _check_columns(opened.schema_arrow, f"{file.path} of {source.name}")
            columns = ["audio.path", *_TIMES, "speakers"]
            rows = [
                row
                for i in range(opened.num_row_groups)
                for row in opened.read_row_group(i, columns).to_pylist()
            ]
        for number, row in enumerate(rows):
            name = posixpath.basename((row["audio"] or {}).get("path") or "").split(".")[0]
            meeting = name if _ID.fullmatch(name) else f"{part}-{before + number}"
            where = f"{file.path} of {source.name}, row {number} ({meeting})"
            yield _Row(meeting, file, number, _reference(row, meeting, where))
        before += len(rows)


def _check_columns(schema: pa.Schema, where: str) -> None:
    missing = [name for name in _COLUMNS if name not in schema.names]
    if missing:
        raise DataError(
            f"{where} has no column {listed(missing)} (it has {listed(schema.names)}); one row must be one "
            f"whole meeting, as in {REPO}: edinburghcstr/ami has one row an utterance and cannot be used"
        )
    kinds = {"audio": pa.types.is_struct, **dict.fromkeys(_COLUMNS[1:], _is_list)}
    for name, fits in kinds.items():
        if not fits(schema.field(name).type):
            raise DataError(f"{where}: column {name} is {schema.field(name).type}; write it as {REPO} has it")


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _reference(row: dict[str, Any], meeting: str, where: str) -> Annotation:
    starts, ends, names = ([*(row[name] or ())] for name in (*_TIMES, "speakers"))
    if not len(starts) == len(ends) == len(names):
        raise DataError(f"{where} has {len(starts)} starts, {len(ends)} ends and {len(names)} speakers")
    annotation = Annotation(uri=meeting)
    for turn, (start, end, name) in enumerate(zip(starts, ends, names, strict=True)):
        times = [value for value in (start, end) if isinstance(value, (int, float)) and math.isfinite(value)]
        if len(times) < 2 or not 0 <= start <= end:
            raise DataError(
                f"{where}: turn {turn} is from {start} to {end}; expected seconds, the start first"
            )
        if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
            raise DataError(f"{where}: turn {turn} names no speaker: {name!r}")
        annotation[Segment(start, end), turn] = name
    return annotation


def _extract(
    source: ParquetSource, root: Path, part: str, rows: Sequence[_Row], request: Request
) -> list[Meeting]:
    """Copy the meetings that are not there yet, each a folder of its own; return them all."""
    folders = {row: root / row.folder / part / row.id for row in rows}
    wanted = [row for row in rows if not is_complete(folders[row])]
    if wanted:
        size = size_text(sum(file.size for file in {row.file for row in wanted}))
        verb = "fetching" if source.remote else "copying"
        request.progress(f"{verb} {len(wanted)} meetings of ami_hub/{part} to {root}, from {size} of parquet")
    for file in sorted({row.file for row in wanted}):
        of_file = {row.number: row for row in wanted if row.file == file}
        for number, audio in _audio(source, file, of_file):
            row = of_file[number]
            build_once(folders[row], partial(_write, row, audio))
    return [
        Meeting(row.id, part, folders[row] / f"{row.id}.wav", folders[row] / f"{row.id}.rttm") for row in rows
    ]


def _audio(
    source: ParquetSource, file: ParquetFile, wanted: dict[int, _Row]
) -> Iterator[tuple[int, memoryview]]:
    """Yield (row number, encoded bytes) of the rows wanted, one at a time.

    Row groups without any are not read. In pieces and without read-ahead, else a whole row group (up
    to 100 meetings as `datasets` writes them) would be in memory.
    """
    first = 0
    with (
        source.said("read", file.path),
        source.open(file.path) as opened,
        source.files.open(posixpath.join(source.root, file.path), "rb", cache_type="none") as handle,
        pq.ParquetFile(handle, metadata=opened.metadata, buffer_size=_PIECE, pre_buffer=False) as pieces,
    ):
        for group in range(opened.num_row_groups):
            after = first + opened.metadata.row_group(group).num_rows
            last = max((number for number in wanted if first <= number < after), default=-1)
            if last >= 0:
                batches = pieces.iter_batches(1, [group], ["audio.bytes"], use_threads=False)
                for number, batch in zip(range(first, last + 1), batches, strict=False):
                    if number in wanted:
                        value = batch.column(0).field("bytes")[0]
                        yield number, memoryview(value.as_buffer() if value.is_valid else b"")
            first = after


def _write(row: _Row, audio: memoryview, folder: Path) -> None:
    (folder / f"{row.id}.wav").write_bytes(audio)
    with (folder / f"{row.id}.rttm").open("w", encoding="utf-8") as rttm:
        row.reference.write_rttm(rttm)
