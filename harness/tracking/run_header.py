"""What a trial's run shows in MLflow: its name, parameters, datasets, tags, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from harness.config.trial.trial_config import TrialConfig

if TYPE_CHECKING:
    from data.preparation.prepare import Prepared


def trial_header(
    number: int, name: str, config: TrialConfig, prepared: Prepared, seed: int, tags: Mapping[str, str]
) -> dict[str, Any]:
    """What is known before the training: the content of a spool's trial.json.

    `tags` are those of the launch (its code, its machine); a tag of the trial itself stands over one of the same name.
    """
    return {
        "label_shares": label_shares(prepared),
        "number": number,
        "run_name": name,
        "time_ms": int(time.time() * 1000),  # the run's start, also where MLflow hears of it later
        "tags": {**tags, **_trial_tags(number, config, prepared)},
        "params": _trial_params(config, prepared, seed),
        "datasets": datasets_of(prepared),
    }


def _trial_tags(number: int, config: TrialConfig, prepared: Prepared) -> dict[str, str]:
    """What the run says of itself, to be searched for: its kind, its fingerprint, what its data are."""
    kind = {"harness.kind": "trial", "harness.trial": str(number)}
    if config.control:
        kind = {"harness.kind": "control", "harness.control": config.control}
    return {
        **kind,
        "harness.fingerprint": config.fingerprint(),
        "harness.state": "running",
        "harness.split_rule": prepared.split_rule,
        "harness.flags": "; ".join(prepared.flags),
        "harness.label_map": prepared.label_map.digest,
        **external_tags([config]),
    }


def _trial_params(config: TrialConfig, prepared: Prepared, seed: int) -> dict[str, Any]:
    """What the run was trained with: every value of the configuration, the seed, the digest of each split."""
    digests = {f"digest.{split}": part.manifest.digest for split, part in sorted(prepared.splits.items())}
    return {**config.flat(), "seed": seed, **digests}


def external_weights(configs: Iterable[TrialConfig]) -> list[str]:
    """Name the weights of others that a model of these members holds, such as `xvector 0123456789ab`, each once."""
    found = [config.feature.external_data for config in configs]
    return list(dict.fromkeys(name for name in found if name is not None))


def external_tags(configs: Iterable[TrialConfig]) -> dict[str, str]:
    """The tag that marks a run, a promotion or a registered version as holding weights of others."""
    weights = external_weights(configs)
    return {"harness.external_data": "; ".join(weights)} if weights else {}


def datasets_of(prepared: Prepared) -> list[dict[str, str]]:
    """The windows of a run as MLflow's datasets, one a split: name, digest of the manifest, source, profile, context.

    The profile is JSON: how many windows there are, and which share of them is of class 1.
    """
    data = prepared.config
    return [
        {
            "name": f"{data.corpus}-{data.subset if split == 'train' else '+'.join(data.evaluated)}",
            "digest": part.manifest.digest,
            "source": f"{data.corpus}/{data.task}/{data.variant}",
            "profile": f'{{"windows": {len(part.manifest)}, "share_1": {part.manifest.share_1:.4f}}}',
            "context": split,
        }
        for split, part in sorted(prepared.splits.items())
    ]


def label_shares(prepared: Prepared) -> dict[str, float]:
    """The share in [0, 1] of class 1 in each split, by the metric's name; a run that ends logs them."""
    return {f"labels/{name}/share_1": part.manifest.share_1 for name, part in sorted(prepared.splits.items())}


def run_name(number: int, values: Mapping[str, Any], searched: tuple[str, ...]) -> str:
    """A name that reads: `007 mfcc learning_rate=0.0012 epochs=8`.

    Only what the sweep searches is in it, floats with three digits; where it searches nothing, the feature.
    """
    parts = [f"{number:03d}"]
    for name in searched:
        if name not in values:
            continue
        value = values[name]
        shown = f"{value:.3g}" if isinstance(value, float) else str(value)
        parts.append(shown if name in ("feature", "subset") else f"{name.split('.')[-1]}={shown}")
    if len(parts) == 1:
        parts.append(str(values.get("feature", "mfcc")))
    return " ".join(parts)
