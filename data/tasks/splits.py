"""Split rules, and who may be heard in which split: dealt by sha256 rank, never by a seed.

A unit (a speaker, a group of meetings, a chapter or an utterance, as the rule says) is in one split as a whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from data.corpora.base import UNKNOWN_SEX, Recording
from data.digests import rank
from data.parts import SPLITS, Split
from data.tasks.base import Draw, Pool

Unit = Literal["speaker", "group", "chapter", "utterance"]
SPLIT_SHARES: dict[Split, float] = {"train": 0.70, "val": 0.15, "test": 0.15}
_TRAIN: Split = "train"
_EVALUATION: tuple[Split, ...] = ("test", "val")
MIN_CHAPTERS = 3
MIN_UTTERANCES = 3
# A speaker met in parts of several splits is evaluated on, never trained on.
_PRECEDENCE: dict[Split, int] = {"train": 0, "val": 1, "test": 2}


@dataclass(frozen=True)
class SplitRule:
    """What two splits must not share, and whether evaluation needs the speakers of training.

    Attributes
    ----------
    unit : what is dealt to a split as a whole
    disjoint : what no two splits may have in common, which the audit looks for
    same_speakers : whether every evaluated speaker must be trained on
    """

    name: str
    unit: Unit
    disjoint: tuple[Unit, ...]
    same_speakers: bool


SPLIT_RULES: dict[str, SplitRule] = {
    rule.name: rule
    for rule in (
        SplitRule("chapter-disjoint", "chapter", ("chapter", "utterance"), same_speakers=True),
        SplitRule("utterance-disjoint", "utterance", ("utterance",), same_speakers=True),
        SplitRule(
            "speaker-disjoint", "speaker", ("speaker", "group", "chapter", "utterance"), same_speakers=False
        ),
    )
}


@dataclass(frozen=True)
class Assignment:
    """Which split each unit belongs to; what only the training subset holds was assigned nothing.

    A unit is a speaker; for conversations, meeting groups that share a speaker are one unit.
    """

    flags: tuple[str, ...]
    splits: Mapping[str, Split]
    used: frozenset[str]
    units: Mapping[str, str]

    def split_of(self, recording: Recording) -> Split | None:
        """Return the split of ``recording``; None where its unit is left out."""
        unit = self.units[recording.key]
        return self.splits.get(unit, "train") if unit in self.used else None


def units_of(recordings: Iterable[Recording]) -> dict[str, str]:
    """Return recording key -> unit: the speaker, or the first of the groups joined by common speakers.

    ::

        EN2001: MEE068 MEO069     EN2009: MEO069 FEO066     ->  one unit, EN2001
        ES2003: MEE009 MEE010                               ->  ES2003
    """
    units: dict[str, str] = {}
    group_of: dict[str, str] = {}  # speaker -> the group met first
    joined: dict[str, str] = {}

    def root(group: str) -> str:
        while joined.get(group, group) != group:
            group = joined[group]
        return group

    kept = sorted(recordings, key=lambda recording: recording.key)
    for recording in kept:
        if not recording.conversation:
            units[recording.key] = recording.speaker
            continue
        for speaker in sorted({segment.speaker for segment in recording.segments}):
            one, other = root(recording.group), root(group_of.setdefault(speaker, recording.group))
            joined[max(one, other)] = min(one, other)
    return units | {r.key: root(r.group) for r in kept if r.conversation}


def sexes_of(recordings: Iterable[Recording], units: Mapping[str, str]) -> dict[str, str]:
    """Return unit -> sex, within which units are dealt; a group of conversations has none ("unknown")."""
    return {
        units[r.key]: UNKNOWN_SEX if r.conversation else r.sex.get(r.speaker, UNKNOWN_SEX) for r in recordings
    }


def assign_disjoint(pool: Pool, draw: Draw) -> Assignment:
    """Give every unit one split: that of its part, dealt 70/15/15 where a part serves several splits.

    A limit of speakers holds for the utterances that are trained on: evaluation uses everybody, so that it
    depends on no number that somebody may search over, and meetings are whole.
    """
    everything = [r for s in pool.involved for split in SPLITS for r in pool.of(s, split)]
    units = units_of(everything)
    splits: dict[str, Split] = {}
    clashes: set[str] = set()
    # Part by part, so that each subset has speakers to be evaluated on.
    for part, roles in sorted(_roles(pool)):
        for unit, split in split_speakers(sexes_of(pool.by_part.get(part, ()), units), roles).items():
            before = splits.setdefault(unit, split)
            clashes |= {unit} if before != split else set()
            splits[unit] = max(before, split, key=_PRECEDENCE.__getitem__)
    trains = [r for r in pool.of(pool.subset, "train") if splits.get(units[r.key], "train") == "train"]
    utterances = sexes_of((r for r in trains if not r.conversation), units)
    trained = choose_speakers(utterances, draw.speakers, {}) | (
        set(units[r.key] for r in trains) - set(utterances)
    )
    used = trained | {unit for unit in splits if splits[unit] != "train"}
    note = f"{len(clashes)} speakers stand in parts of several splits and are used for evaluation only"
    return Assignment((note,) if clashes else (), splits, frozenset(used), units)


def _roles(pool: Pool) -> set[tuple[str, tuple[Split, ...]]]:
    """Return each part that an evaluated subset names, with the splits it serves there."""
    return {
        (part, pool.parts[subset].roles(part))
        for subset in pool.evaluated
        for split in SPLITS
        for part in pool.parts[subset].of(split)
    }


def speaker_groups(speakers: Iterable[str], size: int) -> dict[str, tuple[str, ...]]:
    """Deal ``speakers`` by sha256 rank into disjoint groups of ``size`` and a last one of up to 2 size - 1.

    ::

        7 speakers, size 3:   c a f | b g d e     whom one is mixed with; the group is the cluster

    Returns speaker -> the members of its group, sorted. Fewer than ``size`` speakers are one group.
    """
    ordered: Sequence[str] = sorted(set(speakers), key=lambda speaker: rank("group", speaker))
    count = max(1, len(ordered) // size)
    groups = [ordered[i * size : (i + 1) * size if i + 1 < count else None] for i in range(count)]
    return {speaker: tuple(sorted(group)) for group in groups for speaker in group}


def shortest_chapters(samples: Mapping[str, Mapping[str, int]]) -> dict[str, Split]:
    """Give the two shortest chapters of each speaker to val and test, which of them by sha256.

    ::

        speaker 19   198: 36 s -> train    227: 15 s -> test    229: 14 s -> val

    Parameters
    ----------
    samples : speaker -> chapter -> samples at 16 kHz; speakers with fewer than 3 chapters are left out.
    """
    assigned: dict[str, Split] = {}
    for speaker, chapters in samples.items():
        if len(chapters) < MIN_CHAPTERS:
            continue
        by_length = sorted(chapters, key=lambda chapter: (chapters[chapter], chapter))
        val, test = sorted(by_length[:2], key=lambda chapter: rank("chapter", speaker, chapter))
        assigned |= {**dict.fromkeys(by_length[2:], _TRAIN), val: "val", test: "test"}
    return assigned


def split_utterances(utterances: Mapping[str, Collection[str]]) -> dict[str, Split]:
    """Give each speaker's utterances to train, val, test as 60/20/20 by sha256 rank, one each at least.

    Parameters
    ----------
    utterances : speaker -> utterance ids; speakers with fewer than 3 are left out.
    """
    assigned: dict[str, Split] = {}
    for speaker, ids in utterances.items():
        if len(ids) < MIN_UTTERANCES:
            continue
        ordered = sorted(ids, key=lambda utterance: rank("utterance", speaker, utterance))
        fifth = max(1, int(0.2 * len(ordered) + 0.5))
        for position, utterance in enumerate(ordered):
            assigned[utterance] = "val" if position < fifth else "test" if position < 2 * fifth else "train"
    return assigned


def split_speakers(sex: Mapping[str, str], roles: Sequence[Split]) -> dict[str, Split]:
    """Deal speakers to ``roles`` as 70/15/15 (or its share) by sha256 rank, within each sex.

    Every evaluation role gets a speaker of each sex that has as many speakers as there are roles.
    """
    total = sum(SPLIT_SHARES[role] for role in roles)
    evaluation = [role for role in _EVALUATION if role in roles and role != roles[0]]
    assigned: dict[str, Split] = {}
    for one_sex in sorted(set(sex.values())):
        ids = sorted((s for s in sex if sex[s] == one_sex), key=lambda speaker: rank("speaker", speaker))
        position = 0
        for role in evaluation:
            count = max(int(SPLIT_SHARES[role] / total * len(ids) + 0.5), int(len(ids) >= len(roles)))
            assigned |= dict.fromkeys(ids[position : position + count], role)
            position += count
        assigned |= dict.fromkeys(ids[position:], roles[0])
    return assigned


def choose_speakers(sex: Mapping[str, str], limit: int | None, merit: Mapping[str, int]) -> set[str]:
    """Return at most ``limit`` speakers, evenly from each sex, lowest (merit, sha256 rank) first."""
    if limit is None or limit >= len(sex):
        return set(sex)
    queues: dict[tuple[int, str], list[str]] = defaultdict(list)
    for speaker in sorted(sex, key=lambda speaker: rank("choose", speaker)):
        queues[merit.get(speaker, 0), sex[speaker]].append(speaker)
    ordered: list[str] = []
    for one_merit in sorted({key[0] for key in queues}):
        sexes = [queues[key] for key in sorted(queues) if key[0] == one_merit]
        ordered += round_robin(sexes)
    return set(ordered[:limit])


def round_robin(queues: Iterable[Sequence[str]]) -> list[str]:
    """Return the first of each queue, then the second of each that has one, and so on."""
    kept = list(queues)
    longest = max(map(len, kept), default=0)
    return [queue[i] for i in range(longest) for queue in kept if i < len(queue)]
