"""What limits the scores of a study, from what its data were counted to be: small subsets, few speakers, flags."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.metrics.few_clusters import FEW_CLUSTERS, few_clusters_note
from harness.study.study import Study, audit_of
from harness.study.trials import TrialSummary

# Flags of the data that say how little there is to a split: "val of other: fewer than 3 speakers". How many windows a
# subset has is in the sentence on the pool.
_SMALL = re.compile(r"^(train|val)\b.*\b(few|fewer|only)\b")


def caveats_of(study: Study, trials: Sequence[TrialSummary]) -> tuple[str, ...]:
    """Sentences on what these trials were judged and trained on, each once; none where nothing is small.

    The pool is that of the first trial: all of them were judged on the same windows.
    """
    audits = {str(one["data"]): one for trial in trials if (one := audit_of(study, trial))}
    found = [line for trial in trials[:1] if (line := _evaluated_on(trial.outcome.get("by_subset", {})))]
    for audited in audits.values():
        found += [line] if (line := _trained_on(audited)) else []
    flags = [flag for one in audits.values() for flag in one["flags"]]
    found += [f"Flag of the data: {flag}." for flag in flags if _SMALL.search(flag)]
    return tuple(dict.fromkeys(found))


def _evaluated_on(by_subset: Mapping[str, Mapping[str, Any]]) -> str:
    """What the pool of validation windows is made of; empty where it is no pool."""
    if len(by_subset) < 2:
        return ""
    parts = [
        f"{name} ({int(of['windows']):,} windows, K = {of['clusters']}{few_clusters_note(of['clusters'])})"
        for name, of in sorted(by_subset.items())
    ]
    return f"The validation windows are a pool of {', '.join(parts[:-1])} and {parts[-1]}: read the scores by subset."


def _trained_on(audited: Mapping[str, Any]) -> str:
    """How little a model of this data has heard; empty where it is neither few speakers nor far fewer windows."""
    classes = audited.get("histograms", {}).get("train", {}).values()
    windows, asked = sum(int(of["windows"]) for of in classes), audited["config"]["train_windows"]
    speakers = max((int(of["speakers"]) for of in classes), default=0)  # of the class with more of them
    if "evidence" in audited:
        speakers = int(audited["evidence"]["train"][""]["speakers"])
    if speakers >= FEW_CLUSTERS and windows >= asked / 2:
        return ""
    short = f" of the {asked:,} asked for" if windows < asked else ""
    return (
        f"Training on {audited['config']['subset']} has {windows:,} windows{short}, of {speakers} speakers."
    )
