"""What the trials of a study say to whoever asks for the next one; those that have ended are looked at once.

An ended trial never changes, so a study of 10,000 costs an ask no more than one of ten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# On a trial that ran out of memory: the batch size to try; on the trial that tries it: the number of the first.
SMALLER, SMALLER_OF = "smaller", "smaller_of"


@dataclass
class Tally:
    """Counts of a study's trials.

    counted : the first so many trials have ended, and are in the other fields
    asked : of those, the ones that began or were told; smaller : numbers of those to be tried once more, smaller
    begun : numbers of the trials whose smaller ones were asked for
    """

    counted: int = 0
    asked: int = 0
    smaller: list[int] = field(default_factory=list)
    begun: set[int] = field(default_factory=set)

    def rest(self, trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
        """Count what has ended at the front of all trials of the study; those behind it."""
        while self.counted < len(trials) and trials[self.counted].state.is_finished():
            trial = trials[self.counted]
            self.counted += 1
            if not is_given_up(trial):
                self.asked += 1
                self.begun.update(_smaller_of(trial))
            if SMALLER in trial.user_attrs:
                self.smaller.append(trial.number)
        return trials[self.counted :]

    def number_asked(self, trials: Sequence[FrozenTrial]) -> int:
        """Trials asked for before, less those given up before they began: the next one stands for such a one."""
        rest = self.rest(trials)
        return self.asked + sum(not is_given_up(trial) for trial in rest if not is_queued(trial))

    def next_smaller(self, trials: Sequence[FrozenTrial]) -> int | None:
        """Number of the first trial that is to be tried once more, smaller, and was not asked for yet."""
        rest = self.rest(trials)
        begun = self.begun.union(*(_smaller_of(trial) for trial in rest if not is_given_up(trial)))
        waiting = [*self.smaller, *(trial.number for trial in rest if SMALLER in trial.user_attrs)]
        return next((number for number in waiting if number not in begun), None)


def _smaller_of(trial: FrozenTrial) -> Iterator[int]:
    if SMALLER_OF in trial.user_attrs:
        yield trial.user_attrs[SMALLER_OF]


def is_given_up(trial: FrozenTrial) -> bool:
    """Whether it was asked for and never began."""
    return trial.user_attrs.get("state") == "abandoned"


def is_queued(trial: FrozenTrial) -> bool:
    """Whether the next `ask` gets it; an interrupted trial waits too, and has its configuration."""
    return trial.state.name == "WAITING" and "fingerprint" not in trial.user_attrs
