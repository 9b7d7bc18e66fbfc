"""What passes between the coordinator and the workers, whatever carries it.

    submit(job) -> EpochDone -> reply -> EpochDone -> reply ... -> TrialDone | TrialFailed | WorkerLost

`number` is everywhere the job's. Until `interrupt`, each submitted job ends in exactly one of the last three.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from harness.core.errors import FailedError
from harness.core.format import one_line
from harness.core.redaction import redact
from harness.training.failures import failure_kind
from harness.training.job import FailureKind, Job


@dataclass(frozen=True)
class EpochDone:
    """An epoch is stored in the spool; the worker waits for `reply`.

    Attributes
    ----------
    epoch : counted from 0
    metrics : by name; `smoothed`, the trailing median of validation, is what pruners compare
    """

    number: int
    epoch: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class TrialDone:
    """The training ended and its outputs are spooled; `outcome` is the content of outcome.json.

    Its `state` is `complete`, `pruned`, or `interrupted`: then only a checkpoint is there, and the study keeps waiting.
    """

    number: int
    outcome: dict[str, Any]


@dataclass(frozen=True)
class TrialFailed:
    """The training raised; only failures of the kind `infrastructure` are tried again.

    `reason` is the error in one line, `traceback` the whole of it; what looks like a secret is out of both.
    """

    number: int
    kind: FailureKind
    reason: str
    traceback: str


@dataclass(frozen=True)
class WorkerLost:
    """The worker died, or was ended because it `hung`; `number` is the trial it was running, if any.

    Of a stack each trial that has not ended is told so.
    """

    number: int | None
    reason: str
    hung: bool = False


class WorkersFailedError(FailedError, RuntimeError):
    """Workers cannot do their work here, whatever the trial; the message says how they end."""


MAX_REASON = 500  # characters


def failure_of(number: int, error: Exception) -> TrialFailed:
    """Make the event of a training that raised: its kind, the first line of what it says, no secret in either."""
    said, trace = redact(one_line(error)[:MAX_REASON]), redact("".join(traceback.format_exception(error)))
    return TrialFailed(number, failure_kind(error), said, trace)


Event = EpochDone | TrialDone | TrialFailed | WorkerLost


class Executor(Protocol):
    """Runs trials in slots. Methods return at once, except `poll` and `close`, and one thread calls them all.

    A plug-in that trains elsewhere implements this and registers it in `executors.build.EXECUTORS`.
    """

    @property
    def slots(self) -> int:
        """How many trials, or stacks of them, run at once."""

    @property
    def idle(self) -> int:
        """How many slots could take a trial or a stack now: as often may `submit` be called."""

    def submit(self, *jobs: Job) -> None:
        """Give a trial to an idle slot; several are trained as one stack, each with events of its own.

        A job whose worker was lost may be given again: it goes on from the checkpoint in its spool.
        """

    def poll(self, timeout_s: float) -> Iterator[Event]:
        """What happened since the last call, waiting at most this many seconds for something."""

    def reply(self, number: int, *, stop: bool) -> None:
        """Answer an `EpochDone`: go on, or stop because the trial is pruned."""

    def interrupt(self) -> None:
        """Ask every trial to stop at its next step and keep its checkpoint; nothing is submitted afterwards."""

    def close(self) -> None:
        """End every worker, whatever it does; a trial that still runs keeps its last checkpoint."""
