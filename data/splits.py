"""Split rules: who may stand in which split. Assignments depend on ids and lengths, never on a seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from data.digests import rank
from data.parts import Split

Unit = Literal["speaker", "group", "chapter", "utterance"]
DEALT: dict[Split, float] = {"train": 0.70, "val": 0.15, "test": 0.15}
_TRAIN: Split = "train"
_EVALUATION: tuple[Split, ...] = ("test", "val")
MIN_CHAPTERS = 3
MIN_UTTERANCES = 3


@dataclass(frozen=True)
class SplitRule:
    """What two splits must not share, and whether evaluation needs the speakers of training."""

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


def deal_utterances(utterances: Mapping[str, Collection[str]]) -> dict[str, Split]:
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


def deal_speakers(sex: Mapping[str, str], roles: Sequence[Split]) -> dict[str, Split]:
    """Deal speakers to ``roles`` as 70/15/15 (or its share) by sha256 rank, within each sex.

    Every evaluation role gets a speaker of each sex that has as many speakers as there are roles.
    """
    total = sum(DEALT[role] for role in roles)
    evaluation = [role for role in _EVALUATION if role in roles and role != roles[0]]
    assigned: dict[str, Split] = {}
    for one_sex in sorted(set(sex.values())):
        ids = sorted((s for s in sex if sex[s] == one_sex), key=lambda speaker: rank("speaker", speaker))
        position = 0
        for role in evaluation:
            count = max(int(DEALT[role] / total * len(ids) + 0.5), int(len(ids) >= len(roles)))
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
