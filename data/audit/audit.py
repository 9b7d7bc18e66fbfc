"""The data gate: what must hold before anything is trained, measured, with its bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal

from data.audit.check import Check
from data.audit.label_checks import check_balance, check_digest
from data.errors import listed
from data.parts import SPLITS, Split
from data.preparation.manifest import Manifest, Window
from data.preparation.prepared import Prepared
from data.tasks.splits import SPLIT_RULES, Unit

__all__ = ["Audit", "Check", "audit"]

SHARE_BOUND = 0.02
FEW_CLUSTERS = 10
Shared = Unit | Literal["audio"]

# A class needs this many (speakers, windows) in a split to be learnt, or to be measured at all.
MINIMUM: dict[Split, tuple[int, int]] = {"train": (2, 16), "val": (1, 8), "test": (1, 8)}


def _names(window: Window, unit: Shared) -> dict[str, str]:
    """Return what ``window`` holds of ``unit``: what must not be shared -> how it is named."""
    if unit == "speaker":
        return {speaker: speaker for speaker in window.speakers}
    names: dict[str, str] = {}
    for source in window.sources:
        key = {
            "group": source.group,
            # Two speakers read chapters of one book; a meeting's id is its own.
            "chapter": f"{source.speaker}/{source.chapter}" if source.speaker else source.chapter,
            "utterance": source.recording_id,
            "audio": source.audio_sha256,
        }[unit]
        names[key] = source.recording_id if unit == "audio" else key
    names.pop("", None)
    return names


@dataclass(frozen=True)
class Audit:
    """The outcome of the gate; `ok` unless a check of level refuse failed."""

    checks: tuple[Check, ...]
    histograms: dict[Split, dict[str, dict[str, object]]]

    @property
    def refusals(self) -> tuple[Check, ...]:
        """Failed checks that forbid training."""
        return tuple(check for check in self.checks if check.level == "refuse" and not check.ok)

    @property
    def warnings(self) -> tuple[Check, ...]:
        """Failed checks that only limit what a score may claim."""
        return tuple(check for check in self.checks if check.level == "warn" and not check.ok)

    @property
    def ok(self) -> bool:
        """Whether training may start: no check of level refuse failed."""
        return not self.refusals

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as plain JSON types: ``ok``, every check with its bound, the classes of each split."""
        return {
            "ok": self.ok,
            "checks": [asdict(check) for check in self.checks],
            "histograms": self.histograms,
        }


def audit(prepared: Prepared) -> Audit:
    """Run every check on ``prepared``; it is read, never changed, and no window is opened.

    Refused: uneven or tiny classes, a subset without windows, an uneven or unstable label map, anything shared between
    splits that their rule forbids (the same audio always), speakers who are evaluated and not trained on where they
    must be. Warned of: few clusters, flags, recordings set aside.
    """
    manifests = {split: prepared.splits[split].manifest for split in SPLITS}
    everyone = [manifests[split] for split in SPLITS]
    dealt = bool(prepared.label_map.classes)  # else labels come from who speaks when
    checks = [
        *(_label_share(manifest, prepared.flags) for manifest in everyone),
        *map(_class_sizes, everyone),
        *(_subsets(manifests[split], prepared.config.evaluated) for split in SPLITS if split != "train"),
        *((check_balance(prepared.label_map), check_digest(prepared.label_map)) if dealt else ()),
        *_leakage(everyone, prepared.split_rule),
        *_seen_speakers(manifests, prepared.split_rule),
        *(_clusters(manifests[split]) for split in SPLITS if split != "train"),
        _flags(prepared.flags),
        _lost(prepared),
    ]
    return Audit(tuple(checks), {split: manifests[split].label_histogram for split in SPLITS})


def _label_share(manifest: Manifest, flags: Sequence[str]) -> Check:
    name, bound, share = f"label share {manifest.split}", f".5 +- {SHARE_BOUND}", manifest.share_1
    if not manifest.windows:
        why = "; ".join(flags) or "no speaker of its parts has what the split rule needs"
        advice = "take parts with more audio a speaker, or another data.variant"
        return Check(name, False, None, bound, f"{manifest.split}: no windows at all ({why}); {advice}")
    message = f"{manifest.split}: {share:.3f} of {len(manifest)} windows are labelled 1 ({bound})"
    return Check(name, abs(share - 0.5) <= SHARE_BOUND, share, bound, message)


