"""The end of a promotion, from its sealed bundle alone: registry, decision, place.

    OUTPUT/.STUDY.aside, sealed  ->  registered and verified  ->  aliases  ->  remembered  ->  OUTPUT/STUDY

Whatever is killed here is done again from the sealed bundle by the next promotion: the test is not opened once more.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import listed
from harness.core.atomic_swap import replace_folder
from harness.core.errors import InputError
from harness.core.failpoints import failpoint
from harness.metrics.intervals import ClusteredInterval
from harness.promotion.bundle.files import EVIDENCE, MODEL, SUMS, bundle_digest, names_in
from harness.promotion.bundle.verify import verify
from harness.promotion.registry.model_registry import Registration, register
from harness.promotion.registry.model_versions import CHALLENGER, CHAMPION
from harness.study.decisions import Decision, Verdict, add_decision, decisions_of
from harness.study.storage.promotion_lock import PromotionError
from harness.study.study import Study
from harness.tracking.experiment import Tracking

MIN_FREE_BYTES = 300_000_000  # three models of a full-width network, twice, and what MLflow copies


@dataclass(frozen=True)
class Promotion:
    """What a promotion ended with.

    Attributes
    ----------
    version : its number in the registry, as text
    bundle : the folder where it lies now
    evidence : content of its evidence.json
    """

    study: str
    version: str
    bundle: Path
    evidence: Mapping[str, Any]

    @property
    def alias(self) -> str:
        """`champion`, or `challenger` where the present champion stays."""
        return str(self.evidence["alias"])

    @property
    def registered_name(self) -> str:
        """The registered model that it is a version of: one a task and variant, such as `overlap-any`."""
        return str(self.evidence["registered_name"])


def staging_folder(output: Path, study: str) -> Path:
    """Where the bundle of a study is made, beside its place and on the same disk."""
    return output / f".{study}.aside"


def bundle_folder(output: Path, study: str, alias: str) -> Path:
    """OUTPUT/STUDY of a champion, OUTPUT/STUDY.challenger of others: who does not win leaves the champion's bundle."""
    return output / (study if alias == CHAMPION else f"{study}.challenger")


class OutputError(InputError):
    """A folder of bundles that cannot be used, or a place that holds what no promotion wrote."""


def require_bundle_folders(output: Path, study: str) -> None:
    """Refuse a folder of bundles that cannot be made, and places whose content would be lost: they are replaced whole.

    Raises
    ------
    OutputError
        The folder cannot be made, or something else than a bundle stands in the place of one.
    """
    require_output(output)
    for alias in (CHAMPION, CHALLENGER):
        require_replaceable(bundle_folder(output, study, alias))


def require_output(output: Path) -> None:
    """Raise OutputError where the folder of bundles cannot be made, or where its disk is nearly full."""
    nearest = output.absolute()
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        why = "may not be written" if nearest.is_dir() else "is no folder"
        raise OutputError(
            f"the folder of bundles {output} cannot be made: {nearest} {why}; name another --output"
        )
    free = shutil.disk_usage(nearest).free
    if free < MIN_FREE_BYTES:
        raise OutputError(
            f"{output} has {free / 1e6:.0f} MB free; a promotion needs {MIN_FREE_BYTES / 1e6:.0f} MB or more"
        )


def require_replaceable(final: Path) -> None:
    """Refuse the place of a bundle that holds something else; OutputError names it."""
    foreign = foreign_files(final)
    if foreign:
        plain = final.is_dir() and not final.is_symlink()
        held = f"holds {listed(foreign)}" if plain else f"is a {'link' if final.is_symlink() else 'file'}"
        raise OutputError(
            f"{final} {held}, which no promotion wrote and which would be deleted: move it away, or name another "
            "--output"
        )


def foreign_files(final: Path) -> list[str]:
    """Names of what lies in the place of a bundle and is none of its files: it would be lost when that is replaced.

    Everything there where it is no bundle; the place's own name where it is no folder. SHA256SUMS says what is its own.
    """
    if not os.path.lexists(final):
        return []
    if final.is_symlink() or not final.is_dir():
        return [final.name]
    own: set[str] = set()
    if (final / SUMS).is_file():
        lines = (final / SUMS).read_text("utf-8", errors="replace").splitlines()
        own = {line.partition("  ")[2] for line in lines} | {SUMS}
    if MODEL not in own:  # a list of digests of somebody else's
        return sorted(path.name for path in final.iterdir())
    return sorted(name for name in names_in(final) if name not in own)


