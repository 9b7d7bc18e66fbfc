"""What a worker is given for one training of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.executors.protocol import Job
from harness.provenance import Provenance
from harness.record import Record
from harness.run_page import trial_header
from harness.spool import TrialSpool
from harness.study import Study
from harness.trial_config import TrialConfig, derived_seed

if TYPE_CHECKING:
    from data.prepare import Prepared


@dataclass(frozen=True)
class Jobs:
    """Makes the jobs of one study."""

    study: Study
    record: Record
    prepared: Mapping[str, Prepared]
    code: Provenance
    cache: Path

    def spool(self, folder: str) -> TrialSpool:
        """The spool of a trial or of a control."""
        return TrialSpool(self.record.spool / self.study.name / folder)

    def make(self, number: int, name: str, config: TrialConfig, spool: TrialSpool) -> Job:
        """A job; its spool begins with what the run is called and configured, and keeps what it has."""
        prepared = self.prepared[config.data.digest()]
        seed = derived_seed("training", self.study.sweep.seed, 0)
        if spool.read("trial") is None:
            tags = {**self.code.tags, "harness.study": self.study.name}
            spool.write("trial", trial_header(number, name, config, prepared, seed, tags))
        return Job(
            number=number,
            config=config.model_dump(mode="json"),
            prepared=str(prepared.folder),
            spool=str(spool.folder),
            cache=str(self.cache),
            seed=seed,
            specification={"run_id": f"{self.study.name}/{number}", "versions": dict(self.code.versions)},
        )
