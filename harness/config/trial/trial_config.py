"""What one trial is: a frozen configuration with a fingerprint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data.config import DataConfig
from data.digests import digest_of
from harness.config.trial.augmentation_config import AugmentationConfig
from harness.config.trial.training_config import PER_MEMBER_FIELDS, TrainingConfig
from harness.core.errors import InputError
from models.front_ends.config import AnyFrontEnd, Mfcc
from models.networks.config import CnnConfig

# Raise it when the same configuration would no longer give the same numbers.
IMPLEMENTATION = 1

# A training whose true score is chance; see harness.study.controls.
ControlName = Literal["unseen", "shuffled_labels"]

# Fields that change how a trial is run, never what comes out of it.
IRRELEVANT: dict[str, frozenset[str]] = {
    "data": frozenset({"max_lost_share", "max_download_gb"}),
    "feature": frozenset({"path"}),  # where a file lies; its sha256 decides
    "training": frozenset({"checkpoint_every"}),
}


class TrialConfig(BaseModel):
    """One sampled configuration; equal fingerprints mean equal numbers (same replicate, same device kind).

    `stack` is how many trials may be computed as one with it, which changes how numbers are rounded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # First: to validate it loads the plug-ins, which may bring the front end along.
    data: DataConfig = Field(default_factory=DataConfig)
    feature: AnyFrontEnd = Field(default_factory=Mfcc)
    model: CnnConfig = Field(default_factory=CnnConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    augmentation: AugmentationConfig = Field(default_factory=AugmentationConfig)
    control: ControlName | Literal[""] = ""
    stack: int = Field(default=1, ge=1)

    @classmethod
    def from_record(cls, recorded: Mapping[str, Any]) -> TrialConfig:
        """Read the configuration that a trial was recorded with.

        Raises
        ------
        InputError
            It names what there is not here, such as the front end of a plug-in that is not installed.
        """
        try:
            return cls.model_validate(recorded)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise InputError(
                f"a recorded configuration cannot be read here: {where}: {first['msg']}; where a plug-in brought that, "
                "install it, or name its module in HARNESS_PLUGINS"
            ) from error

    def fingerprint(self) -> str:
        """Hex sha256 of everything that decides the numbers; the replicate and the device are left out.

        So are the fields of `IRRELEVANT`, and a control or a stack where there is none: fingerprints from before them
        stay what they were.
        """
        relevant: dict[str, Any] = {"implementation": IMPLEMENTATION}
        if self.control:
            relevant["control"] = self.control
        if self.stack > 1:
            relevant["stack"] = self.stack
        for section, value in self._sections():
            skipped = IRRELEVANT.get(section, frozenset())
            relevant[section] = {key: item for key, item in value.items() if key not in skipped}
        return digest_of(relevant)

    def stack_key(self) -> str:
        """Hex sha256 of all that the trials of a stack have in common: everything but `PER_MEMBER_FIELDS`."""
        return digest_of(self.model_dump(mode="json", exclude={"training": set(PER_MEMBER_FIELDS)}))

    def flat(self) -> dict[str, str | int | float | bool]:
        """Every field by its dotted name, as MLflow's parameters show it; what is no scalar becomes JSON text.

        The front end's kind is called `feature`, as in a sweep file; the control is no parameter and left out.
        """
        rows: dict[str, str | int | float | bool] = {"stack": self.stack} if self.stack > 1 else {}
        for section, value in self._sections():
            for key, item in value.items():
                name = "feature" if (section, key) == ("feature", "kind") else f"{section}.{key}"
                rows[name] = item if isinstance(item, str | int | float | bool) else json.dumps(item)
        return rows

    def _sections(self) -> list[tuple[str, dict[str, Any]]]:
        return list(self.model_dump(mode="json", exclude={"control", "stack"}).items())
