"""Why a trial was pruned: the rule's own numbers, found again in Optuna's journal.

The pruner decides when an epoch is reported, on what others had told by then. The journal keeps that order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from harness.study.sampling.samplers import pruner_of
from harness.study.storage.record import Record
from harness.study.study import Study

if TYPE_CHECKING:
    import optuna
    from optuna.pruners import BasePruner
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Pruned:
    """What the rule compared. `epoch` counts from 1.

    value : the trial's smoothed validation score, of median and patient its best until then
    bound : what it took to go on
    others : what `value` was held against, highest first
    """

    rule: Literal["median", "patient", "halving", "hyperband"]
    epoch: int
    value: float
    bound: float
    others: tuple[float, ...]
    text: str

    @property
    def rank(self) -> int:
        """Place of the trial among the others and itself."""
        return 1 + sum(other > self.value for other in self.others)


@dataclass(frozen=True)
class _Seen:
    """Ids of the trials that counted: complete at the last report, at the end, and past each rung."""

    reported: frozenset[int]
    told: frozenset[int]
    rungs: dict[str, frozenset[int]]


def pruning_reason(record: Record, study: Study, number: int) -> Pruned | None:
    """The numbers that stopped a trial; None where the journal does not explain it."""
    trial = study.optuna_study.get_trials(deepcopy=False)[number]
    if not trial.intermediate_values:
        return None
    seen = _seen(record, trial._trial_id)
    if study.sweep.pruner.type in ("median", "patient"):
        # An epoch that a resumed trial had reported before is judged again, later than the journal has it.
        found = (_by_median(study, trial, complete) for complete in (seen.reported, seen.told))
        return next((one for one in found if one is not None), None)
    halving = study.sweep.pruner.type in ("halving", "hyperband")
    return _by_halving(study, trial, seen) if halving else None


def _by_median(study: Study, trial: FrozenTrial, complete: frozenset[int]) -> Pruned | None:
    """Optuna's MedianPruner: the best value so far against the median of the complete trials at this step.

    A PatientPruner asks it only where the best has not been reached again.
    """
    step = max(trial.intermediate_values)
    others = _descending(
        one.intermediate_values[step] for one in study.optuna_study.get_trials(deepcopy=False)
        if one._trial_id in complete and step in one.intermediate_values
    )  # fmt: skip
    if not others:
        return None
    best, bound, rule = max(trial.intermediate_values.values()), float(median(others)), study.sweep.pruner
    if best >= bound:
        return None
    at_step = trial.intermediate_values[step]
    patient = rule.type == "patient"
    stale = f", and not reached again in its last {rule.patience + 1} epochs" if patient else ""
    text = (
        f"rule {rule.type}: its best smoothed validation score in {step + 1} epochs was {best:.3f} ({at_step:.3f} at "
        f"epoch {step + 1}{stale}), below {bound:.3f}, the median at epoch {step + 1} of the {len(others)} trials that "
        f"were complete by then and had trained that long (highest {others[0]:.3f}, lowest {others[-1]:.3f}). The rule "
        f"judges from epoch {rule.warmup_epochs + 1} on, once {rule.startup_trials} trials are complete"
    )
    return Pruned("patient" if patient else "median", step + 1, best, bound, others, text)


def _by_halving(study: Study, trial: FrozenTrial, seen: _Seen) -> Pruned | None:
    """Optuna's SuccessiveHalvingPruner: at each rung 1 in `reduction_factor` goes on; HyperbandPruner: of a bracket."""
    if not seen.rungs:
        return None
    pruner, of = pruner_of(study.sweep), study.optuna_study
    bracket_of = _brackets(pruner, of)
    bracket, rung = bracket_of(trial), len(seen.rungs) - 1
    key, factor = f"completed_rung_{rung}", study.sweep.pruner.reduction_factor
    value = float(trial.system_attrs[key])
    others = _descending(
        float(one.system_attrs[key]) for one in of.get_trials(deepcopy=False)
        if one._trial_id in seen.rungs[key] and bracket_of(one) == bracket
    )  # fmt: skip
    competing = _descending([*others, value])
    kept = max(1, len(competing) // factor)
    bound = competing[kept - 1]
    if value >= bound:
        return None
    step = max(trial.intermediate_values)
    rule: Literal["halving", "hyperband"] = "halving" if bracket is None else "hyperband"
    place = f"rung {rung}" if bracket is None else f"rung {rung} of bracket {bracket}"
    text = (
        f"rule {rule}: at epoch {step + 1}, {place}, its smoothed validation score was {value:.3f}; {len(others)} "
        f"trials{'' if bracket is None else ' of the bracket'} had reached this rung, 1 in {factor} goes on, and that "
        f"took {bound:.3f}"
    )
    return Pruned(rule, step + 1, value, bound, others, text)


def _brackets(pruner: BasePruner, study: optuna.Study) -> Callable[[FrozenTrial], int | None]:
    """The bracket of a trial; None where there is only one."""
    from optuna.pruners import HyperbandPruner

    if not isinstance(pruner, HyperbandPruner):
        return lambda trial: None
    pruner._try_initialization(study)
    return lambda trial: pruner._get_bracket_id(study, trial)


def _seen(record: Record, trial_id: int) -> _Seen:
    """Walk the journal once, in the order in which it was written."""
    from optuna.storages.journal import JournalFileBackend
    from optuna.storages.journal._storage import JournalOperation as Operation
    from optuna.trial import TrialState

    complete: set[int] = set()
    reported: frozenset[int] = frozenset()
    told: frozenset[int] = frozenset()
    passed: dict[str, set[int]] = {}
    rungs: dict[str, frozenset[int]] = {}
    for log in JournalFileBackend(str(record.journal)).read_logs(0):
        operation, mine = log["op_code"], log.get("trial_id") == trial_id
        if operation == Operation.SET_TRIAL_STATE_VALUES and log["state"] == TrialState.COMPLETE:
            complete.add(log["trial_id"])
        elif operation == Operation.SET_TRIAL_STATE_VALUES and mine:
            told = frozenset(complete)
        elif operation == Operation.SET_TRIAL_INTERMEDIATE_VALUE and mine:
            reported = frozenset(complete)
        elif operation == Operation.SET_TRIAL_SYSTEM_ATTR:
            for key in _rung_keys(log["system_attr"]):
                if mine:
                    rungs.setdefault(key, frozenset(passed.get(key, ())))
                else:
                    passed.setdefault(key, set()).add(log["trial_id"])
    return _Seen(reported, told, rungs)


def _rung_keys(attributes: dict[str, Any]) -> list[str]:
    return [key for key in attributes if key.startswith("completed_rung_")]


def _descending(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(sorted(values, reverse=True))
