"""Optuna's sampler and pruner of a sweep, as its file names them."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.config.search_rules import Pruner, Sampler
from harness.config.sweep import Sweep
from harness.config.trial.training_config import TrainingConfig
from harness.core.seeds import derived_seed

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage


def build_sampler(sweep: Sweep, number: int, workers: int, storage: BaseStorage) -> BaseSampler:
    """The sampler of one trial, seeded from (study seed, trial number): a resumed study repeats nothing."""
    seed = derived_seed("sampler", sweep.seed, number)
    sampler: BaseSampler = _builder(sweep.sampler.builder)(sweep.sampler, seed, workers, storage)
    return sampler


def build_pruner(pruner: Pruner, longest: int) -> BasePruner:
    """The pruner of this rule, where the longest trial trains `longest` epochs.

    It is shown smoothed values only (the median of the last three epochs): a score that jumps is no reason to stop.
    """
    built: BasePruner = _builder(pruner.builder)(pruner, longest)
    return built


def _builder(reference: str) -> Callable[..., Any]:
    module, _, name = reference.partition(":")
    builder: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return builder


def optuna_sampler(sampler: Sampler, seed: int, workers: int, storage: BaseStorage) -> BaseSampler:
    """Optuna's TPE (Bergstra et al. 2011), else its random one; of a grid it is asked only for what is not queued.

    The multivariate TPE learns which values go together, in groups of parameters that occur together (`when`). With
    more than one worker trials that still run count as bad ones, so that workers do not all try the same place.
    """
    from optuna.samplers import RandomSampler

    if sampler.type != "tpe":
        return RandomSampler(seed=seed)
    from harness.study.sampling.bounded_tpe import BoundedTPE

    with _experimental():  # multivariate and group are
        return BoundedTPE(
            storage,
            seed=seed,
            n_startup_trials=sampler.startup_trials,
            multivariate=True,
            group=True,
            constant_liar=workers > 1,
        )


@contextmanager
def _experimental() -> Iterator[None]:
    """In this block Optuna does not warn of what it marks as experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def optuna_pruner(pruner: Pruner, longest: int) -> BasePruner:
    """Optuna's pruner of this rule; steps are epochs, counted from 0. A rule of any other type prunes nothing.

    median compares with the median of the complete trials at the same epoch; patient does so only where a trial has not
    improved for `patience` epochs. halving is asynchronous (ASHA, Li et al. 2018), hyperband runs several of it.
    """
    from optuna.pruners import (
        HyperbandPruner,
        MedianPruner,
        NopPruner,
        PatientPruner,
        SuccessiveHalvingPruner,
    )

    if pruner.type in ("median", "patient"):
        median = MedianPruner(n_startup_trials=pruner.startup_trials, n_warmup_steps=pruner.warmup_epochs)
        if pruner.type == "median":
            return median
        with _experimental():
            return PatientPruner(median, patience=pruner.patience)
    if pruner.type == "halving":
        return SuccessiveHalvingPruner(
            min_resource=pruner.warmup_epochs, reduction_factor=pruner.reduction_factor
        )
    if pruner.type == "hyperband":
        return HyperbandPruner(
            min_resource=pruner.warmup_epochs,
            max_resource=max(longest, pruner.warmup_epochs),
            reduction_factor=pruner.reduction_factor,
        )
    return NopPruner()


def pruner_of(sweep: Sweep) -> BasePruner:
    """The pruner of a sweep's trials, for the most epochs that the sweep can ask of one."""
    return build_pruner(sweep.pruner, _longest(sweep))


def _longest(sweep: Sweep) -> int:
    epochs = sweep.parameters.get("epochs")
    default = TrainingConfig.model_fields["epochs"].default
    return max(int(value or 0) for value in (epochs.candidates() if epochs is not None else [default]))
