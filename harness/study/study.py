"""A sweep's life in Optuna: opened by name, resumed, read."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from filelock import BaseFileLock, FileLock

from data.errors import nearest
from data.plugins import load_plugins
from harness.config.search_space import SearchSpace
from harness.config.sweep import Sweep
from harness.core.errors import InputError, RefusedError
from harness.core.failpoints import failpoint
from harness.study.sampling.samplers import pruner_of
from harness.study.storage.record import Record
from harness.study.trials import TrialSummary, best_of, spent, summary_of

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage

NOT_RECORDED = "not recorded"


class StudyError(InputError):
    """A study that does not exist, or that cannot go on as it is; the message says what to do."""


class DataChangedError(RefusedError, StudyError):
    """The windows of a study are no longer the ones its trials were judged on."""


@dataclass
class Study:
    """A study in the record; its one writer is the coordinator that holds its lock.

    sweep, space : the definition that it was begun with, and what that searches
    optuna_study, storage : the same study as Optuna has it, and the journal it is read from
    resumed : whether it was there before it was opened
    note : for people, where it runs under another name than its file says
    lock : None in a study that is only read
    """

    name: str
    sweep: Sweep
    space: SearchSpace
    optuna_study: optuna.Study
    storage: BaseStorage
    resumed: bool
    note: str = ""
    lock: BaseFileLock | None = None

    @property
    def identity(self) -> str:
        """What tells this study from all others of its name, on a server that many records share."""
        return str(self.optuna_study.user_attrs["identity"])

    def release(self) -> None:
        """Let others run this study; without a lock nothing happens."""
        if self.lock is not None:
            self.lock.release()

    def trials(self) -> list[TrialSummary]:
        """Every trial, in order of its number, as it stands now."""
        return [summary_of(trial) for trial in self.optuna_study.get_trials(deepcopy=False)]

    def trial(self, number: int) -> TrialSummary:
        """The trial of this number; IndexError where there is none."""
        return summary_of(self.optuna_study.get_trials(deepcopy=False)[number])

    def spent(self) -> int:
        """Trials that count against the budget: all but duplicates and those that never started."""
        return spent(self.trials())

    def best(self) -> TrialSummary | None:
        """The complete trial of the highest score; of equals the first."""
        return best_of(self.trials())

    def describe(
        self, audits: list[dict[str, Any]], code: Mapping[str, str], skipped: list[dict[str, str]]
    ) -> None:
        """Remember what reports will say of the study; what is the same already is not written again.

        Parameters
        ----------
        audits : of the data configurations, as JSON: {"config", "manifests", ...} each
        code : tags of a run that name the version of the code
        skipped : front ends that cannot be computed here, as `skipped_front_ends` gives them
        """
        for key, value in (("audits", audits), ("code", dict(code)), ("skipped", skipped)):
            plain = json.loads(json.dumps(value))
            if self.optuna_study.user_attrs.get(key) != plain:
                self.optuna_study.set_user_attr(key, plain)

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What the study remembers. Read it only: it is no copy, which takes 2 ms for each of 10,000 trials."""
        return self.storage.get_study_user_attrs(self._id)

    @cached_property
    def _id(self) -> int:
        return self.storage.get_study_id_from_name(self.name)

    def trial_id(self, number: int) -> int:
        """The id by which the storage knows a trial of this study: unique in the journal, which studies share."""
        return self.storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def manifests_of(self, data: str) -> Mapping[str, str]:
        """Digest of each split's manifest under the data configuration of this digest.

        Raises
        ------
        DataChangedError
            The study knows no such configuration: another version of the harness described it.
        """
        known: dict[str, dict[str, str]] = self.optuna_study.user_attrs.get("manifests", {})
        if data not in known:
            raise DataChangedError(
                f"study {self.name} was prepared by another version of the harness (data {data[:12]} is unknown to "
                "it): use that version, or run the sweep again under another --name"
            )
        return known[data]

    def check_manifests(self, digests: Mapping[str, Mapping[str, str]]) -> None:
        """Remember which windows the study is judged on, or refuse others.

        Raises
        ------
        DataChangedError
            The corpus gives other windows than when the study began.
        """
        known: dict[str, dict[str, str]] = self.optuna_study.user_attrs.get("manifests", {})
        for config, splits in digests.items():
            for split, digest in splits.items():
                before = known.get(config, {}).get(split, digest)
                if before != digest:
                    raise DataChangedError(
                        f"the {split} windows of study {self.name} have changed: digest {digest[:12]} now, "
                        f"{before[:12]} when it began. Its scores would not compare: restore the corpus, "
                        f"or start a new study with --name"
                    )
        self.optuna_study.set_user_attr("manifests", {**known, **{k: dict(v) for k, v in digests.items()}})


