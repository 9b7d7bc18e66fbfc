"""The data gate of a study: every data configuration is prepared and audited before any trial starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data.config import DataConfig
from data.errors import DataError
from harness.config.control_configs import control_configs
from harness.config.search_space import SearchSpace
from harness.config.trial.trial_config import ControlName
from harness.core.errors import RefusedError
from harness.core.files import to_share
from harness.core.settings import Settings

if TYPE_CHECKING:
    from data.audit.audit import Audit
    from data.preparation.manifest import Manifest
    from data.preparation.prepare import Prepared


class GateRefusedError(RefusedError):
    """The data would make every score worthless; no trial was started.

    The message has a line for each check of level `refuse` that failed; `inspections` has the others too.
    """

    def __init__(self, inspections: Sequence[DataInspection]) -> None:
        self.inspections = tuple(inspections)
        lines = [
            f"  {inspection.name}: {check.message}"
            for inspection in inspections
            for check in inspection.audit.checks
            if not check.ok and check.level == "refuse"
        ]
        super().__init__("\n".join(["the data gate refuses; no trial was started", *lines]))


@dataclass(frozen=True)
class DataInspection:
    """One data configuration, prepared and audited.

    Attributes
    ----------
    name : for people: corpus, subset, question and training windows, after the control that alone needs it, if any
    """

    name: str
    prepared: Prepared
    audit: Audit

    @property
    def digests(self) -> dict[str, str]:
        """Digest of each split's manifest; equal digests mean the same windows."""
        return {split: part.manifest.digest for split, part in sorted(self.prepared.splits.items())}

    def as_json(self) -> dict[str, Any]:
        """What `harness sweep --json` prints of it, and what audit.json in the launch's run holds."""
        prepared = self.prepared
        return {
            "data": self.name,
            "config": prepared.config.model_dump(mode="json"),
            "split_rule": prepared.split_rule,
            "flags": list(prepared.flags),
            "dropped": {split: dict(counts) for split, counts in prepared.dropped.items()},
            "examined": prepared.examined,
            "lost": [{"path": str(lost.path), "reason": lost.reason} for lost in prepared.lost],
            "label_map_digest": prepared.label_map.digest,
            "manifests": self.digests,
            **self.audit.to_json(),
        }

    def described(self) -> dict[str, Any]:
        """What a study remembers of it: the fields of `as_json`, and who the windows of each split are of."""
        splits = sorted(self.prepared.splits.items())
        return {**self.as_json(), "evidence": {split: split_counts(part.manifest) for split, part in splits}}


def split_counts(manifest: Manifest) -> dict[str, dict[str, int]]:
    """Windows, clusters and speakers of each subset of a manifest, and of all as the subset ""."""
    counted = {}
    for subset in ["", *sorted(set(manifest.subsets()))]:
        windows = [window for window in manifest.windows if subset in ("", window.subset)]
        counted[subset] = {
            "windows": len(windows),
            "clusters": len({window.cluster for window in windows}),
            "speakers": len({speaker for window in windows for speaker in window.speakers}),
        }
    return counted


def audit_data_configs(
    space: SearchSpace, settings: Settings, progress: Callable[[str], None]
) -> list[DataInspection]:
    """Prepare and audit every data configuration that a trial or a control may ask for; it refuses none itself.

    Raises
    ------
    DataError
        One cannot be prepared here; the message names the control that alone asks for it.
    """
    from data.audit.audit import audit
    from data.preparation.prepare import prepare

    inspections = []
    for control, config in _data_configs(space):
        name = f"{config.corpus} {config.subset}, {config.question}, {config.train_windows} windows"
        name = f"control {control}: {name}" if control else name
        try:
            with to_share():
                prepared = prepare(
                    config, data_root=settings.data_root, cache=settings.cache, progress=progress
                )
        except DataError as error:
            if control is None:
                raise
            raise DataError(f"control {control} cannot be made here: {error}; leave it out") from error
        inspections.append(DataInspection(name, prepared, audit(prepared)))
    return inspections


def _data_configs(space: SearchSpace) -> list[tuple[ControlName | None, DataConfig]]:
    """What trials may ask for, then what only a control needs."""
    found: dict[str, tuple[ControlName | None, DataConfig]] = {
        config.digest(): (None, config) for config in space.data_configs()
    }
    for name, config in control_configs(space).items():
        found.setdefault(config.data.digest(), (name, config.data))
    return list(found.values())


def require_audits_pass(inspections: Sequence[DataInspection]) -> None:
    """Raise GateRefusedError where a check of level `refuse` failed in any audit; warnings pass."""
    if not all(inspection.audit.ok for inspection in inspections):
        raise GateRefusedError(inspections)
