"""What a worker is given for one training of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.trial.trial_config import TrialConfig
from harness.core.failpoints import failpoint
from harness.core.provenance import Provenance
from harness.core.seeds import derived_seed
from harness.study.storage.record import Record
from harness.study.storage.trial_spool import TrialSpool
from harness.study.study import Study
from harness.tracking.run_header import trial_header
from harness.training.job import Job

if TYPE_CHECKING:
    from data.preparation.prepare import Prepared


@dataclass(frozen=True)
class Jobs:
    """Makes the jobs of one study.

    Attributes
    ----------
    prepared : data by the digest of their configuration
    code : the code and the machine, for the tags of every run
    cache : where workers store features, and look for them
    """

    study: Study
    record: Record
    prepared: Mapping[str, Prepared]
    code: Provenance
    cache: Path

    @property
    def tags(self) -> dict[str, str]:
        """Tags that every run of the study has in MLflow: the code, the machine, the study's name."""
        return {**self.code.tags, "harness.study": self.study.name}

    def seed(self, replicate: int) -> int:
        """The training's seed: common to all configurations; replicate 0 is the sweep's own."""
        return derived_seed("training", self.study.sweep.seed, replicate)

    def spool(self, folder: str) -> TrialSpool:
        """The spool in this folder: `00003` of trial 3, `control-NAME`, or a replicate's (`folder_of`)."""
        return TrialSpool(self.record.spool / self.study.name / folder)

    def make(
        self,
        number: int,
        name: str,
        config: TrialConfig,
        spool: TrialSpool,
        replicate: int = 0,
        *,
        subject: str = "",
        header: Mapping[str, Any] | None = None,
    ) -> Job:
        """A job; its spool begins with what the run is called and configured, and keeps what it has.

        Every call counts as an attempt at the training.

        Parameters
        ----------
        number : of the job: a trial's own, else one that no other running job has
        replicate : 0 for the sweep's own seed, else which fresh one
        subject : what is trained, as the exported model names it, where that is not `number`
        header : the spool's beginning, where it is not a trial's
        """
        prepared = self.prepared[config.data.digest()]
        seed = self.seed(replicate)
        begun = spool.read("trial") or header
        count_attempt(spool, begun or trial_header(number, name, config, prepared, seed, self.tags))
        run_id = f"{self.study.name}/{subject or number}" + (f"/{replicate}" if replicate else "")
        return Job(
            number=number,
            config=config.model_dump(mode="json"),
            prepared=str(prepared.folder),
            spool=str(spool.folder),
            cache=str(self.cache),
            seed=seed,
            specification={"run_id": run_id, "versions": dict(self.code.versions)},
        )


def count_attempt(spool: TrialSpool, header: Mapping[str, Any] | None = None) -> None:
    """Note that a training is given to a worker (`header`: its trial.json, where that may not be there yet).

    The number is a tag of its run; it is kept before the worker hears of the job.
    """
    known = header or spool.read("trial")
    assert known is not None, f"{spool.folder} has no trial.json"
    attempt = int(known["tags"].get("harness.attempt", "0")) + 1
    spool.write("trial", {**known, "tags": {**known["tags"], "harness.attempt": str(attempt)}})
    failpoint("coordinator.attempt")
