"""Whether a trial is stopped early; the numbers that stop it are kept with it, for `harness why`.

They are computed of what Optuna's pruner has just looked at: the coordinator reports and asks in one thread, and is the
study's one writer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from statistics import median
from typing import TYPE_CHECKING, Any

from harness.study.storage.optuna_internals import RUNG, bracket

if TYPE_CHECKING:
    import optuna
    from optuna.pruners import BasePruner
    from optuna.trial import FrozenTrial

    from harness.config.search_rules import Pruner

PRUNED_BY = "pruned_by"  # the attribute of a trial


@dataclass(frozen=True)
class PruningNumbers:
    """What a rule compared. `epoch` counts from 1.

    value : the trial's smoothed validation score, of median and patient its best until then; at_epoch : at this epoch
    bound : what it took to go on
    compared, highest, lowest : what `value` was held against: how many, and between which
    rank : place of the trial among them and itself
    rung, bracket : of halving and hyperband
    others : all that `value` was held against, highest first; not kept
    """

    rule: str
    epoch: int
    value: float
    at_epoch: float
    bound: float
    compared: int
    highest: float
    lowest: float
    rank: int
    rung: int | None = None
    bracket: int | None = None
    others: tuple[float, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def read(cls, stored: str) -> PruningNumbers:
        """What `stored` gave; what a later version may have added is left out."""
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in json.loads(stored).items() if name in known})

    def stored(self) -> str:
        """As the trial keeps it: one line of JSON, without `others`, whose number and range stay."""
        kept = {name: value for name, value in asdict(self).items() if name != "others"}
        return json.dumps(kept, separators=(",", ":"))


def should_prune(study: optuna.Study, rule: Pruner, trial: optuna.Trial) -> bool:
    """Ask Optuna whether to stop a trial after what it reported last; if so, its numbers are kept with it."""
    if not trial.should_prune():
        return False
    trials = study.get_trials(deepcopy=False)
    numbers = numbers_now(study, rule, trials[trial.number], trials)
    if numbers is not None:
        trial.set_user_attr(PRUNED_BY, numbers.stored())
    return True


def numbers_now(
    study: optuna.Study, rule: Pruner, trial: FrozenTrial, trials: Iterable[FrozenTrial]
) -> PruningNumbers | None:
    """The numbers of a rule that has just pruned; None of a plug-in's, which are not known."""
    from optuna.trial import TrialState

    if rule.type in ("median", "patient"):
        return by_median(rule, trial, (one for one in trials if one.state == TrialState.COMPLETE))
    if rule.type in ("halving", "hyperband"):
        key = last_rung(trial.system_attrs)
        passed = (one for one in trials if key in one.system_attrs and one.number != trial.number)
        return by_halving(rule, study.pruner, study, trial, passed)
    return None


def by_median(rule: Pruner, trial: FrozenTrial, complete: Iterable[FrozenTrial]) -> PruningNumbers | None:
    """Optuna's MedianPruner: the best value so far against the median of the complete trials at this step.

    A PatientPruner asks it only where the best has not been reached again. None where it would not prune.
    """
    step = max(trial.intermediate_values)
    others = [one.intermediate_values[step] for one in complete if step in one.intermediate_values]
    best = max(trial.intermediate_values.values())
    if not others or best >= median(others):
        return None
    return _numbers(rule, trial, best, float(median(others)), others)


def by_halving(
    rule: Pruner, pruner: BasePruner, study: optuna.Study, trial: FrozenTrial, passed: Iterable[FrozenTrial]
) -> PruningNumbers | None:
    """Optuna's SuccessiveHalvingPruner: at each rung 1 in `reduction_factor` goes on; HyperbandPruner: of a bracket.

    The bound is the value of the last that goes on, of all that reached the rung. None where it would not prune.

    passed : the other trials that were past the last rung of this one, in any bracket
    """
    key = last_rung(trial.system_attrs)
    if key is None:
        return None
    own = _bracket(pruner, study, trial)
    others = [float(one.system_attrs[key]) for one in passed if _bracket(pruner, study, one) == own]
    value = float(trial.system_attrs[key])
    competing = sorted([*others, value], reverse=True)
    bound = competing[max(1, len(competing) // rule.reduction_factor) - 1]
    if value >= bound:
        return None
    return _numbers(rule, trial, value, bound, others, int(key.removeprefix(RUNG)), own)


def last_rung(attributes: Mapping[str, Any]) -> str | None:
    """The system attribute of a trial's value at the last rung that it has reached; None: it reached none."""
    rungs = sum(key.startswith(RUNG) for key in attributes)
    return f"{RUNG}{rungs - 1}" if rungs else None


def _bracket(pruner: BasePruner, study: optuna.Study, trial: FrozenTrial) -> int | None:
    """The bracket of a trial; None where there is only one."""
    from optuna.pruners import HyperbandPruner

    return bracket(pruner, study, trial) if isinstance(pruner, HyperbandPruner) else None


def _numbers(
    rule: Pruner,
    trial: FrozenTrial,
    value: float,
    bound: float,
    others: list[float],
    rung: int | None = None,
    own_bracket: int | None = None,
) -> PruningNumbers:
    step = max(trial.intermediate_values)
    others = sorted(others, reverse=True)
    return PruningNumbers(
        rule=rule.type,
        epoch=step + 1,
        value=value,
        at_epoch=trial.intermediate_values[step],
        bound=bound,
        compared=len(others),
        highest=others[0],
        lowest=others[-1],
        rank=1 + sum(other > value for other in others),
        rung=rung,
        bracket=own_bracket,
        others=tuple(others),
    )