def finish_promotion(study: Study, tracking: Tracking, output: Path, tags: Mapping[str, str]) -> Promotion:
    """Register the sealed bundle of a study, remember the decision, put it in place.

    Raises
    ------
    PromotionError
        The champion is another than the one that was met; the bundle is given up, its version stays challenger.
    """
    sealed = staging_folder(output, study.name)
    evidence = _evidence(sealed)
    if _replaced(evidence, study, output):
        shutil.rmtree(sealed)
        return _in_place(study, bundle_folder(output, study.name, evidence["alias"]))
    try:
        version = register(
            tracking,
            _registration(evidence, sealed, tags),
            wins=evidence["alias"] == CHAMPION,
            seen_champion=evidence["seen_champion"],
        )
    except PromotionError:
        shutil.rmtree(sealed)
        raise
    failpoint("promotion.registered")
    _add_decision_once(study, evidence, version)
    failpoint("promotion.remembered")
    final = bundle_folder(output, study.name, evidence["alias"])
    replace_folder(sealed, final)
    failpoint("promotion.placed")
    return Promotion(study.name, version, final, evidence)


def has_unfinished_promotion(study: Study, tracking: Tracking, output: Path) -> bool:
    """Whether a killed promotion left a whole bundle; anything less is removed, and so is another record's."""
    aside = staging_folder(output, study.name)
    whole = (aside / SUMS).is_file() and verify(aside, latency=False).ok
    if whole and tracking.has_run(_evidence(aside)["run_id"]):
        return True
    shutil.rmtree(aside, ignore_errors=True)
    return False


def _replaced(evidence: Mapping[str, Any], study: Study, output: Path) -> bool:
    """Whether the sealed folder holds what stood in the place before: killed between the exchange and its removal."""
    final = bundle_folder(output, study.name, evidence["alias"])
    if not (final / EVIDENCE).is_file():
        return False
    order = [one.time for one in decisions_of(study) if one.version]  # not the clock: that may be set back
    old, new = evidence["promoted"], _evidence(final)["promoted"]
    return old in order and new in order and order.index(old) < order.index(new)


def _in_place(study: Study, final: Path) -> Promotion:
    """The promotion that put a bundle where it is."""
    evidence = _evidence(final)
    versions = [
        one.version for one in decisions_of(study) if one.version and one.time == evidence["promoted"]
    ]
    return Promotion(study.name, str(versions[0]), final, evidence)


def _evidence(bundle: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bundle / EVIDENCE).read_text("utf-8"))
    return found


def _registration(evidence: Mapping[str, Any], sealed: Path, tags: Mapping[str, str]) -> Registration:
    return Registration(
        name=evidence["registered_name"],
        source_run=evidence["run_id"],
        study=evidence["study"],
        subject_tags=evidence["mark"],
        bundle=sealed,
        bundle_digest=bundle_digest(sealed),
        test=ClusteredInterval(**evidence["test"]),
        manifest=evidence["manifests"]["test"],
        macs=evidence["macs"],
        stamp="confirmed" if evidence["confirmed"] else "unconfirmed",
        tags=tags,
    )


def _add_decision_once(study: Study, evidence: Mapping[str, Any], version: str) -> None:
    name, contest = evidence["registered_name"], evidence["champion"]
    if any((one.registered_name, one.version) == (name, version) for one in decisions_of(study)):
        return
    verdict: Verdict = "promoted" if evidence["alias"] == CHAMPION else "challenger"
    note = contest["text"] if contest else ""
    decision = Decision(
        time=evidence["promoted"],
        policy=evidence["policy"]["name"],
        subject=evidence["subject"],
        verdict=verdict,
        registered_name=name,
        version=version,
        note=note,
        fingerprint=evidence["trial"]["fingerprint"],
    )
    add_decision(study, decision)
