"""Parameters <-> Optuna's distributions -> `TrialConfig`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

from data.config import DataConfig
from harness.parameters import Choice, Fixed, FloatRange, IntRange, Scalar, places
from harness.sweep import Sweep
from harness.trial_config import TrialConfig, derived_seed

if TYPE_CHECKING:
    from collections.abc import Sequence

Values = dict[str, Scalar]
Form = Fixed | Choice | IntRange | FloatRange

# A finite space up to this size is enumerated when the sampler keeps repeating itself.
MAX_ENUMERATED = 20_000


class Suggester(Protocol):
    """The three questions that an `optuna.Trial` answers."""

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar: ...  # noqa: D102

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...  # noqa: D102

    def suggest_float(  # noqa: D102
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...


class SearchSpace:
    """The sweep's parameters, parents before the parameters that depend on them."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.parameters: dict[str, Form] = _parents_first(dict(sweep.parameters))

    @property
    def searched(self) -> tuple[str, ...]:
        """The parameters that differ between trials."""
        return tuple(name for name, form in self.parameters.items() if not _is_single(form))

    def suggest(self, trial: Suggester) -> Values:
        """Ask an Optuna trial for the value of every parameter that is active in it."""
        values: Values = {}
        for name, form in self.parameters.items():
            if not self._active(name, values):
                continue
            if _is_single(form):
                values[name] = form.candidates()[0]
            elif isinstance(form, Choice):
                values[name] = trial.suggest_categorical(name, form.choice)
            elif isinstance(form, IntRange):
                low, high = form.bounds
                values[name] = trial.suggest_int(name, low, high, step=form.step, log=form.log)
            elif isinstance(form, FloatRange):
                low_f, high_f = form.bounds
                values[name] = trial.suggest_float(name, low_f, high_f, step=form.step, log=form.log)
        return values

    def config(self, values: Mapping[str, Scalar]) -> TrialConfig:
        """The frozen configuration of one set of active values."""
        data: dict[str, Scalar] = {}
        feature: dict[str, Scalar] = {}
        model: dict[str, Scalar] = {}
        training: dict[str, Scalar] = {}
        kind = str(values.get("feature", "mfcc"))
        sections = {"data": data, "feature": feature, "model": model, "training": training}
        known = places()
        for name, value in values.items():
            if name != "feature":
                sections[known[name].section][known[name].field] = value
        return TrialConfig.model_validate(
            {
                "data": self._data(data).model_dump(),
                "feature": {"kind": kind, **feature},
                "model": model,
                "training": training,
            }
        )

    def data_configs(self) -> list[DataConfig]:
        """Every data configuration that a trial may ask for; the gate looks at each before any trial."""
        forms = {name: form for name, form in self.parameters.items() if places()[name].section == "data"}
        if not all(_is_discrete(form) for form in forms.values()):
            raise ValueError("parameters of the data must be choices: each value is prepared and audited")
        names = list(forms)
        rows = itertools.product(*(_grid(form) for form in forms.values()))
        return [self._data(dict(zip(names, row, strict=True))) for row in rows]

    def combinations(self) -> Iterator[Values] | None:
        """Every distinct set of active values in a fixed order; None where the space has no such list."""
        if not all(_is_discrete(form) for form in self.parameters.values()):
            return None
        if math.prod(len(_grid(form)) for form in self.parameters.values()) > MAX_ENUMERATED:
            return None
        return self._walk(list(self.parameters), {})

    def _walk(self, names: list[str], values: Values) -> Iterator[Values]:
        if not names:
            yield dict(values)
            return
        head, *rest = names
        if not self._active(head, values):
            yield from self._walk(rest, values)
            return
        for value in _grid(self.parameters[head]):
            yield from self._walk(rest, {**values, head: value})

    def samples(self, count: int) -> list[TrialConfig]:
        """Random configurations, always the same ones, from which the cost of a study is estimated."""
        import random

        source = random.Random(derived_seed("samples", self.sweep.seed))
        return [self.config(self.suggest(_RandomSuggester(source))) for _ in range(count)]

    def _active(self, name: str, values: Values) -> bool:
        kind = places()[name].front_end
        if kind is not None and values.get("feature", "mfcc") != kind:
            return False
        for parent, wanted in self.parameters[name].when.items():
            allowed = wanted if isinstance(wanted, list) else [wanted]
            if values.get(parent) not in allowed:
                return False
        return True

    def _data(self, overrides: Mapping[str, Scalar]) -> DataConfig:
        data = self.sweep.data.model_dump()
        subsets = self.parameters.get("subset")
        if subsets is not None and not data["evaluate_on"]:
            # Trials on different subsets compare only on a common evaluation set.
            data["evaluate_on"] = tuple(str(subset) for subset in subsets.candidates())
        return DataConfig.model_validate({**data, **overrides})


class _RandomSuggester:
    """Draws uniformly, for estimates."""

    def __init__(self, source: object) -> None:
        import random

        assert isinstance(source, random.Random)
        self._source = source

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        return self._source.choice(list(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        if log:
            return round(math.exp(self._source.uniform(math.log(low), math.log(high))))
        return self._source.randrange(low, high + 1, step)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        if log:
            return math.exp(self._source.uniform(math.log(low), math.log(high)))
        return self._source.uniform(low, high)


def _is_single(form: Form) -> bool:
    candidates = form.candidates()
    return len(candidates) == 1 or (not isinstance(form, Choice) and candidates[0] == candidates[-1])


def _is_discrete(form: Form) -> bool:
    return not isinstance(form, FloatRange) or form.step is not None or _is_single(form)


def _grid(form: Form) -> list[Scalar]:
    if isinstance(form, Fixed | Choice) or _is_single(form):
        return form.candidates() if isinstance(form, Choice) else form.candidates()[:1]
    if isinstance(form, IntRange):
        low, high = form.bounds
        return list(range(low, high + 1, form.step))
    low_f, high_f = form.bounds
    assert form.step is not None
    return [low_f + index * form.step for index in range(int((high_f - low_f) / form.step + 1e-9) + 1)]


def _parents_first(parameters: dict[str, Form]) -> dict[str, Form]:
    """Order parameters so that what a condition looks at is sampled before it; ValueError on a circle."""
    ordered: dict[str, Form] = {}
    waiting = dict(parameters)
    while waiting:
        for name in list(waiting):
            parents = set(waiting[name].when)
            if places()[name].front_end is not None:
                parents.add("feature")
            if not (parents & set(waiting)):
                ordered[name] = waiting.pop(name)
                break
        else:
            raise ValueError(f"the conditions of {', '.join(waiting)} depend on each other in a circle")
    return ordered
