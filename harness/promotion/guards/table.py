"""The list of guards, written from the registry: `python -m harness.promotion.guards.table > docs/guards.md`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator

from harness.config.files.policy_file import load_policy
from harness.config.policy import Bound
from harness.promotion.guards.assessment import every_guard
from harness.promotion.guards.rule import GuardRule

COMMAND = "python -m harness.promotion.guards.table > docs/guards.md"
HEAD = f"""\
# Guards

Written by `{COMMAND}`, with those of plug-ins where HARNESS_PLUGINS names any.

A guard of level *integrity* always refuses, one of level *quality* warns or refuses as `quality.on_failure` says, and
*advice* is only said. They stand in the order of `evidence.json`; bounds have the values of the policy `default`.
`tests/additions/guard_example.py` shows how a plug-in adds one; a policy file sets its bound under `guards`.
"""


def guards_document() -> str:
    """docs/guards.md: every guard with its level, when it is asked, its bounds under the shipped policies, its advice.

    What it says of a guard is the first line of that function's docstring.
    """
    return "\n".join([HEAD, *("\n".join(_entry(rule)) for rule in every_guard())])


def _entry(rule: GuardRule) -> Iterator[str]:
    yield f"## {rule.name}\n"
    yield f"*{rule.level}*, asked {rule.facts.when}. {(inspect.getdoc(rule.judge) or '').splitlines()[0]}\n"
    for bound in rule.bounds:
        yield f"* {_bound(bound)}"
    if rule.bounds:
        yield ""
    yield f"If it fails: {rule.advice}\n"


def _bound(bound: str | Bound) -> str:
    name = f"guards.{bound.name}" if isinstance(bound, Bound) else bound
    usual, strict = (load_policy(policy).flat()[name] for policy in ("default", "production"))
    return f"`{name}`: {_shown(usual)}" + (f", in `production` {_shown(strict)}" if strict != usual else "")


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    sys.stdout.write(guards_document())
