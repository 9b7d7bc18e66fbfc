"""When a training that the machine spoilt is tried again, and when it has failed for good."""

from __future__ import annotations

from dataclasses import dataclass

from harness.execution.executors.protocol import TrialFailed, WorkerLost
from harness.study.storage.trial_spool import TrialSpool

# A training whose worker dies is tried again this often without coming further, from its checkpoint.
MAX_RETRIES = 2
# One that hangs takes its time to be found out.
MAX_HANGS = 1


@dataclass
class Retries:
    """How often a training was tried again since it last came further: by an epoch, or by a checkpoint inside one.

    `checkpoint` is when its checkpoint was written (ns since 1970) as seen at the last failure; 0: there was none.
    """

    spool: TrialSpool
    count: int = 0
    checkpoint: int = 0

    def came_further(self) -> None:
        """Start the count anew: a new epoch is there, so trying again was worth it."""
        self.count = 0

    def another(self, event: TrialFailed | WorkerLost) -> str | None:
        """Count one more try and return None; or say why there is none, and the training fails."""
        written = self.spool.checkpoint_written()
        if self.count and written != self.checkpoint:
            self.came_further()
        self.checkpoint = written
        hung = isinstance(event, WorkerLost) and event.hung
        if self.count < (MAX_HANGS if hung else MAX_RETRIES):
            self.count += 1
            return None
        tried = self.count + 1
        if hung:
            return f"{event.reason} ({tried} times)"
        return f"infrastructure, {tried} times: {event.reason}"
