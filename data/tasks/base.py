"""What a task is: a rule that turns recordings into labelled, split windows, from headers and speech times."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from data.audio.format import WINDOW_SAMPLES
from data.audio.speech_activity import Speech
from data.corpora.base import Recording
from data.labels import LabelMap, Speaker
from data.parts import Parts, Split


@dataclass(frozen=True, slots=True)
class Piece:
    """An excerpt of a recording, laid into a window; all in samples at 16 kHz.

    ::

        recording   |-----[start_sample  num_samples]--------|
                            \\                 \\   * gain_db, faded 5 ms where it meets no edge
        window      |--------[at_sample        ]-----|
    """

    recording: Recording
    start_sample: int
    num_samples: int = WINDOW_SAMPLES
    at_sample: int = 0
    gain_db: float = 0.0


@dataclass(frozen=True, slots=True)
class PlannedWindow:
    """A window that a task wants made: the sum of its pieces, brought to ``level_dbfs`` (None: as it is).

    ``speakers`` are all who may be heard in it, sorted; ``speaker`` is whom the draw counts it for.
    """

    pieces: tuple[Piece, ...]
    label: int
    speaker: str
    cluster: str
    speakers: tuple[str, ...]
    subset: str
    level_dbfs: float | None = None

    @property
    def key(self) -> tuple[str | int, ...]:
        """What audio it is made of, recordings and their starts: what the draw ranks windows by."""
        return tuple(part for p in self.pieces for part in (p.recording.id, p.start_sample))


def whole(recording: Recording, start: int, label: int, subset: str) -> PlannedWindow:
    """Return the window of one utterance from sample ``start``, at its own level; its speaker is its cluster."""
    speaker = recording.speaker
    return PlannedWindow((Piece(recording, start),), label, speaker, speaker, (speaker,), subset)


@dataclass(frozen=True)
class Pool:
    """Usable recordings by part, the parts of each subset, and which subsets train and evaluate.

    ``speech`` holds what was measured of utterances, by the recording's key; a task may plan with what is
    not measured yet and ask for it (`Plan.unmeasured`).
    """

    subset: str
    evaluated: tuple[str, ...]
    parts: Mapping[str, Parts]
    by_part: Mapping[str, tuple[Recording, ...]]
    speech: Mapping[str, Speech] = field(default_factory=dict)
    varied: Callable[[Recording], Sequence[Recording]] = lambda recording: ()

    def of(self, subset: str, split: Split) -> list[Recording]:
        """Return the recordings of the parts that ``split`` of ``subset`` names."""
        return [r for part in self.parts[subset].of(split) for r in self.by_part.get(part, ())]

    def with_variants(self, recordings: Sequence[Recording]) -> list[Recording]:
        """Return ``recordings`` and the voice variants of each: what is trained on."""
        return [one for recording in recordings for one in (recording, *self.varied(recording))]

    def knowing(self, speech: Mapping[str, Speech], lost: Collection[str]) -> Pool:
        """Return the pool with ``speech`` measured, less the recordings named by ``lost``."""
        kept = {part: tuple(r for r in rs if r.key not in lost) for part, rs in self.by_part.items()}

        def varied(recording: Recording) -> list[Recording]:
            return [variant for variant in self.varied(recording) if variant.key not in lost]

        return Pool(self.subset, self.evaluated, self.parts, kept, speech, varied)

    @property
    def involved(self) -> list[str]:
        """Every subset that trains or evaluates, sorted."""
        return sorted({self.subset, *self.evaluated})


Dropped = Mapping[Split, Mapping[str, int]]


@dataclass(frozen=True)
class Plan:
    """The windows of each split, the split rule they keep, and what a reader must be told.

    ``dropped`` counts ambiguous windows by split and reason; ``unmeasured`` are utterances whose speech
    must be measured before the plan can be trusted.
    """

    split_rule: str
    flags: tuple[str, ...]
    splits: Mapping[Split, tuple[PlannedWindow, ...]]
    dropped: Dropped = field(default_factory=dict)
    unmeasured: tuple[Recording, ...] = ()


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
        """Return the splits whose parts are read; one alone where all three are cut from the parts of ``train``."""
        ...

    def speakers(self, pool: Pool, variant: str, draw: Draw) -> list[Speaker]:
        """Return the speakers that the label map covers, sorted by id; none where labels come from segments."""
        ...

    def plan(self, pool: Pool, variant: str, draw: Draw, label_map: LabelMap) -> Plan:
        """Return the windows of each split, half of each class, from what is known of the recordings so far.

        Law: equal arguments give an equal plan, in every process and on every machine.
        """
        ...


def starts(recording: Recording) -> range:
    """Return the first samples of the whole, non-overlapping windows of ``recording``."""
    return range(0, recording.num_samples - WINDOW_SAMPLES + 1, WINDOW_SAMPLES)
