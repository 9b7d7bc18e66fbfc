"""LibriSpeech in parquet, from the hub or a folder: whole speakers of few row groups, read like OpenSLR's.

What is fetched lies in the cache; row groups whole, so that a larger wish fetches only what is new::

    librispeech_hub/<commit or digest of the files>/<part>/index/row_groups.json
                                                          /row_groups/<file>-<number>/<speaker>/<chapter>/<id>.flac
    librispeech_hub/chosen/<digest of the choice>/<part>/<speaker>/<chapter>/<id>.flac   (links)

The last is the corpus of one request: what else was ever fetched changes nothing in it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from data.corpora.base import Progress, Request
from data.corpora.hub import ParquetSource, check_download, download_text, size_text
from data.corpora.librispeech.disk import FOLDER, TABLE, LibriSpeechReader, read_speakers
from data.corpora.librispeech.layouts import find_files, find_source
from data.corpora.librispeech.rows import (
    AUDIO,
    RowGroup,
    choose_speakers,
    groups_of,
    load_index,
    relative_path,
    speaker_of,
    windows_per_row,
)
from data.digests import digest_of
from data.errors import DataError
from data.store.content_store import build_once, is_complete

NAME = "librispeech_hub"
_ROWS_AT_ONCE = 16


@dataclass(frozen=True)
class _PartPlan:
    """Whose rows of a part are wanted, and where they are fetched to."""

    part: str
    folder: Path
    speakers: frozenset[str]
    of: int
    groups: tuple[RowGroup, ...]

    def place(self, group: RowGroup) -> Path:
        return self.folder / "row_groups" / group.name

    def missing(self) -> list[RowGroup]:
        return [group for group in self.groups if not is_complete(self.place(group))]

    def utterances(self) -> Iterator[tuple[RowGroup, str]]:
        return ((g, i) for g in self.groups for i in g.ids if speaker_of(i) in self.speakers)


class LibriSpeechHubReader(LibriSpeechReader):
    """Fetches the chosen rows of the parts that are asked for; listing and scan are those of a folder."""

    def locate(self, request: Request) -> Path:
        """Return the folder of the chosen utterances, fetching first what the cache lacks.

        Raises
        ------
        DataError
            The hub is away, a part is missing, the files are not in the hub's schema, or the download is
            larger than ``request.max_download_gb``.
        """
        source = find_source(request)
        table = _table(request.data_root)
        sexes = read_speakers(table) if table else {}
        plans = [_plan(source, part, request, sexes) for part in request.parts]
        name = digest_of(
            [[plan.part, plan.folder.parent.name, sorted(plan.speakers)] for plan in plans] + [sexes]
        )
        chosen = request.cache / NAME / "chosen" / name[:32]
        if not is_complete(chosen):
            _fetch(source, plans, request)
            build_once(chosen, partial(_link, plans, table))
        return chosen


def _table(root: Path | None) -> Path | None:
    """Return the speakers' table, which the hub does not have, where the data root does."""
    folders = (root, root / FOLDER) if root else ()
    return next((folder / TABLE for folder in folders if (folder / TABLE).is_file()), None)


def _plan(source: ParquetSource, part: str, request: Request, sexes: Mapping[str, str]) -> _PartPlan:
    folder, groups = _index(source, part, request)
    speakers = choose_speakers(
        groups,
        request.windows.get(part),
        per_row=windows_per_row(part),
        most=request.speakers,
        sexes=sexes,
    )
    everyone = frozenset[str]().union(*(group.speakers for group in groups))
    return _PartPlan(part, folder, frozenset(speakers), len(everyone), tuple(groups_of(groups, speakers)))


def _index(source: ParquetSource, part: str, request: Request) -> tuple[Path, Sequence[RowGroup]]:
    """Return the part's folder in the cache and its row groups; a pinned index needs no network."""
    cache = request.cache / NAME
    folder = cache / source.commit[:16] / part
    if source.remote and is_complete(folder / "index"):
        return folder, load_index(source, (), folder / "index")
    files = find_files(source, part)
    if not source.remote:
        folder = cache / f"local-{digest_of([asdict(file) for file in files])[:16]}" / part
    if not is_complete(folder / "index"):
        request.progress(f"reading the ids of {part} in {len(files)} files of {source.name}, without audio")
    return folder, load_index(source, files, folder / "index")


def _fetch(source: ParquetSource, plans: Sequence[_PartPlan], request: Request) -> None:
    """Announce the cost, refuse one above the limit, then read row group after row group."""
    missing = [(plan, group) for plan in plans for group in plan.missing()]
    size = sum(group.size for _, group in missing)
    parts = "; ".join(
        f"{plan.part} {len(plan.speakers)} of {plan.of} speakers in {len(plan.groups)} row groups"
        for plan in plans
    )
    if source.remote:
        check_download(
            size, request.max_download_gb, parts, "lower data.train_windows, or name fewer data.speakers"
        )
        cost = f"downloads {download_text(size)}"
    else:
        cost = f"reads {size_text(size)} of local parquet"
    kept = sum(len(plan.groups) for plan in plans) - len(missing)
    request.progress(f"{source.name}: {parts}; {cost}" + (f" ({kept} row groups are here)" if kept else ""))
    _fetch_all(source, missing, request.progress)


def _fetch_all(
    source: ParquetSource, missing: Sequence[tuple[_PartPlan, RowGroup]], progress: Progress
) -> None:
    size, done = sum(group.size for _, group in missing), 0
    step = -(-len(missing) // 10) or 1
    for number, (plan, group) in enumerate(missing, 1):
        build_once(plan.place(group), partial(_write_rows, source, group))
        done += group.size
        if number % step == 0:
            progress(f"{NAME}: {number} of {len(missing)} row groups, {size_text(done)} of {size_text(size)}")


def _write_rows(source: ParquetSource, group: RowGroup, aside: Path) -> None:
    """Write a row group's audio as it is encoded; a row without bytes is an empty file, lost by the scan."""
    expected = iter(group.ids)
    for batch in source.batches(group.file, group.number, ("id", AUDIO), _ROWS_AT_ONCE):
        audio = batch.column("audio").field("bytes")
        for utterance, encoded in zip(batch.column("id").to_pylist(), audio, strict=True):
            if utterance != next(expected, None):
                raise DataError(
                    f"{group.file} of {source.name} changed while it was read; run the same again"
                )
            path = aside / relative_path(utterance)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded.as_buffer() if encoded.is_valid else b"")


def _link(plans: Sequence[_PartPlan], table: Path | None, aside: Path) -> None:
    """Lay out the chosen speakers' utterances without copying them."""
    for plan in plans:
        for group, utterance in plan.utterances():
            target = aside / plan.part / relative_path(utterance)
            target.parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(plan.place(group) / relative_path(utterance), target)
    if table:
        shutil.copyfile(table, aside / TABLE)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.symlink_to(os.path.relpath(source, target.parent))
    except OSError:  # a file system without links; the date is part of what was prepared
        shutil.copy2(source, target)
