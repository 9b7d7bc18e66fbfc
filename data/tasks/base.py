"""What a task is: a rule that turns recordings into labelled, split windows, from headers alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from data.corpora.base import WINDOW_SAMPLES, Recording
from data.labels import LabelMap, Speaker
from data.parts import Parts, Split


@dataclass(frozen=True, slots=True)
class PlannedWindow:
    """A window that a task wants cut."""

    recording: Recording
    start_sample: int
    label: int
    speaker: str
    cluster: str

    @property
    def key(self) -> tuple[str, int]:
        """Which audio it is."""
        return self.recording.key, self.start_sample


@dataclass(frozen=True)
class Pool:
    """Usable recordings by part, the parts of each subset, and which subsets train and evaluate."""

    subset: str
    evaluated: tuple[str, ...]
    parts: Mapping[str, Parts]
    by_part: Mapping[str, tuple[Recording, ...]]

    def of(self, subset: str, split: Split) -> list[Recording]:
        """Return the recordings of the parts that ``split`` of ``subset`` names."""
        return [r for part in self.parts[subset].of(split) for r in self.by_part.get(part, ())]

    def without(self, keys: Collection[str]) -> Pool:
        """Return the pool less the recordings named by ``keys``."""
        kept = {part: tuple(r for r in rs if r.key not in keys) for part, rs in self.by_part.items()}
        return Pool(self.subset, self.evaluated, self.parts, kept)


@dataclass(frozen=True)
class Plan:
    """The windows of each split, the split rule they keep, and what a reader must be told."""

    split_rule: str
    flags: tuple[str, ...]
    splits: Mapping[Split, tuple[PlannedWindow, ...]]


@dataclass(frozen=True)
class Draw:
    """How many windows a split may have, the seed of the training draw, the speakers at most."""

    windows: Mapping[Split, int]
    seed: int
    speakers: int | None


class Task(Protocol):
    """A task of the registry. Nothing here decodes audio or imports numpy."""

    name: str
    variants: tuple[str, ...]
    primary_metric: str
    label_meaning: Mapping[str, str]

    def split_rule(self, variant: str) -> str:
        """Return the name of the rule that the splits of ``variant`` aim to keep."""
        ...

    def negative_control(self, variant: str) -> bool:
        """Tell whether a sound model must stay at chance on ``variant``."""
        ...

    def roles(self, variant: str) -> tuple[Split, ...]:
        """Return the splits whose parts are read."""
        ...

    def speakers(self, pool: Pool, variant: str, draw: Draw) -> list[Speaker]:
        """Return the speakers that the label map covers, sorted by id."""
        ...

    def plan(self, pool: Pool, variant: str, draw: Draw, label_map: LabelMap) -> Plan:
        """Return the windows of each split."""
        ...


def starts(recording: Recording) -> range:
    """Return the first samples of the whole, non-overlapping windows of ``recording``."""
    return range(0, recording.num_samples - WINDOW_SAMPLES + 1, WINDOW_SAMPLES)
