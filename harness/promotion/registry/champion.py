"""The champion, fetched and held against its digests, and what a challenger must show against it.

A champion is run by onnxruntime from its bundle; what MLflow would load of it (pyfunc) is never executed here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from harness.config.policy import ChampionRule
from harness.metrics.intervals import FEW_CLUSTERS, Clusters
from harness.metrics.paired_comparison import Difference, paired_cluster_bootstrap
from harness.promotion.bundle.files import MODEL, SPECIFICATION
from harness.promotion.registry.fetch_bundle import fetch_bundle
from harness.promotion.registry.model_registry import champion_of
from harness.promotion.registry.model_versions import RegisteredVersion
from harness.tracking.artifacts import ArtifactError
from harness.tracking.experiment import Tracking
from models.export.specification import network_macs

Verdict = Literal[
    "better", "non-inferior and cheaper", "the same model", "not shown better", "not comparable"
]


@dataclass(frozen=True)
class Champion:
    """The present champion with its bundle, whose digests were checked.

    macs : multiply-accumulates of one window; None where neither a tag nor the specification tells
    specification : content of its specification.json
    notes : what a reader of a comparison with it must know
    """

    registered: RegisteredVersion
    folder: Path
    macs: int | None
    specification: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def version(self) -> str:
        """Its version in the registry."""
        return self.registered.version

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"champion {self.registered.name} version {self.version}"

    @property
    def model(self) -> Path:
        """Its canonical ONNX file."""
        return self.folder / MODEL

    def incomparable_with(self, specification: Mapping[str, Any]) -> str:
        """Why its answers mean nothing on the windows of a model of this specification; empty where they do."""
        ours = self.specification
        dealt = ours.get("task") == "pseudo" and "label_map_digest" in ours
        if not dealt or ours["label_map_digest"] == specification["label_map_digest"]:
            return ""
        return (
            f"version {self.version} learned another label map, and which speaker is 1 is dealt anew in each: its "
            "answers mean nothing on these windows, and no number decides. If the new version is to serve, "
            f"`harness rollback {self.registered.name} --to VERSION` puts the alias on it by hand"
        )

    def notes_against(self, specification: Mapping[str, Any]) -> list[str]:
        """Its notes, and what a comparison with a model of this specification must say.

        Parameters
        ----------
        specification : the challenger's, as `specification.json` holds it
        """
        notes, ours = list(self.notes), self.specification
        test = ours.get("manifest_digests", {}).get("test") or self.registered.manifest
        if test != specification["manifest_digests"]["test"]:
            notes.append(
                f"version {self.version} was tested on other windows: it may have been trained on some of these"
            )
        return notes


def fetch_champion(tracking: Tracking, name: str, folder: Path) -> Champion | None:
    """Download the champion's bundle into ``folder`` (made here) and check it before anything reads it.

    Raises
    ------
    ArtifactError
        There is a champion and its bundle is not what was promoted, or is gone: nothing can be compared with it.
    """
    registered = champion_of(tracking, name)
    if registered is None:
        return None
    try:
        if not registered.run_id:
            raise ArtifactError("it was registered by hand, without a promotion run and its bundle")
        fetch_bundle(tracking.client, registered.run_id, registered.bundle_digest, folder)
        specification = json.loads((folder / SPECIFICATION).read_text("utf-8"))
        if not (folder / MODEL).is_file():
            raise ArtifactError(f"its bundle has no {MODEL}")
    except (ArtifactError, ValueError, FileNotFoundError) as error:
        raise ArtifactError(
            f"the champion of {name}, version {registered.version}, cannot be compared with: {error}; go back to the "
            f"version before it with `harness rollback {name}`, or take its alias `champion` away in the MLflow UI"
        ) from error
    notes = []
    if registered.bundle_digest is None:
        notes.append(
            f"version {registered.version} was registered before bundles were sealed in the registry: its files were "
            "held against its own SHA256SUMS only"
        )
    macs = registered.macs or macs_of(specification)
    return Champion(registered, folder, macs, specification, tuple(notes))


def macs_of(specification: Mapping[str, Any]) -> int | None:
    """Multiply-accumulates of one window, of all members of an ensemble; None where the specification lacks them."""
    networks = specification.get("members") or [specification]
    try:
        return sum(network_macs(one["front_end"], one["architecture"]) for one in networks)
    except (KeyError, TypeError, ValueError):
        return None


@dataclass(frozen=True)
class ChallengerComparison:
    """A challenger against an opponent on the same windows.

    difference : right answers of the challenger less those of the opponent, paired
    cheaper : share of multiply-accumulates that the challenger saves (negative: it needs more), None where not known
    """

    opponent: str
    difference: Difference
    cheaper: float | None
    wins: bool
    verdict: Verdict
    text: str

    def as_json(self) -> dict[str, Any]:
        """Every field, the difference with what follows from it."""
        return {**asdict(self), "difference": self.difference.as_json()}


def compare_challenger(
    challenger: npt.ArrayLike,
    champion: npt.ArrayLike,
    clusters: Clusters,
    macs: int,
    champion_macs: int | None,
    rule: ChampionRule,
    *,
    opponent: str,
    subsets: Sequence[str] | None = None,
    same_source: bool = False,
    incomparable: str = "",
    notes: Sequence[str] = (),
) -> ChallengerComparison:
    """Decide by the paired cluster bootstrap: better, or non-inferior and cheaper (`rule` has the bounds).

    A pool of evaluation subsets decides as it does in a report: every subset of 10 clusters or more must say so too.

    ::

                           -margin    0
        better                 |      | [-----]
        and cheaper            |  [---|---]         with (1 - cheaper) of the champion's MACs or fewer
        not shown better   [---|------|---]         and whenever there are fewer than 10 clusters

    Parameters
    ----------
    challenger, champion : (window,) of 0 or 1: whether each answered rightly
    clusters : (window,) cluster names
    macs, champion_macs : multiply-accumulates of one window
    opponent : what the text calls the other one
    subsets : (window,) evaluation subsets; None where nobody knows them
    same_source : both are the same run: promoting it again renews its evidence
    incomparable : why the opponent's answers mean nothing here, and what to do; empty where they do
    notes : what a reader of the text must know
    """
    difference = _difference(challenger, champion, clusters, subsets)
    verdict: Verdict = "not shown better"
    if incomparable:
        verdict = "not comparable"
    elif same_source:
        verdict = "the same model"
    elif difference.decided and difference.value > 0:
        verdict = "better"
    elif _not_worse(difference, rule.margin) and champion_macs and macs <= (1 - rule.cheaper) * champion_macs:
        verdict = "non-inferior and cheaper"
    wins = verdict not in ("not shown better", "not comparable")
    text = _text(difference, verdict, macs, champion_macs, rule, opponent)
    if incomparable:
        text = f"{verdict}, against {opponent}: {incomparable}"
    cheaper = 1 - macs / champion_macs if champion_macs else None
    return ChallengerComparison(opponent, difference, cheaper, wins, verdict, "; note: ".join([text, *notes]))


def _difference(
    ours: npt.ArrayLike, theirs: npt.ArrayLike, clusters: Clusters, subsets: Sequence[str] | None
) -> Difference:
    """The pool's, with a column for each evaluation subset where there are several (as in reports)."""
    difference = paired_cluster_bootstrap(ours, theirs, clusters)
    of, names = np.asarray([] if subsets is None else subsets), np.asarray(clusters)
    first, second = np.asarray(ours), np.asarray(theirs)
    found = np.unique(of).tolist()
    if len(found) < 2:
        return difference
    columns = tuple(
        (one, paired_cluster_bootstrap(first[of == one], second[of == one], names[of == one]))
        for one in found
    )
    return replace(difference, columns=columns)


