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
    """What is known before the training: the content of a spool's trial.json."""
    kind = {"harness.kind": "trial", "harness.trial": str(number)}
    if config.control:
        kind = {"harness.kind": "control", "harness.control": config.control}
    own = {
        **kind,
        "harness.fingerprint": config.fingerprint(),
        "harness.state": "running",
        "harness.split_rule": prepared.split_rule,
        "harness.flags": "; ".join(prepared.flags),
        "harness.label_map": prepared.label_map.digest,
    }
    own |= external_tags([config])
    digests = {f"digest.{split}": part.manifest.digest for split, part in sorted(prepared.splits.items())}
    params = {**config.flat(), "seed": seed, **digests}
    return {
        "label_shares": label_shares(prepared),
        "number": number,
        "run_name": name,
        "time_ms": int(time.time() * 1000),  # the run's start, also where MLflow hears of it later
        "tags": {**tags, **own},
        "params": params,
        "datasets": datasets_of(prepared),
    }


def external_weights(configs: Iterable[TrialConfig]) -> list[str]:
    """Name the weights of others that a model of these members holds, such as `xvector 0123456789ab`, each once."""
    found = [config.feature.external_data for config in configs]
    return list(dict.fromkeys(name for name in found if name is not None))


def external_tags(configs: Iterable[TrialConfig]) -> dict[str, str]:
    """The tag that marks a run, a promotion or a registered version as holding weights of others."""
    weights = external_weights(configs)
    return {"harness.external_data": "; ".join(weights)} if weights else {}


def datasets_of(prepared: Prepared) -> list[dict[str, str]]:
    """The windows of a run, a dataset a split."""
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
    """The share of class 1 in each split, as metrics of the run's end."""
    return {f"labels/{name}/share_1": part.manifest.share_1 for name, part in sorted(prepared.splits.items())}


def run_name(number: int, values: Mapping[str, Any], searched: tuple[str, ...]) -> str:
    """A name that reads: `007 mfcc learning_rate=1.2e-3 epochs=8`."""
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
