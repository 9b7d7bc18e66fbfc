"""Attributes of a trial in the study's journal: in one append, the large ones as text that is parsed when it is read.

Each append is a lock, an fsync and a reading back. Whoever opens a study replays all of its lines; of 10,000 trials it
reads the configurations and outcomes of a few.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness.study.storage.journal import parse_json

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage

# Of some 1 kB each; the others are names and numbers.
JSON_ATTRIBUTES = frozenset({"config", "outcome"})


def set_attributes(storage: BaseStorage, trial: optuna.Trial, attributes: Mapping[str, Any]) -> None:
    """Write a trial's attributes with one append to the journal, in their order.

    A kill leaves the first of them, or none; never a later one without those before. An error leaves none in the
    journal; `trial` itself may then have them, and is to be left.
    """
    from harness.study.storage.journal_reader import FastJournalStorage

    assert isinstance(storage, FastJournalStorage)
    with storage.journal.together():
        for name, value in attributes.items():
            large = name in JSON_ATTRIBUTES
            trial.set_user_attr(name, json.dumps(value, separators=(",", ":")) if large else value)


def json_attribute(attributes: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A large attribute (`config`, `outcome`) of a trial, parsed on first use; empty where the trial has none.

    A record of an older version holds it as an object instead of text.
    """
    stored = attributes.get(name, {})
    return LazyJson(stored) if isinstance(stored, str) else stored


class LazyJson(Mapping[str, Any]):
    """A JSON object as text, parsed when any of it is first read, then kept: whoever reads no attribute pays nothing.

    Text that is no JSON raises ValueError then, and not when this is made.
    """

    __slots__ = ("_content", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._content: dict[str, Any] | None = None

    @property
    def content(self) -> dict[str, Any]:
        """The parsed object, the same at each call; not to be changed.

        Raises
        ------
        ValueError
            The text is no JSON.
        """
        if self._content is None:
            self._content = parse_json(self._text)
        return self._content

    def __getitem__(self, key: str) -> Any:
        """One value, parsing if need be; KeyError where the object has no such key."""
        return self.content[key]

    def __iter__(self) -> Iterator[str]:
        """The keys, in the order of the text."""
        return iter(self.content)

    def __len__(self) -> int:
        """How many keys there are: asking for it, or for the truth of the whole, parses the text."""
        return len(self.content)

    def __repr__(self) -> str:
        """The parsed object's, so that messages show it as a dict."""
        return repr(self.content)