def _class_sizes(manifest: Manifest) -> Check:
    least_speakers, least_windows = MINIMUM[manifest.split]
    sizes = []
    for label in (0, 1):
        windows = [window for window in manifest.windows if window.label == label]
        sizes.append((len({s for window in windows for s in window.speakers}), len(windows)))
    ok = all(speakers >= least_speakers and count >= least_windows for speakers, count in sizes)
    found = "; ".join(f"class {label}: {s} speakers, {n} windows" for label, (s, n) in enumerate(sizes))
    bound = f">= {least_speakers} speakers and >= {least_windows} windows a class"
    advice = (
        "" if ok else ". Take parts with more speakers or longer utterances, or raise the windows asked for"
    )
    return Check(
        f"class sizes {manifest.split}",
        ok,
        {str(label): {"speakers": s, "windows": n} for label, (s, n) in enumerate(sizes)},
        bound,
        f"{manifest.split}: {found} ({bound}){advice}",
    )


def _subsets(manifest: Manifest, evaluated: Sequence[str]) -> Check:
    """Every subset that is asked for is scored: a pooled score must not leave one out silently."""
    counts = {subset: manifest.subsets().count(subset) for subset in evaluated}
    empty = [subset for subset, count in counts.items() if count == 0]
    message = f"{manifest.split}: " + ", ".join(f"{subset} {count}" for subset, count in counts.items())
    if empty:
        message += (
            f" windows: none of {listed(empty)} (its part has too few speakers or too little of one class); take it "
            "out of data.evaluate_on, or name parts with more"
        )
    return Check(
        f"subsets {manifest.split}", not empty, counts, ">= 1 window of each class a subset", message
    )


def _leakage(manifests: Sequence[Manifest], rule_name: str) -> list[Check]:
    units: tuple[Shared, ...] = (*SPLIT_RULES[rule_name].disjoint, "audio")
    return [_shared(manifests, unit, rule_name) for unit in units]


def _shared(manifests: Sequence[Manifest], unit: Shared, rule_name: str) -> Check:
    """Compare each two splits: training with evaluation, and validation with the test."""
    found: dict[str, list[str]] = {}
    for one, other in combinations(manifests, 2):
        names, theirs = (
            {key: name for window in manifest.windows for key, name in _names(window, unit).items()}
            for manifest in (one, other)
        )
        if both := sorted(names.keys() & theirs.keys()):
            found[f"{one.split} and {other.split}"] = [names[key] for key in both]
    count = sum(map(len, found.values()))
    if not found:
        message = f"no {unit} stands in two splits ({rule_name})"
    else:
        where = "; ".join(f"{splits}: {listed(names, 5)}" for splits, names in found.items())
        message = (
            f"{count} x the same {unit} in two splits, which {rule_name} forbids: {where}. "
            "Remove the copies or correct data.parts, and prepare again"
        )
    return Check(f"leakage {unit}", not found, count, "0 shared", message)


def _seen_speakers(manifests: dict[Split, Manifest], rule_name: str) -> list[Check]:
    if not SPLIT_RULES[rule_name].same_speakers:
        return []
    trained = {s for window in manifests["train"].windows for s in window.speakers}
    evaluated = {s for split in SPLITS for window in manifests[split].windows for s in window.speakers}
    absent = sorted(evaluated - trained)
    message = (
        f"{len(absent)} speakers are evaluated but not trained on: {listed(absent, 8)}. A class of an unmet "
        "speaker is a coin toss: evaluate on the training subset (leave out data.evaluate_on), raise "
        "data.train_windows, or set data.variant: unseen"
        if absent
        else f"all {len(evaluated)} evaluated speakers are trained on"
    )
    return [Check("seen speakers", not absent, len(absent), "0 absent from training", message)]


def _clusters(manifest: Manifest) -> Check:
    clusters = len(set(manifest.clusters()))
    few = clusters < FEW_CLUSTERS
    message = f"{manifest.split}: K = {clusters} clusters" + (
        f", fewer than {FEW_CLUSTERS}: few clusters, a score proves that paths work and claims nothing"
        if few
        else ""
    )
    return Check(f"clusters {manifest.split}", not few, clusters, f"K >= {FEW_CLUSTERS}", message, "warn")


def _flags(flags: Sequence[str]) -> Check:
    return Check("flags", not flags, list(flags), "none", "; ".join(flags) or "no flags", "warn")


def _lost(prepared: Prepared) -> Check:
    lost = prepared.lost
    share = len(lost) / prepared.examined if prepared.examined else 0.0
    named = "; ".join(f"{recording.path}: {recording.reason}" for recording in lost[:5])
    more = f"; and {len(lost) - 5} more" if len(lost) > 5 else ""
    message = f"{len(lost)} of {prepared.examined} recordings set aside" + (
        f" ({named}{more})" if lost else ""
    )
    return Check("recordings set aside", not lost, share, "0", message, "warn")
