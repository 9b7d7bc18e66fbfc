"""A sampler in one file: a Halton sequence, which fills a space of numbers evenly.

sampler: halton
"""

from __future__ import annotations

import warnings
from typing import ClassVar

from optuna.samplers import BaseSampler, QMCSampler
from optuna.storages import BaseStorage

from harness.config.search_rules import SAMPLERS, Sampler


class Halton(Sampler):
    """It has no fields of its own."""

    builder: ClassVar[str] = "sampler_example:build"


def build(rule: Halton, seed: int, workers: int, storage: BaseStorage) -> BaseSampler:
    """Make the sampler of one trial; which point of the sequence comes next, Optuna keeps with the study."""
    del rule, workers, storage
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna marks it as experimental
        return QMCSampler(
            qmc_type="halton", seed=seed, warn_asynchronous_seeding=False, warn_independent_sampling=False
        )


SAMPLERS["halton"] = Halton
