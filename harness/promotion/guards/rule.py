"""How a guard is declared: name, level, when it is asked, bounds, advice and function in one place.

    @guard(CandidateFacts, "recall of each class", "integrity", bounds=["integrity.min_recall"], advice="Train longer.")
    def recall(seen: CandidateFacts) -> Iterator[Finding]:
        ...

Integrity refuses, quality warns or refuses as the policy says, advice is only said. The function's docstring is what
the table of guards says of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from harness.config.policy import SECTIONS, Bound, PolicyError, add_bound
from harness.promotion.guards.facts import Facts
from harness.promotion.guards.guard import Guard, Level

F = TypeVar("F", bound=Facts)


@dataclass(frozen=True)
class Finding:
    """What a guard found about one thing.

    Attributes
    ----------
    measured, bound : what was found and what was wanted, as people read it
    advice, level, name : the rule's own where they are left out
    """

    ok: bool
    measured: str
    bound: str
    advice: str = ""
    level: Level | None = None
    name: str = ""


@dataclass(frozen=True)
class GuardRule:
    """A guard that is declared.

    Attributes
    ----------
    facts : what it looks at, which is also when it is asked
    bounds : what of a policy it reads: `section.field`, or a Bound that it brings along
    judge : a finding for each thing that it is asked about; none where it has nothing to say
    """

    name: str
    level: Level
    facts: type[Facts]
    bounds: tuple[str | Bound, ...]
    advice: str
    judge: Callable[[Any], Iterable[Finding]]

    def ask(self, seen: Facts) -> list[Guard]:
        """Its answers about these facts, which must be of the class that it looks at; none where it is silent."""
        return [self.guard(finding) for finding in self.judge(seen)]

    def guard(self, found: Finding) -> Guard:
        """A finding with the name, level and advice that it left to the rule, as evidence.json has it."""
        name, level, advice = found.name or self.name, found.level or self.level, found.advice or self.advice
        return Guard(name, level, bool(found.ok), found.measured, found.bound, advice)


GUARDS: dict[str, GuardRule] = {}


def guard(
    facts: type[F], name: str, level: Level, *, bounds: Sequence[str | Bound] = (), advice: str
) -> Callable[[Callable[[F], Iterable[Finding]]], Callable[[F], Iterable[Finding]]]:
    """Declare the function below it as a guard, which every promotion asks from then on.

    Parameters
    ----------
    facts : the class of what it looks at: the earliest that suffices, for that is also when it is asked
    name : unique; what evidence, card and messages call it
    bounds : what of a policy it reads: `section.field`, or a Bound that it adds to policies
    advice : one or two sentences on what to do where it fails

    Raises
    ------
    PolicyError
        Another guard has this name, policies have no such bound, or the function has no docstring.
    """

    def declare(judge: Callable[[F], Iterable[Finding]]) -> Callable[[F], Iterable[Finding]]:
        if name in GUARDS:
            raise PolicyError(f"there is a guard {name!r} already")
        if not judge.__doc__:
            raise PolicyError(f"guard {name!r} has no docstring, which the table of guards shows")
        for bound in bounds:
            _require(name, bound)
        GUARDS[name] = GuardRule(name, level, facts, tuple(bounds), advice, judge)
        return judge

    return declare


def _require(name: str, bound: str | Bound) -> None:
    if isinstance(bound, Bound):
        add_bound(bound)
        return
    section, _, field = bound.partition(".")
    if section not in SECTIONS or field not in SECTIONS[section].model_fields:
        raise PolicyError(f"guard {name!r} reads {bound}, which policies do not have")
