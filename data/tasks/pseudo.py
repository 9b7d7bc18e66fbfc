"""Task ``pseudo``: to which of two arbitrary classes does the speaker of a window belong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from data.corpora.base import UNKNOWN_SEX, Recording
from data.errors import DataError, listed
from data.labels import LabelMap, Speaker
from data.parts import SPLITS, Split
from data.tasks.base import Draw, Plan, PlannedWindow, Pool, starts, whole
from data.tasks.draws import draw_evaluation, draw_training
from data.tasks.splits import (
    MIN_CHAPTERS,
    MIN_UTTERANCES,
    SPLIT_RULES,
    assign_disjoint,
    choose_speakers,
    shortest_chapters,
    split_utterances,
)

MIN_SPEAKERS_FOR_CHAPTERS = 10
_LEFT_OUT = "left out"


@dataclass(frozen=True)
class _Assignment:
    """Which split each unit (speaker, chapter or utterance) of the used speakers belongs to.

    What only the training subset holds was assigned nothing, and is trained on.
    """

    rule: str
    flags: tuple[str, ...]
    splits: Mapping[str, Split]
    used: frozenset[str]

    def split_of(self, recording: Recording) -> Split | None:
        if recording.speaker not in self.used:
            return None
        unit = SPLIT_RULES[self.rule].unit
        key = {
            "speaker": recording.speaker,
            "chapter": _chapter(recording),
            "utterance": recording.id,
        }[unit]
        return self.splits.get(key, "train")


def _chapter(recording: Recording) -> str:
    return f"{recording.speaker}/{recording.chapter}"


def _sexes(recordings: Iterable[Recording]) -> dict[str, str]:
    return {r.speaker: r.sex.get(r.speaker, UNKNOWN_SEX) for r in recordings}


class Pseudo:
    """Speakers are dealt to two classes; a window has its speaker's class.

    ``seen``: the same speakers in all splits, other chapters (closed-set identification)::

        speaker 19 (class 1)   chapter 198 train | 227 val | 229 test
        speaker 26 (class 0)   chapter 495 train | 501 test | 496 val
        speaker 27             two chapters only: left out, and flagged
        fewer than 10 such speakers, others without: utterances of all, 60/20/20, flagged

    ``unseen``: other speakers in each split, so no feature can tell: a negative control::

        train: 19 (1) 26 (0) ...     val: 84 (0) 174 (1) ...     test: 61 (1) 121 (0) ...

    The evaluated subsets alone decide who and what is evaluated; the training subset gives windows
    of the same speakers from what is left. So trials that train on different subsets and are
    evaluated on the same ones have equal validation and test manifests, and nothing leaks when one
    chapter stands in two subsets (demo clean and other).
    """

    name: str = "pseudo"
    variants: tuple[str, ...] = ("seen", "unseen")
    primary_metric: str = "balanced_accuracy"
    label_meaning: Mapping[str, str] = {"0": "speaker of class 0", "1": "speaker of class 1"}

    def split_rule(self, variant: str) -> str:
        """``seen`` is chapter-disjoint (a flagged fallback is utterance-disjoint), ``unseen`` by speaker."""
        return {"seen": "chapter-disjoint", "unseen": "speaker-disjoint"}[variant]

    def negative_control(self, variant: str) -> bool:
        """On ``unseen`` the class of a new speaker is a coin toss."""
        return variant == "unseen"

    def roles(self, variant: str) -> tuple[Split, ...]:
        """``seen`` cuts all three splits from the parts that ``train`` names."""
        return ("train",) if variant == "seen" else SPLITS

    def speakers(self, pool: Pool, variant: str, draw: Draw) -> list[Speaker]:
        """Return all speakers; classes are dealt among those used, and in ``unseen`` within each split."""
        assignment = self._assign(pool, variant, draw)
        roles = self.roles(variant)
        everyone = _sexes(r for s in pool.involved for split in roles for r in pool.of(s, split))
        evaluated = _sexes(r for s in pool.evaluated for split in roles for r in pool.of(s, split))

        def group(speaker: str) -> str:
            if speaker not in assignment.used:
                return _LEFT_OUT if speaker in evaluated else f"{_LEFT_OUT} of training"
            if speaker not in evaluated:
                return "only in training"
            return assignment.splits[speaker] if variant == "unseen" else "used"

        return [Speaker(speaker, everyone[speaker], group(speaker)) for speaker in sorted(everyone)]

    def plan(self, pool: Pool, variant: str, draw: Draw, label_map: LabelMap) -> Plan:
        """Return windows: training by seed, evaluation by manifest, each half of either class."""
        assignment = self._assign(pool, variant, draw)

        def windows(subset: str, split: Split) -> list[PlannedWindow]:
            role: Split = "train" if variant == "seen" else split
            of_split = [r for r in pool.of(subset, role) if assignment.split_of(r) == split]
            return [
                whole(r, start, label_map.classes[r.speaker], subset)
                for r in (pool.with_variants(of_split) if split == "train" else of_split)
                for start in starts(r)
            ]

        return Plan(
            assignment.rule,
            assignment.flags,
            {
                "train": draw_training(windows(pool.subset, "train"), draw.windows["train"], draw.seed),
                "val": draw_evaluation({s: windows(s, "val") for s in pool.evaluated}, draw.windows["val"]),
                "test": draw_evaluation(
                    {s: windows(s, "test") for s in pool.evaluated}, draw.windows["test"]
                ),
            },
        )

    def _assign(self, pool: Pool, variant: str, draw: Draw) -> _Assignment:
        _require_utterances(pool, self.roles(variant))
        if variant == "seen":
            return _assign_seen(pool, draw)
        disjoint = assign_disjoint(pool, draw)
        return _Assignment("speaker-disjoint", disjoint.flags, disjoint.splits, disjoint.used)


def _require_utterances(pool: Pool, roles: Sequence[Split]) -> None:
    meetings = {s for s in pool.involved for split in roles for r in pool.of(s, split) if r.conversation}
    if meetings:
        raise DataError(
            f"task pseudo is made of utterances of one speaker, and subset {listed(sorted(meetings))} holds "
            "conversations; take task overlap, speaker_change, speaker_count or same_speaker"
        )


def _assign_seen(pool: Pool, draw: Draw) -> _Assignment:
    recordings = [r for subset in pool.evaluated for r in pool.of(subset, "train")]
    sex = _sexes(recordings)
    chapters: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    utterances: dict[str, set[str]] = defaultdict(set)
    for recording in recordings:
        if starts(recording):
            chapters[recording.speaker][_chapter(recording)] += recording.num_samples
            utterances[recording.speaker].add(recording.id)
    enough = {speaker for speaker in sex if len(chapters[speaker]) >= MIN_CHAPTERS}
    cuttable = {speaker for speaker in sex if len(utterances[speaker]) >= MIN_UTTERANCES}
    merit = {s: 0 if s in enough else 1 if s in cuttable else 2 for s in sex}
    chosen = choose_speakers(sex, draw.speakers, merit)
    used = chosen & enough
    if len(used) >= MIN_SPEAKERS_FOR_CHAPTERS or (used and used == chosen):
        splits = shortest_chapters({speaker: chapters[speaker] for speaker in sorted(used)})
        needs = f"{MIN_CHAPTERS} chapters that hold a window"
        return _Assignment("chapter-disjoint", _left_out(used, chosen, needs), splits, frozenset(used))
    fallback = (
        f"utterance-disjoint fallback: {len(used)} of {len(chosen)} speakers have {MIN_CHAPTERS} chapters "
        f"({MIN_SPEAKERS_FOR_CHAPTERS} are needed); splits share chapters, so scores are an upper bound"
    )
    used = chosen & cuttable
    splits = split_utterances({speaker: utterances[speaker] for speaker in sorted(used)})
    needs = f"{MIN_UTTERANCES} utterances that hold a window"
    flags = (fallback, *_left_out(used, chosen, needs))
    return _Assignment("utterance-disjoint", flags, splits, frozenset(used))


def _left_out(used: set[str], chosen: set[str], needs: str) -> tuple[str, ...]:
    left = len(chosen - used)
    return (f"{left} of {len(chosen)} speakers lack {needs} and are left out",) if left else ()
