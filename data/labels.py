"""Label rules and the label map: speaker -> class, made once, stored with its digest."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, TypeAdapter

from data.digests import digest_of
from data.errors import DataError, unknown
from data.plugins import load_plugins
from data.store.safe_read import read_json


@dataclass(frozen=True, order=True)
class Speaker:
    """A speaker as a label rule sees it; classes are dealt evenly within each group and sex."""

    id: str
    sex: str
    group: str


LabelRule = Callable[[Sequence[Speaker]], Mapping[str, int]]


def rank_labels(speakers: Sequence[Speaker]) -> dict[str, int]:
    """Deal classes alternately over sorted ids, within each (group, sex).

    The dealing goes on from one sex to the next and starts anew in each group::

        group g   F: 12 17 30 -> 0 1 0      M: 14 18 -> 1 0

    Law: in every group, and in every (group, sex), the two classes differ by at most one speaker,
    whatever the order of ``speakers``; a group's classes do not depend on the other groups.
    """
    classes: dict[str, int] = {}
    ordered = sorted(speakers, key=lambda speaker: (speaker.group, speaker.sex, speaker.id))
    for _, group in groupby(ordered, key=lambda speaker: speaker.group):
        for position, speaker in enumerate(group):
            classes[speaker.id] = position % 2
    return classes


LABEL_RULES: dict[str, LabelRule] = {"rank": rank_labels}


class _Stored(BaseModel):
    digest: str
    rule: str
    classes: dict[str, Literal[0, 1]]
    speakers: tuple[tuple[str, str, str], ...]


_STORED = TypeAdapter(_Stored)


@dataclass(frozen=True)
class LabelMap:
    """Speaker id -> class 0 or 1, the rule that made it and the speakers that it was made from."""

    classes: Mapping[str, int]
    rule: str
    speakers: tuple[Speaker, ...] = ()

    @cached_property
    def digest(self) -> str:
        """Sha256 of the rule's name and of the classes, whatever their order."""
        return digest_of({"rule": self.rule, "classes": dict(self.classes)})

    @cached_property
    def _text(self) -> str:
        content = {
            "digest": self.digest,
            "rule": self.rule,
            "classes": dict(sorted(self.classes.items())),
            "speakers": [[speaker.id, speaker.sex, speaker.group] for speaker in sorted(self.speakers)],
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def save(self, path: Path) -> None:
        """Write the map as JSON, aside and then renamed."""
        aside = path.with_name(path.name + ".aside")
        aside.write_text(self._text, encoding="utf-8")
        aside.replace(path)

    @classmethod
    def load(cls, path: Path) -> LabelMap:
        """Read a map and check it against the digest written with it (DataError if it differs)."""
        stored = read_json(path, _STORED)
        speakers = tuple(Speaker(*fields) for fields in stored.speakers)
        label_map = cls(stored.classes, stored.rule, speakers)
        if label_map.digest != stored.digest:
            raise DataError(
                f"{path} was changed: its digest is {label_map.digest[:12]}, recorded "
                f"{stored.digest[:12]}; remove its folder and prepare again"
            )
        return label_map


def build_label_map(rule: str, speakers: Sequence[Speaker]) -> LabelMap:
    """Return the map that ``rule`` makes of ``speakers``, given in that order.

    Raises
    ------
    DataError
        An unknown rule, a speaker without a class, a class other than 0 and 1.
    """
    load_plugins()
    if rule not in LABEL_RULES:
        raise DataError(unknown("label rule", rule, LABEL_RULES))
    classes = dict(LABEL_RULES[rule](speakers))
    if set(classes) != {speaker.id for speaker in speakers}:
        raise DataError(f"label rule {rule!r} must give a class to each speaker it is given, and to no other")
    wrong = {speaker: value for speaker, value in sorted(classes.items()) if value not in (0, 1)}
    if wrong:
        speaker, value = next(iter(wrong.items()))
        raise DataError(
            f"label rule {rule!r} gave speaker {speaker} the class {value!r}; classes are 0 and 1"
        )
    return LabelMap(classes, rule, tuple(sorted(speakers)))
