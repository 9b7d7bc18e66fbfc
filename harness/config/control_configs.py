"""The configurations of the negative controls: short trainings whose true score is chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from data.config import DataConfig
from harness.config.cost import SAMPLES, window_macs
from harness.config.trial.trial_config import ControlName, TrialConfig

if TYPE_CHECKING:
    from harness.config.search_space import SearchSpace


CONTROLS: tuple[ControlName, ...] = get_args(ControlName)
# One training a control, and a short one: what leaks is learnt as fast as a task is (7 epochs of 1,500 windows
# reach .94), and every further training would be a further chance of a false alarm.
EPOCHS = 5
WIDTH = 0.25
TRAIN_WINDOWS = 2_000  # of `unseen`, whose windows are prepared for it alone
MEETINGS = ("ami", "ami_hub")
# Fields of the data section that mean nothing to `unseen`, or make its preparation dear.
_DROPPED = {"task", "variant", "evaluate_on", "pitch_semitones", "stretch", "voice_variants"}


def control_configs(space: SearchSpace) -> dict[ControlName, TrialConfig]:
    """The configuration of every control that the sweep asks for.

    Raises
    ------
    ValueError
        A control cannot be made of this corpus (pydantic's ValidationError is one).
    """
    return {name: control_config(space, name) for name in CONTROLS if name in space.sweep.controls}


def control_config(space: SearchSpace, name: ControlName) -> TrialConfig:
    """The configuration of one control: the space's cheapest front end, a narrow network, default training, few epochs.

    The cheapest is that of the fewest multiply-accumulates among 100 random configurations of the space.

    Raises
    ------
    ValueError
        The control cannot be made of this corpus.
    """
    cheapest = min(space.random_configs(SAMPLES), key=window_macs)  # of equals the first
    model = {**cheapest.model.model_dump(), "width": min(WIDTH, cheapest.model.width)}
    choices = space.data_configs()
    sections = {
        "data": (_unseen(choices) if name == "unseen" else choices[0]).model_dump(),
        "feature": cheapest.feature.model_dump(),
        "model": model,
        "training": {"epochs": EPOCHS},
        "control": name,
    }
    return TrialConfig.model_validate(sections)


def _unseen(choices: Sequence[DataConfig]) -> DataConfig:
    """Task pseudo, variant unseen on the first training subset that is no corpus of meetings."""
    data = next((one for one in choices if one.corpus_of(one.subset) not in MEETINGS), None)
    if data is None:
        raise ValueError(
            f"{choices[0].subset} holds meetings of several speakers, and classes are dealt to recordings of one"
        )
    kept = {key: value for key, value in data.model_dump().items() if key not in _DROPPED}
    kept["train_windows"] = min(TRAIN_WINDOWS, data.train_windows)
    return DataConfig.model_validate({**kept, "task": "pseudo", "variant": "unseen"})
