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

    Attributes
    ----------
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
        """Its number in the registry, as MLflow's text: "3"."""
        return self.registered.version

    @property
    def label(self) -> str:
        """Name and version in messages: `champion overlap-any version 3`."""
        return f"champion {self.registered.name} version {self.version}"

    @property
    def model(self) -> Path:
        """The file that is run against the challenger: model.onnx (fp32), never a variant."""
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

    Attributes
    ----------
    opponent : what the text calls the other side
    difference : accuracy of the challenger less the opponent's, paired window by window, with its interval
    cheaper : share of multiply-accumulates that the challenger saves (negative: it needs more), None where not known
    text : verdict, numbers and notes in one line, as evidence.json and the card show it
    """

    opponent: str
    difference: Difference
    cheaper: float | None
    wins: bool
    verdict: Verdict
    text: str

    def as_json(self) -> dict[str, Any]:
        """`champion` of evidence.json: every field, and of the difference also what follows from its interval."""
        return {**asdict(self), "difference": self.difference.as_json()}


@dataclass(frozen=True)
class Contestant:
    """One side of a comparison.

    Attributes
    ----------
    label : what the text calls it
    correct : (window,) of 0 or 1: whether it answered rightly
    macs : multiply-accumulates of one window; None where nobody knows them (of an opponent only)
    run_id : the MLflow run that trained it; "" where none is known
    """

    label: str
    correct: npt.ArrayLike
    macs: int | None
    run_id: str = ""


@dataclass(frozen=True)
class ContestWindows:
    """Whose the windows are that both sides answered.

    Attributes
    ----------
    clusters : (window,) cluster names: what is drawn by the bootstrap, since windows of one are not independent
    subsets : (window,) evaluation subsets; None where nobody knows them
    """

    clusters: Clusters
    subsets: Sequence[str] | None = None


def compare_challenger(
    challenger: Contestant,
    opponent: Contestant,
    windows: ContestWindows,
    rule: ChampionRule,
    *,
    incomparable: str = "",
    notes: Sequence[str] = (),
) -> ChallengerComparison:
    """Decide by the paired cluster bootstrap: better, or non-inferior and cheaper (`rule` has the bounds).

    A pool of evaluation subsets decides as it does in a report: every subset of 10 clusters or more must say so too.
    Where both sides are of one run it wins as the same model: promoting it again renews its evidence.

    ::

                           -margin    0
        better                 |      | [-----]
        and cheaper            |  [---|---]         with (1 - cheaper) of the opponent's MACs or fewer
        not shown better   [---|------|---]         and whenever there are fewer than 10 clusters

    Parameters
    ----------
    incomparable : why the opponent's answers mean nothing here, and what to do; empty where they do
    notes : what a reader of the text must know
    """
    difference = _difference(challenger, opponent, windows)
    verdict: Verdict = "not shown better"
    if incomparable:
        verdict = "not comparable"
    elif challenger.run_id and challenger.run_id == opponent.run_id:
        verdict = "the same model"
    elif difference.decided and difference.value > 0:
        verdict = "better"
    elif _not_worse(difference, rule.margin) and _is_cheaper(challenger, opponent, rule.cheaper):
        verdict = "non-inferior and cheaper"
    wins = verdict not in ("not shown better", "not comparable")
    text = _text(difference, verdict, challenger, opponent, rule)
    if incomparable:
        text = f"{verdict}, against {opponent.label}: {incomparable}"
    saved = 1 - _macs(challenger) / opponent.macs if opponent.macs else None
    return ChallengerComparison(
        opponent.label, difference, saved, wins, verdict, "; note: ".join([text, *notes])
    )


def _macs(challenger: Contestant) -> int:
    assert challenger.macs is not None, "a candidate's networks are at hand, and are counted"
    return challenger.macs


def _is_cheaper(challenger: Contestant, opponent: Contestant, share: float) -> bool:
    """Whether the challenger saves this share of the opponent's multiply-accumulates; False where those are unknown."""
    if not opponent.macs:
        return False
    return _macs(challenger) <= (1 - share) * opponent.macs


def _difference(challenger: Contestant, opponent: Contestant, windows: ContestWindows) -> Difference:
    """The pool's, with a column for each evaluation subset where there are several (as in reports)."""
    ours, theirs = np.asarray(challenger.correct), np.asarray(opponent.correct)
    difference = paired_cluster_bootstrap(ours, theirs, windows.clusters)
    of = np.asarray([] if windows.subsets is None else windows.subsets)
    names = np.asarray(windows.clusters)
    found = np.unique(of).tolist()
    if len(found) < 2:
        return difference
    columns = tuple(
        (one, paired_cluster_bootstrap(ours[of == one], theirs[of == one], names[of == one])) for one in found
    )
    return replace(difference, columns=columns)


def _not_worse(difference: Difference, margin: float) -> bool:
    """Whether pool and every evaluation subset that tells anything lie above -margin, and one tells something."""
    parts = [difference, *(column for _, column in difference.telling)]
    shown = not difference.columns or len(parts) > 1
    return shown and difference.clusters >= FEW_CLUSTERS and all(one.low > -margin for one in parts)


def _text(
    difference: Difference, verdict: Verdict, challenger: Contestant, opponent: Contestant, rule: ChampionRule
) -> str:
    theirs = f"{_count(opponent.macs)}" if opponent.macs else "an unknown number"
    shown = (
        f"{verdict}, against {opponent.label}: {100 * difference.value:+.1f} points "
        f"[{100 * difference.low:+.1f}, {100 * difference.high:+.1f}], {difference.clusters} clusters, "
        f"{difference.windows} windows; {_count(_macs(challenger))} MACs a window against {theirs}"
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
