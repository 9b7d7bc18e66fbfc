"""Attributes of a trial in one append to the study's journal: each append is a lock, an fsync and a reading back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.study import Study

if TYPE_CHECKING:
    import optuna


def set_attributes(study: Study, trial: optuna.Trial, attributes: Mapping[str, Any]) -> None:
    """Write them in their order: a kill leaves the first of them, or none; never a later one without those before."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal._storage import JournalOperation

    storage = study.storage
    assert isinstance(storage, JournalStorage)
    with storage._thread_lock:
        common = {
            "op_code": JournalOperation.SET_TRIAL_USER_ATTR,
            "worker_id": storage._replay_result.worker_id,
            "trial_id": trial._trial_id,
        }
        storage._backend.append_logs(
            [{**common, "user_attr": {name: value}} for name, value in attributes.items()]
        )
        storage._sync_with_backend()
    trial._cached_frozen_trial.user_attrs.update(attributes)
