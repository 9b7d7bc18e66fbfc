"""Why a trial was pruned: the rule's own numbers, which the trial has kept.

A trial of an older version has not. The pruner decided when an epoch was reported, on what others had told by then; the
journal keeps that order, and its lines are walked through.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.config.search_rules import Pruner
from harness.study.sampling.pruning_decision import (
    PRUNED_BY,
    PruningNumbers,
    by_halving,
    by_median,
    last_rung,
)
from harness.study.sampling.samplers import pruner_of
from harness.study.storage.journal import parse_json, whole_lines
from harness.study.storage.optuna_internals import Operation
from harness.study.storage.record import Record
from harness.study.study import Study

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


def pruning_reason(record: Record, study: Study, number: int) -> PruningNumbers | None:
    """The numbers that stopped a trial; None where neither it nor the journal knows them."""
    trial = study.optuna_study.get_trials(deepcopy=False)[number]
    if PRUNED_BY in trial.user_attrs:
        return PruningNumbers.read(trial.user_attrs[PRUNED_BY])
    return replayed_reason(record, study, number) if trial.intermediate_values else None


def pruning_sentence(rule: Pruner, found: PruningNumbers) -> str:
    """The rule with its numbers as a sentence: of halving and hyperband the rung, else the median of those before."""
    if found.rung is None:
        stale = (
            f", and not reached again in its last {rule.patience + 1} epochs"
            if found.rule == "patient"
            else ""
        )
        return (
            f"rule {found.rule}: its best smoothed validation score in {found.epoch} epochs was {found.value:.3f} "
            f"({found.at_epoch:.3f} at epoch {found.epoch}{stale}), below {found.bound:.3f}, the median at epoch "
            f"{found.epoch} of the {found.compared} trials that were complete by then and had trained that long "
            f"(highest {found.highest:.3f}, lowest {found.lowest:.3f}). The rule judges from epoch "
            f"{rule.warmup_epochs + 1} on, once {rule.startup_trials} trials are complete"
        )
    place, of = f"rung {found.rung}", ""
    if found.bracket is not None:
        place, of = f"{place} of bracket {found.bracket}", " of the bracket"
    return (
        f"rule {found.rule}: at epoch {found.epoch}, {place}, its smoothed validation score was {found.value:.3f}; "
        f"{found.compared} trials{of} had reached this rung, 1 in {rule.reduction_factor} goes on, and that took "
        f"{found.bound:.3f}"
    )


@dataclass(frozen=True)
class _Seen:
    """The storage's ids of the trials that counted: complete at the last report, at the end, and past each rung."""

    reported: frozenset[int]
    told: frozenset[int]
    rungs: dict[str, frozenset[int]]


def replayed_reason(record: Record, study: Study, number: int) -> PruningNumbers | None:
    """The numbers of a trial that kept none, by the order of the journal's lines; None where they do not explain it.

    That order is all that tells what the pruner could know: which trials were complete, or past a rung, at the trial's
    last report.
    """
    rule, trials = study.sweep.pruner, study.optuna_study.get_trials(deepcopy=False)
    trial, seen = trials[number], _seen(record, study.trial_id(number))

    def known(ids: Container[int]) -> Iterator[FrozenTrial]:
        return (one for one in trials if study.trial_id(one.number) in ids)

    if rule.type in ("median", "patient"):
        # An epoch that a resumed trial had reported before is judged again, later than the journal has it.
        found = (by_median(rule, trial, known(complete)) for complete in (seen.reported, seen.told))
        return next((one for one in found if one is not None), None)
    key = last_rung(seen.rungs)
    if rule.type not in ("halving", "hyperband") or key is None:
        return None
    return by_halving(rule, pruner_of(study.sweep), study.optuna_study, trial, known(seen.rungs[key]))


def _seen(record: Record, trial_id: int) -> _Seen:
    """Walk the journal once, in the order in which it was written."""
    from optuna.trial import TrialState

    complete: set[int] = set()
    reported: frozenset[int] = frozenset()
    told: frozenset[int] = frozenset()
    passed: dict[str, set[int]] = {}
    rungs: dict[str, frozenset[int]] = {}
    for log in map(parse_json, whole_lines(record.journal)):
        operation, mine = log["op_code"], log.get("trial_id") == trial_id
        if operation == Operation.SET_TRIAL_STATE_VALUES and log["state"] == TrialState.COMPLETE:
            complete.add(log["trial_id"])
        elif operation == Operation.SET_TRIAL_STATE_VALUES and mine:
            told = frozenset(complete)
        elif operation == Operation.SET_TRIAL_INTERMEDIATE_VALUE and mine:
            reported = frozenset(complete)
        elif operation == Operation.SET_TRIAL_SYSTEM_ATTR:
            for key in log["system_attr"]:
                if mine:
                    rungs.setdefault(key, frozenset(passed.get(key, ())))
                else:
                    passed.setdefault(key, set()).add(log["trial_id"])
    return _Seen(reported, told, rungs)