def _not_worse(difference: Difference, margin: float) -> bool:
    """Whether pool and every evaluation subset that tells anything lie above -margin, and one tells something."""
    parts = [difference, *(column for _, column in difference.telling)]
    shown = not difference.columns or len(parts) > 1
    return shown and difference.clusters >= FEW_CLUSTERS and all(one.low > -margin for one in parts)


def _text(
    difference: Difference, verdict: Verdict, macs: int, champion_macs: int | None, rule: ChampionRule, opponent: str
) -> str:  # fmt: skip
    theirs = f"{_count(champion_macs)}" if champion_macs else "an unknown number"
    shown = (
        f"{verdict}, against {opponent}: {100 * difference.value:+.1f} points "
        f"[{100 * difference.low:+.1f}, {100 * difference.high:+.1f}], {difference.clusters} clusters, "
        f"{difference.windows} windows; {_count(macs)} MACs a window against {theirs}"
    )
    if verdict != "not shown better":
        return shown
    if difference.decided and difference.high < 0:
        return f"{shown}; it is worse"
    everywhere = ", on every evaluation subset of 10 clusters too," if difference.columns else ""
    wanted = (
        f"non-inferior takes an interval above {-100 * rule.margin:.1f} points{everywhere} and {rule.cheaper:.0%} "
        "fewer MACs"
    )
    return f"{shown}; {difference.remedy}; {wanted}"


def _count(macs: int) -> str:
    """Three figures: 84.9 M, 12.8 G."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if macs >= size:
            return f"{macs / size:.3g} {letter}"
    return str(macs)
