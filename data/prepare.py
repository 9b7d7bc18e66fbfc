"""Preparation: recordings -> manifests and windows, once for each configuration and state of the corpus."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from data.config import DataConfig
from data.corpora import CORPORA
from data.corpora.base import FileStamp, LostRecording, Progress, Reader, Request, Scan
from data.cutting import Cutter
from data.digests import digest_of
from data.errors import DataError
from data.labels import LabelMap, build_label_map
from data.manifest import Manifest, Window
from data.parts import SPLITS, Split
from data.prepared import LABEL_MAP, RECORD, Prepared, SplitData, load_prepared, manifest_path
from data.store import build_once, is_complete
from data.tasks import TASKS
from data.tasks.base import Draw, Plan, PlannedWindow, Pool

__all__ = ["Prepared", "SplitData", "load_prepared", "prepare"]

# Raised when the same configuration and files would give other manifests or other samples.
IMPLEMENTATION = 1
_LISTED = 20


def _quiet(message: str) -> None:
    del message


def prepare(
    config: DataConfig, *, data_root: Path | None, cache: Path, progress: Progress = _quiet
) -> Prepared:
    """Return the prepared data of ``config``; only the first call for a corpus's state decodes it.

    Parameters
    ----------
    data_root : folder of a corpus on disk (librispeech); demo needs none.
    cache : folder for generated corpora, windows and manifests; shared by processes.
    progress : told what is being done, one line at a time.

    Raises
    ------
    DataError
        A missing folder or part, or more unusable recordings than ``max_lost_share``, with the list.
    """
    cache = cache.expanduser().absolute()
    reader = CORPORA[config.corpus].reader()
    parts = _parts(config)
    root = reader.locate(
        Request(tuple(parts), data_root.expanduser() if data_root else None, cache, progress)
    )
    files = reader.listing(root, parts)
    state = [IMPLEMENTATION, config.digest(), [[f.path, f.size, f.mtime_ns] for f in files]]
    folder = cache / "prepared" / digest_of(state)[:32]
    job = _Preparation(config, reader, root, files, cache, progress)
    build_once(folder, job.run)
    if not all(is_complete(windows) for windows in job.windows_folders(folder)):
        # Somebody cleaned the window store: the manifests alone are of no use.
        (folder / RECORD).unlink(missing_ok=True)
        build_once(folder, job.run)
    return load_prepared(folder)


def _parts(config: DataConfig) -> list[str]:
    """Return the parts that are read, sorted."""
    roles = TASKS[config.task].roles(config.variant)
    subsets = {config.subset, *config.evaluated}
    return sorted({part for s in subsets for split in roles for part in config.parts_of(s).of(split)})


@dataclass(frozen=True)
class _Preparation:
    config: DataConfig
    reader: Reader
    root: Path
    files: Sequence[FileStamp]
    cache: Path
    progress: Progress

    def run(self, aside: Path) -> None:
        """Fill ``aside`` with the label map, the manifests and the record, and the store with windows."""
        self.progress(f"reading {len(self.files)} headers of {self.config.corpus}")
        scan = self.reader.scan(self.root, self.files)
        self._check_share([(lost.path, lost.reason) for lost in scan.lost], len(self.files), "headers read")
        pool = self._pool(scan)
        # Made of everyone in the scan: a file that fails to decode changes nobody's class.
        speakers = TASKS[self.config.task].speakers(pool, self.config.variant, self._draw())
        label_map = build_label_map(self.config.labels, speakers)
        with tempfile.TemporaryDirectory(dir=aside.parent, prefix=".cut-") as scratch:
            cutter = Cutter(Path(scratch), self.progress)
            plan = self._cut(pool, label_map, cutter)
            digests = self._store(plan, cutter, aside)
        label_map.save(aside / LABEL_MAP)
        paths = {r.key: r.path for rs in scan.recordings.values() for r in rs}
        failed = [
            LostRecording(paths[key].relative_to(self.root).as_posix(), reason)
            for key, reason in cutter.failures.items()
        ]
        record = {
            "config": self.config.model_dump(mode="json"),
            "split_rule": plan.split_rule,
            "flags": [*plan.flags, *scan.remarks],
            "examined": len(self.files),
            "lost": [asdict(lost) for lost in sorted([*scan.lost, *failed], key=lambda lost: lost.path)],
            "splits": digests,
        }
        (aside / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def windows_folders(self, folder: Path) -> list[Path]:
        """Return where the windows of a finished prepared folder are."""
        splits = json.loads((folder / RECORD).read_text(encoding="utf-8"))["splits"]
        return [folder / splits[split]["windows"] for split in SPLITS]

    def _draw(self) -> Draw:
        config = self.config
        windows: dict[Split, int] = {
            "train": config.train_windows,
            "val": config.val_windows,
            "test": config.test_windows,
        }
        return Draw(windows, config.seed, config.speakers)

    def _pool(self, scan: Scan) -> Pool:
        config = self.config
        parts = {s: config.parts_of(s) for s in sorted({config.subset, *config.evaluated})}
        return Pool(config.subset, config.evaluated, parts, scan.recordings)

    def _cut(self, pool: Pool, label_map: LabelMap, cutter: Cutter) -> Plan:
        """Plan and cut until every planned window exists: what fails to decode is planned around."""
        while True:
            usable = pool.without(cutter.failures)
            plan = TASKS[self.config.task].plan(usable, self.config.variant, self._draw(), label_map)
            failed_before = len(cutter.failures)
            cutter.cut(window for split in SPLITS for window in plan.splits[split])
            if len(cutter.failures) == failed_before:
                return plan
            examined = len(cutter.sha256) + len(cutter.failures)
            self._check_share(sorted(cutter.failures.items()), examined, "decoded")

    def _check_share(self, lost: Sequence[tuple[str, str]], examined: int, what: str) -> None:
        if not lost or len(lost) <= self.config.max_lost_share * examined:
            return
        shown = "\n".join(f"  {path}: {reason}" for path, reason in lost[:_LISTED])
        rest = f"\n  and {len(lost) - _LISTED} more" if len(lost) > _LISTED else ""
        raise DataError(
            f"{len(lost)} of {examined} recordings {what} cannot be used ({len(lost) / examined:.1%}, "
            f"max_lost_share is {self.config.max_lost_share:.1%}); repair or remove them, or raise "
            f"data.max_lost_share:\n{shown}{rest}"
        )

    def _store(self, plan: Plan, cutter: Cutter, aside: Path) -> dict[str, dict[str, object]]:
        """Write manifests aside and their windows into the store; return what the record says of them."""
        stored: dict[str, dict[str, object]] = {}
        for split in SPLITS:
            planned = plan.splits[split]
            manifest = Manifest(split, tuple(_window(w, cutter.sha256[w.recording.key]) for w in planned))
            manifest.save(manifest_path(aside, split))
            name = digest_of([IMPLEMENTATION, manifest.digest])[:32]
            self.progress(f"storing {len(planned)} {split} windows")
            build_once(self.cache / "windows" / name, partial(cutter.write, planned))
            stored[split] = {
                "manifest_digest": manifest.digest,
                "windows": f"../../windows/{name}",
                "count": len(planned),
            }
        return stored


def _window(planned: PlannedWindow, sha256: str) -> Window:
    recording = planned.recording
    return Window(
        recording_id=recording.id,
        part=recording.part,
        audio_sha256=sha256,
        start_sample=planned.start_sample,
        label=planned.label,
        speaker=planned.speaker,
        chapter=recording.chapter,
        sex=recording.sex[planned.speaker],
        cluster=planned.cluster,
    )
