"""The baseline of a sweep: what somebody would train who searched nothing.

Its values are those under `baseline:` in the sweep file; else the default of each searched parameter, where the
parameter admits it, else its first candidate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness.config.parameters import Choice, Fixed, FloatRange, IntRange, Scalar, parameter_locations
from harness.config.search_space import DEFAULT_FEATURE, Form, SearchSpace, Values
from harness.core.errors import InputError
from models.front_ends.build import why_unavailable

if TYPE_CHECKING:
    from harness.config.trial.trial_config import TrialConfig


class BaselineError(InputError):
    """The baseline cannot be trained on this machine."""


def baseline_of(space: SearchSpace, given: Mapping[str, Scalar] | None = None) -> tuple[Values, TrialConfig]:
    """Values and configuration of the baseline, with the first front end that can be computed on this machine.

    Parameters
    ----------
    given : values that stand in for the sweep's own `baseline:`; None takes that

    Raises
    ------
    BaselineError
        Every front end that may be taken (one, where `given` names it) needs a file that is missing or altered here.
    """
    given = dict(space.sweep.baseline if given is None else given)
    chosen = space.parameters.get("feature")
    kinds: list[Scalar] = [given["feature"]] if "feature" in given else [None]
    if chosen is not None and "feature" not in given:  # where the first cannot be computed here, the next
        kinds = list(dict.fromkeys([admitted("feature", chosen), *chosen.grid()]))
    reason = None
    for kind in kinds:
        values = baseline_values(space, {**given, "feature": kind} if kind is not None else given)
        config = space.config(values)
        reason = why_unavailable(config.feature)
        if reason is None:
            return values, config
    raise BaselineError(f"the baseline cannot be trained here: {reason}; name another under baseline:")


def baseline_values(space: SearchSpace, given: Mapping[str, Scalar]) -> Values:
    """The values of all parameters that are active in the baseline, and those given that the sweep fixes nowhere."""
    values: Values = {}
    for name, form in space.parameters.items():
        if name in given and parameter_locations()[name].front_end is None:
            values[name] = given[name]
        elif space.is_active(name, values):
            values[name] = given.get(name, admitted(name, form))
    return {**values, **{name: value for name, value in given.items() if name not in values}}


def admitted(name: str, form: Form) -> Scalar:
    """The default of a parameter's field where its form admits it, else the form's first candidate.

    A choice admits what it lists (true is not 1), a range what lies within its bounds and on its steps.
    """
    default = DEFAULT_FEATURE if name == "feature" else parameter_locations()[name].default
    return default if _admits(form, default) else form.candidates()[0]


def _admits(form: Form, value: Scalar) -> bool:
    if isinstance(form, Fixed | Choice):
        return (type(value) is bool, value) in [(type(one) is bool, one) for one in form.grid()]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if not form.bounds[0] <= value <= form.bounds[1]:
        return False
    if isinstance(form, IntRange):
        return (value - form.bounds[0]) % form.step == 0
    assert isinstance(form, FloatRange)
    return form.on_grid(value) == value
