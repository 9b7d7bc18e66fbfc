"""The data gate of a study: every data configuration is prepared and audited before any trial starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.search_space import SearchSpace
from harness.settings import Settings

if TYPE_CHECKING:
    from data.audit import Audit
    from data.prepare import Prepared


class GateRefusedError(Exception):
    """The data would make every score worthless; no trial was started."""

    def __init__(self, inspections: Sequence[Inspection]) -> None:
        self.inspections = tuple(inspections)
        lines = [
            f"  {inspection.name}: {check.message}"
            for inspection in inspections
            for check in inspection.audit.checks
            if not check.ok and check.level == "refuse"
        ]
        super().__init__("\n".join(["the data gate refuses; no trial was started", *lines]))


@dataclass(frozen=True)
class Inspection:
    """One data configuration, prepared and audited."""

    name: str
    prepared: Prepared
    audit: Audit

    @property
    def digests(self) -> dict[str, str]:
        """The manifest digest of every split."""
        return {split: part.manifest.digest for split, part in sorted(self.prepared.splits.items())}

    def as_json(self) -> dict[str, Any]:
        """The fields that `--json` prints."""
        prepared = self.prepared
        return {
            "data": self.name,
            "config": prepared.config.model_dump(mode="json"),
            "split_rule": prepared.split_rule,
            "flags": list(prepared.flags),
            "examined": prepared.examined,
            "lost": [{"path": str(lost.path), "reason": lost.reason} for lost in prepared.lost],
            "label_map_digest": prepared.label_map.digest,
            "manifests": self.digests,
            **self.audit.to_json(),
        }


def inspect(space: SearchSpace, settings: Settings, progress: Callable[[str], None]) -> list[Inspection]:
    """Prepare and audit every data configuration that a trial may ask for."""
    from data.audit import audit
    from data.prepare import prepare

    inspections = []
    for config in space.data_configs():
        name = (
            f"{config.corpus} {config.subset}, {config.task}/{config.variant}, {config.train_windows} windows"
        )
        prepared = prepare(config, data_root=settings.data_root, cache=settings.cache, progress=progress)
        inspections.append(Inspection(name, prepared, audit(prepared)))
    return inspections


def require(inspections: Sequence[Inspection]) -> None:
    """Raise GateRefusedError where any audit refuses."""
    if not all(inspection.audit.ok for inspection in inspections):
        raise GateRefusedError(inspections)