def open_study(record: Record, sweep: Sweep) -> Study:
    """The study of this sweep, locked: resumed where the definition is unchanged, else NAME, NAME-2, ...

    Raises
    ------
    RecordError
        Another coordinator runs it; nothing of it was touched.
    """
    import optuna

    digest = sweep.digest()
    with FileLock(record.locks / "studies.lock"):
        storage = record.storage()
        existing = _attributes(storage)
        name, count = sweep.name, 1
        while name in existing and existing[name].get("sweep_digest", digest) != digest:
            count += 1
            name = f"{sweep.name}-{count}"
        lock = record.lock_study(name)
        study = optuna.create_study(
            study_name=name,
            storage=storage,
            direction="maximize",
            load_if_exists=True,
            pruner=pruner_of(sweep),
        )
        failpoint("study.created")
        if "identity" not in study.user_attrs:
            study.set_user_attr("identity", uuid.uuid4().hex)
        study.set_user_attr("sweep", json.loads(sweep.model_dump_json(by_alias=True)))
        failpoint("study.described")
        study.set_user_attr("sweep_digest", digest)  # last: a study without it was killed while being made
    note = f"{sweep.name} exists with another definition: this one is {name}" if count > 1 else ""
    return Study(
        name, sweep, SearchSpace(sweep), study, storage, resumed=name in existing, note=note, lock=lock
    )


def load_study(record: Record, name: str) -> Study:
    """An existing study, for reading.

    Raises
    ------
    StudyError
        There is none of this name; the nearest is named.
    """
    import optuna

    load_plugins()  # what its sweep names may be a plug-in's, whose own error is told better than pydantic would
    storage = record.require().storage()
    names = _complete(_attributes(storage))
    if name not in names:
        near = nearest(name, names)
        hint = f"did you mean {near}?" if near else f"there is {', '.join(sorted(names)) or 'none yet'}"
        raise StudyError(f"no study is called {name!r} in {record.root}; {hint}")
    study = optuna.load_study(study_name=name, storage=storage)
    sweep = Sweep.model_validate(study.user_attrs["sweep"])
    return Study(name, sweep, SearchSpace(sweep), study, storage, resumed=True)


def study_of(record: Record, sweep: Sweep) -> str:
    """Name of the study that runs this very definition, by its digest; of several the newest.

    Raises
    ------
    StudyError
        No study does: the file was never run, or was edited since.
    """
    digest = sweep.digest()
    studies = _attributes(record.require().storage())
    names = [name for name, attributes in studies.items() if attributes.get("sweep_digest") == digest]
    if not names:
        raise StudyError(
            f"no study in {record.root} runs this sweep ({sweep.name}) as it stands: run it first"
        )
    return names[-1]


def study_names(record: Record) -> list[str]:
    """Names of all studies, oldest first."""
    return names_in(record.require().storage())


def names_in(storage: BaseStorage) -> list[str]:
    """Names of all studies of a storage that is open, oldest first; without those killed while they were made."""
    return _complete(_attributes(storage))


def _attributes(storage: BaseStorage) -> dict[str, dict[str, Any]]:
    """What each study remembers, by its name: `optuna.get_all_study_summaries` copies all trials, for seconds."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return {study.study_name: study.user_attrs for study in storage.get_all_studies()}


def _complete(studies: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [name for name, attributes in studies.items() if "sweep_digest" in attributes]


def audit_of(study: Study, trial: TrialSummary) -> Mapping[str, Any]:
    """What the study remembers of the data that a trial saw; empty where it does not."""
    for audited in study.attributes.get("audits", ()):
        if audited["config"] == trial.config.get("data"):
            found: Mapping[str, Any] = audited
            return found
    return {}


def manifests_of(study: Study, trial: TrialSummary) -> Mapping[str, str]:
    """Manifest digest of each split that a trial saw; empty where the study does not know."""
    if audited := audit_of(study, trial):
        return dict(audited["manifests"])
    known: dict[str, dict[str, str]] = study.attributes.get("manifests", {})
    return next(iter(known.values())) if len(known) == 1 else {}
