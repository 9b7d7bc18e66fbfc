"""Preparation: recordings -> manifests and windows, once for each configuration and state of the corpus."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from data.audio.voice_variants import IMPLEMENTATION as VARIANTS
from data.audio.voice_variants import variants_for
from data.config import DataConfig
from data.corpora.base import UNKNOWN_SEX, LostRecording, Progress, Recording, Scan
from data.digests import digest_of
from data.errors import DataError
from data.labels import LabelMap, build_label_map
from data.parts import SPLITS, Split
from data.preparation.manifest import Manifest, Window
from data.preparation.manifest import Source as Excerpt
from data.preparation.prepared import LABEL_MAP, RECORD, Prepared, SplitData, load_prepared, manifest_path
from data.preparation.sources import Source, described, open_sources, relative_paths, scan_all
from data.preparation.windows import RecordingExaminer, WindowMaker
from data.store.content_store import is_intact
from data.store.leases import build_and_lease, lease_folders
from data.store.safe_read import usable
from data.tasks import TASKS
from data.tasks.base import Draw, Plan, PlannedWindow, Pool

__all__ = ["Prepared", "SplitData", "load_prepared", "prepare"]

# Raised when the same configuration and files would give other manifests or other samples.
IMPLEMENTATION = 4
MIXED_SEX = "mixed"
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
    sources = open_sources(config, data_root.expanduser() if data_root else None, cache, progress)
    folder = cache / "prepared" / digest_of(state_of(config, sources))[:32]
    job = _Preparation(config, sources, cache, progress)
    with usable(f"cache {cache}"):
        if config.voice_variants:
            lease_folders(cache, [cache / "variants"])
        build_and_lease(cache, folder, job.run, intact=True)
        lease_folders(cache, job.windows_folders(folder))
        gone = [windows for windows in job.windows_folders(folder) if not is_intact(windows)]
        if gone:
            # Somebody cleaned the window store, or altered it: the manifests alone are of no use.
            progress(f"windows are gone or altered in {', '.join(map(str, gone))}: they are made again")
            (folder / RECORD).unlink(missing_ok=True)
            build_and_lease(cache, folder, job.run)
    return load_prepared(folder)


def state_of(config: DataConfig, sources: Sequence[Source]) -> list[object]:
    """Return what decides the windows: implementations, configuration and files, as a prepared folder is named."""
    return [IMPLEMENTATION, VARIANTS, config.digest(), [source.state for source in sources]]


@dataclass(frozen=True)
class _Preparation:
    config: DataConfig
    sources: Sequence[Source]
    cache: Path
    progress: Progress

    def run(self, aside: Path) -> None:
        """Fill ``aside`` with the label map, the manifests and the record, and the store with windows."""
        self.progress(f"reading the headers of {described(self.sources)}")
        scan = scan_all(self.sources)
        examined = sum(map(len, scan.recordings.values())) + len(scan.lost)
        self._check_share([(lost.path, lost.reason) for lost in scan.lost], examined, "headers read")
        pool = self._pool(scan)
        # Made of everyone in the scan: a file that fails to decode changes nobody's class.
        speakers = TASKS[self.config.task].speakers(pool, self.config.variant, self._draw())
        label_map = build_label_map(self.config.labels, speakers)
        examiner = RecordingExaminer(self.cache, self.progress)
        plan = self._plan(pool, label_map, examiner)
        digests = self._store(plan, examiner, aside)
        for source in self.sources:
            with usable(f"corpus {source.corpus}"):
                source.check_unchanged()
        label_map.save(aside / LABEL_MAP)
        at = relative_paths(self.sources, scan)
        failed = [
            LostRecording(at.get(key.partition("~")[0], key), reason)
            for key, reason in examiner.failures.items()
        ]
        record = {
            "config": self.config.model_dump(mode="json"),
            "split_rule": plan.split_rule,
            "flags": [*plan.flags, *scan.remarks],
            "dropped": {split: dict(plan.dropped.get(split, {})) for split in SPLITS},
            "examined": examined,
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
        return Pool(config.subset, config.evaluated, parts, scan.recordings, varied=partial(varied, config))

    def _plan(self, pool: Pool, label_map: LabelMap, examiner: RecordingExaminer) -> Plan:
        """Plan until every planned recording is known: what is lost or ambiguous is planned around.

        Each round only adds to what is known, and the windows are the first of a fixed order that the
        known allows, so the outcome does not depend on the rounds.
        """
        while True:
            known = pool.knowing(examiner.speech, examiner.failures)
            plan = TASKS[self.config.task].plan(known, self.config.variant, self._draw(), label_map)
            failed_before = len(examiner.failures)
            if plan.unmeasured:
                examiner.examine(plan.unmeasured, speech=True)
            else:
                windows = (window for split in SPLITS for window in plan.splits[split])
                examiner.examine((p.recording for w in windows for p in w.pieces), speech=False)
                if len(examiner.failures) == failed_before:
                    return plan
            examined = len(examiner.sha256) + len(examiner.failures)
            self._check_share(sorted(examiner.failures.items()), examined, "decoded")

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

    def _store(self, plan: Plan, examiner: RecordingExaminer, aside: Path) -> dict[str, dict[str, object]]:
        """Write manifests aside and their windows into the store; return what the record says of them."""
        stored: dict[str, dict[str, object]] = {}
        for split in SPLITS:
            planned = plan.splits[split]
            manifest = Manifest(split, tuple(_window(w, examiner.sha256) for w in planned))
            manifest.save(manifest_path(aside, split))
            name = digest_of([IMPLEMENTATION, VARIANTS, manifest.digest])[:32]
            self.progress(f"storing {len(planned)} {split} windows")
            maker = WindowMaker(examiner.sha256, self.cache, self.progress)
            folder = self.cache / "windows" / name
            build_and_lease(self.cache, folder, partial(maker.write, planned), intact=True)
            stored[split] = {
                "manifest_digest": manifest.digest,
                "windows": f"../../windows/{name}",
                "count": len(planned),
            }
        return stored


def varied(config: DataConfig, recording: Recording) -> list[Recording]:
    """Return the voice variants of an utterance, each a recording of the same speaker and chapter.

    All utterances of a speaker have the same variants: a shifted voice has more than one utterance too.
    """
    if recording.conversation or not config.voice_variants:
        return []
    variants = variants_for(recording.speaker, config.voice_variants, config.pitch_semitones, config.stretch)
    return [
        replace(
            recording,
            id=f"{recording.id}~{variant.name}",
            num_samples=variant.num_samples(recording.num_samples),
            variant=variant,
        )
        for variant in variants
    ]


def _window(planned: PlannedWindow, sha256: Mapping[str, str]) -> Window:
    known = [piece.recording.sex for piece in planned.pieces]
    sexes = {sex[speaker] for sex in known for speaker in planned.speakers if speaker in sex}
    return Window(
        sources=tuple(
            Excerpt(
                recording_id=piece.recording.id,
                part=piece.recording.part,
                speaker="" if piece.recording.conversation else piece.recording.speaker,
                chapter=piece.recording.chapter,
                group=piece.recording.group,
                audio_sha256=sha256[piece.recording.key],
                variant=piece.recording.variant.name if piece.recording.variant else "",
                start_sample=piece.start_sample,
                num_samples=piece.num_samples,
                at_sample=piece.at_sample,
                gain_db=piece.gain_db,
            )
            for piece in planned.pieces
        ),
        label=planned.label,
        subset=planned.subset,
        speaker=planned.speaker,
        speakers=planned.speakers,
        sex=next(iter(sexes)) if len(sexes) == 1 else MIXED_SEX if sexes else UNKNOWN_SEX,
        cluster=planned.cluster,
        level_dbfs=planned.level_dbfs,
    )
