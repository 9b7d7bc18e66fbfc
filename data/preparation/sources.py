"""The corpora that one configuration reads: opened, listed and scanned together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.config import DataConfig
from data.corpora import CORPORA
from data.corpora.base import FileStamp, Progress, Reader, Recording, Request, Scan, stamp_of
from data.errors import DataError, listed
from data.parts import Split
from data.store.safe_read import usable
from data.tasks import TASKS


@dataclass(frozen=True)
class Source:
    """One opened corpus: its reader, its folder and the files of the parts that are read."""

    corpus: str
    reader: Reader
    root: Path
    files: Sequence[FileStamp]

    @property
    def state(self) -> list[object]:
        """What tells one state of the corpus from another, without opening a file."""
        return [self.corpus, [[f.path, f.size, f.mtime_ns] for f in self.files]]

    def check_unchanged(self) -> None:
        """Refuse files that are others than those listed: what was examined must be what was cut."""
        now = {stamp.path: stamp_of(self.root / stamp.path, self.root) for stamp in self.files}
        changed = [
            stamp.path
            for stamp in self.files
            if now[stamp.path].size != stamp.size or stamp.mtime_ns not in (0, now[stamp.path].mtime_ns)
        ]  # a time of 0: told apart by their folder
        if changed:
            raise DataError(
                f"{len(changed)} files of {self.corpus} changed while they were being prepared "
                f"({listed(changed, 3)}); prepare again"
            )

    def relative(self, recording: Recording) -> str:
        """Return the path of ``recording`` below the corpus, with ``/``; the whole path where it lies elsewhere."""
        inside = recording.path.is_relative_to(self.root)
        return recording.path.relative_to(self.root).as_posix() if inside else str(recording.path)


def open_sources(config: DataConfig, data_root: Path | None, cache: Path, progress: Progress) -> list[Source]:
    """Locate and list every corpus that ``config`` names a subset of, sorted by name.

    Raises
    ------
    DataError
        A missing folder or part; two corpora with a part of the same name.
    """
    by_corpus: dict[str, set[str]] = defaultdict(set)
    for subset in {config.subset, *config.evaluated}:
        by_corpus[config.corpus_of(subset)].add(subset)
    sources: list[Source] = []
    owner: dict[str, str] = {}
    for corpus in sorted(by_corpus):
        windows = wanted_windows(config, by_corpus[corpus])
        for part in windows:
            if owner.setdefault(part, corpus) != corpus:
                raise DataError(f"part {part} stands in {owner[part]} and in {corpus}; rename one of them")
        reader = CORPORA[corpus].reader()
        request = Request(
            parts=tuple(sorted(windows)),
            data_root=data_root,
            cache=cache,
            progress=progress,
            windows=windows,
            speakers=config.speakers,
            max_download_gb=config.max_download_gb,
            partition=config.partition,
            # A revision is a commit of one repository: that of the corpus that is named.
            revision=config.revision if corpus == config.corpus else None,
        )
        with usable(f"corpus {corpus}"):
            root = reader.locate(request)
            sources.append(Source(corpus, reader, root, reader.listing(root, request.parts)))
    return sources


def wanted_windows(config: DataConfig, subsets: Iterable[str]) -> dict[str, int]:
    """Return part -> windows wanted of it at most, for the parts of ``subsets`` that are read."""
    sizes: dict[Split, int] = {
        "train": config.train_windows,
        "val": config.val_windows,
        "test": config.test_windows,
    }
    roles = TASKS[config.task].roles(config.variant)
    # A task that cuts all splits from the training parts needs their windows there.
    extra = 0 if len(roles) > 1 else sizes["val"] + sizes["test"]
    windows: dict[str, int] = defaultdict(int)
    for subset in sorted(subsets):
        for split in roles:
            for part in config.parts_of(subset).of(split):
                if split == "train" and len(roles) > 1 and _only_to_train(config, subset, part):
                    continue
                windows[part] += sizes[split] + extra
    return dict(windows)


def _only_to_train(config: DataConfig, subset: str, part: str) -> bool:
    """Tell whether ``part`` could only be trained on, and is not: then it need not even be there."""
    return config.parts_of(subset).roles(part) == ("train",) and subset != config.subset


def scan_all(sources: Sequence[Source]) -> Scan:
    """Read the headers of every source, and join what they say; part names are unique over the sources."""
    scans = []
    for source in sources:
        with usable(f"corpus {source.corpus}"):
            scans.append(source.reader.scan(source.root, source.files))
    lost = sorted((one for scan in scans for one in scan.lost), key=lambda one: one.path)
    return Scan(
        {part: recordings for scan in scans for part, recordings in scan.recordings.items()},
        tuple(lost),
        tuple(remark for scan in scans for remark in scan.remarks),
    )


def relative_paths(sources: Sequence[Source], scan: Scan) -> dict[str, str]:
    """Return recording key -> its path below its corpus, for messages."""
    found = {}
    for recording in (r for recordings in scan.recordings.values() for r in recordings):
        holder = next((s for s in sources if recording.path.is_relative_to(s.root)), sources[0])
        found[recording.key] = holder.relative(recording)
    return found


def described(sources: Sequence[Source]) -> str:
    """Name the corpora with their numbers of files, for a line of progress."""
    return listed(f"{len(source.files)} files of {source.corpus}" for source in sources)
