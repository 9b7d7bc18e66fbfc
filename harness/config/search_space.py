"""The space that a sweep searches: asked of an Optuna trial, walked, drawn from, and made into a `TrialConfig`.

Values are a flat dict of parameter names, `{"feature": "mfcc", "mfcc.n_mels": 40}`: only of those that are active, for
a parameter exists in a trial only where its front end is chosen and its `when:` holds.
"""

from __future__ import annotations

import itertools
import math
import random
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from data.config import DataConfig
from data.errors import FieldError
from harness.config.parameters import (
    Choice,
    Fixed,
    FloatRange,
    IntRange,
    Scalar,
    Section,
    parameter_locations,
)
from harness.config.sweep import Sweep
from harness.config.trial.trial_config import TrialConfig
from harness.core.seeds import derived_seed
from models.front_ends.config import FRONT_ENDS, FrontEnd, parse_front_end

Values = dict[str, Scalar]
Form = Fixed | Choice | IntRange | FloatRange

# A finite space up to this size is enumerated when the sampler keeps repeating itself.
MAX_ENUMERATED = 20_000
# Every data configuration is prepared and audited before the first trial.
MAX_DATA_CONFIGS = 32
DEFAULT_FEATURE = "mfcc"


class Suggester(Protocol):
    """The three questions that an `optuna.Trial` answers, so that a space knows no Optuna."""

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar: ...  # noqa: D102

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...  # noqa: D102

    def suggest_float(  # noqa: D102
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...


class SearchSpace:
    """The sweep's parameters, parents before the parameters that depend on them.

    Attributes
    ----------
    parameters : name -> form, in sampling order
    skipped : front end -> why it cannot be computed on this machine; whoever opens the study fills it in

    Raises
    ------
    FieldError
        The conditions go round in a circle.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.parameters: dict[str, Form] = _parents_first(sweep.parameters)
        self.skipped: dict[FrontEnd, str] = {}  # front ends that cannot be computed here, and why

    @property
    def searched(self) -> tuple[str, ...]:
        """The parameters that may differ between trials: those with more than one value."""
        return tuple(name for name, form in self.parameters.items() if form.size != 1)

    def suggest(self, trial: Suggester) -> Values:
        """Ask an Optuna trial for the value of every parameter that is active in it.

        Parents come first: what was answered decides what is asked next. A parameter of one value is never asked for.
        """
        values: Values = {}
        for name, form in self.parameters.items():
            if self.is_active(name, values):
                values[name] = _suggest(trial, name, form)
        return values

    def config(self, values: Mapping[str, Scalar]) -> TrialConfig:
        """The frozen configuration of one set of active values; a field that has none keeps its default.

        Raises
        ------
        pydantic.ValidationError
            The values break a law together.
        """
        sections: dict[str, Values] = {section: {} for section in typing.get_args(Section)}
        for name, value in values.items():
            place = parameter_locations()[name]
            sections[place.section][place.field] = value
        sections["feature"].setdefault("kind", DEFAULT_FEATURE)
        data = self._data(sections.pop("data")).model_dump()
        return TrialConfig.model_validate({"data": data, "stack": self.sweep.stack, **sections})

    def data_configs(self) -> list[DataConfig]:
        """Every data configuration that a trial may ask for; the gate looks at each before any trial.

        Raises
        ------
        FieldError
            There are more than `MAX_DATA_CONFIGS`, which nobody would prepare.
        """
        data = [name for name in self.parameters if parameter_locations()[name].section == "data"]
        found: dict[str, DataConfig] = {}
        for values in self._walk(self._with_parents(data), {}, _grid):
            config = self._data({name: values[name] for name in data if name in values})
            found[config.digest()] = config
            if len(found) > MAX_DATA_CONFIGS:
                raise FieldError(
                    f"{' and '.join(data)} give more than {MAX_DATA_CONFIGS} sets of data, each of which is "
                    "prepared and audited before the first trial: list fewer choices",
                    *data,
                )
        return list(found.values())

    def combinations(self) -> Iterator[Values] | None:
        """Every distinct set of active values that is not skipped, in a fixed order.

        None for an endless space: a parameter is a continuum, or there are more than `MAX_ENUMERATED` sets.
        """
        if any(form.size is None or form.size > MAX_ENUMERATED for form in self.parameters.values()):
            return None
        # Counted by walking: parameters that exclude each other do not multiply.
        counted = self._walk(list(self.parameters), {}, _grid)
        if sum(1 for _ in itertools.islice(counted, MAX_ENUMERATED + 1)) > MAX_ENUMERATED:
            return None
        return (values for values in self._walk(list(self.parameters), {}, _grid) if not self._skips(values))

    def corners(self) -> Iterator[Values]:
        """Every combination of the candidates of the front ends' parameters: choices, and the ends of ranges.

        Their laws bind several fields (n_mels and n_fft), so that no value can be checked by itself.
        """
        names = [name for name in self.parameters if parameter_locations()[name].section == "feature"]
        return self._walk(self._with_parents(names), {}, lambda form: form.candidates())

    def random_values(self, count: int) -> Iterator[Values]:
        """`count` random sets of active values that are not skipped, always the same ones for a sweep's seed."""
        source = _RandomSuggester(random.Random(derived_seed("samples", self.sweep.seed)))
        drawn = (self.suggest(source) for _ in itertools.count())
        return itertools.islice((values for values in drawn if not self._skips(values)), count)

    def external_front_ends(self) -> list[FrontEnd]:
        """Every front end of the space that needs a file from elsewhere, with all its fields, each once."""
        found = (self._external(values) for values in self._features())
        return list(dict.fromkeys(front_end for front_end in found if front_end is not None))

    def nothing_left(self) -> bool:
        """Whether every front end of the space is skipped, so that no trial can be made."""
        return all(self._skips(values) for values in self._features())

    def reason_to_skip(self, config: TrialConfig) -> str | None:
        """Why a configuration cannot be trained on this machine; None where it can."""
        return self.skipped.get(config.feature)

    def _features(self) -> Iterator[Values]:
        """Walk what decides which front end of files a trial has."""
        kinds = [name for name in self.parameters if _is_external(parameter_locations()[name].front_end)]
        return self._walk(self._with_parents(["feature", *kinds]), {}, _grid)

    def _external(self, values: Values) -> FrontEnd | None:
        kind = str(values.get("feature", DEFAULT_FEATURE))
        if not _is_external(kind):
            return None
        fields = {
            place.field: value
            for name, value in values.items()
            if (place := parameter_locations()[name]).front_end == kind
        }
        return parse_front_end({"kind": kind, **fields})

    def _skips(self, values: Values) -> bool:
        return bool(self.skipped) and self._external(values) in self.skipped

    def random_configs(self, count: int) -> list[TrialConfig]:
        """Random configurations, always the same ones, from which the cost of a study is estimated."""
        return [self.config(values) for values in self.random_values(count)]

    def _walk(
        self, names: list[str], values: Values, options: Callable[[Form], Sequence[Scalar]]
    ) -> Iterator[Values]:
        if not names:
            yield dict(values)
            return
        head, *rest = names
        if not self.is_active(head, values):
            yield from self._walk(rest, values, options)
            return
        for value in options(self.parameters[head]):
            yield from self._walk(rest, {**values, head: value}, options)

    def _with_parents(self, names: Iterable[str]) -> list[str]:
        """These parameters and all that decide whether they are active, in sampling order."""
        wanted: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name in self.parameters and name not in wanted:
                wanted.add(name)
                waiting += _parents(name, self.parameters[name])
        return [name for name in self.parameters if name in wanted]

    def is_active(self, name: str, values: Mapping[str, Scalar]) -> bool:
        """Whether a parameter exists in a trial whose parents have these values.

        Its front end is the one chosen, and every parent in its `when:` is active and has one of the values wanted.
        """
        kind = parameter_locations()[name].front_end
        if kind is not None and values.get("feature", DEFAULT_FEATURE) != kind:
            return False
        return all(
            parent in values and values[parent] in (wanted if isinstance(wanted, list) else [wanted])
            for parent, wanted in self.parameters[name].when.items()
        )

    def _data(self, overrides: Mapping[str, Scalar]) -> DataConfig:
        data = self.sweep.data.model_dump()
        subsets = self.parameters.get("subset")
        if subsets is not None and not data["evaluate_on"]:
            # Trials on different subsets compare only on a common evaluation set.
            trained_on = {str(subset) for subset in subsets.candidates()}
            data["evaluate_on"] = tuple(sorted(trained_on | ({data["subset"]} if subsets.when else set())))
        return DataConfig.model_validate({**data, **overrides})


class _RandomSuggester:
    """Draws uniformly, for estimates."""

    def __init__(self, source: random.Random) -> None:
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
            drawn = math.exp(self._source.uniform(math.log(low), math.log(high)))
            return min(high, max(low, drawn))  # the logarithm and back may step over an end
        return self._source.uniform(low, high)


def _suggest(trial: Suggester, name: str, form: Form) -> Scalar:
    if isinstance(form, Fixed) or form.size == 1:
        return form.grid()[0]
    if isinstance(form, Choice):
        return trial.suggest_categorical(name, form.choice)
    if isinstance(form, IntRange):
        return trial.suggest_int(name, *form.bounds, step=form.step, log=form.log)
    return form.on_grid(trial.suggest_float(name, *form.bounds, step=form.step, log=form.log))


def _is_external(kind: str | None) -> bool:
    return kind is not None and FRONT_ENDS[kind].external


def _grid(form: Form) -> Sequence[Scalar]:
    return form.grid()


def _parents(name: str, form: Form) -> set[str]:
    return {*form.when} | ({"feature"} if parameter_locations()[name].front_end is not None else set())


def _parents_first(parameters: Mapping[str, Form]) -> dict[str, Form]:
    """Order parameters as `parameter_locations` does, whatever order a file has, but parents before their dependants.

    Raises
    ------
    FieldError
        The conditions go round in a circle.
    """
    ordered: dict[str, Form] = {}
    waiting = {name: parameters[name] for name in parameter_locations() if name in parameters}
    while waiting:
        free = next((name for name in waiting if not _parents(name, waiting[name]) & set(waiting)), None)
        if free is None:
            message = f"the conditions of {', '.join(waiting)} depend on each other in a circle"
            places = [parameter_locations()[name] for name in waiting if name != "feature"]
            raise FieldError(message, *(place.field for place in places))
        ordered[free] = waiting.pop(free)
    return ordered
