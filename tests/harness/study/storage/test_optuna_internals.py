"""The private parts of Optuna: each is named here, and this test says what to mend where one has changed."""

import re
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.pruners import HyperbandPruner, SuccessiveHalvingPruner
from optuna.samplers import TPESampler
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.trial import TrialState

import harness.study.storage.optuna_internals as internals
from harness.study.sampling.bounded_tpe import BEST, _FewTrials
from harness.study.storage.record import Record

ROOT = Path(__file__).parents[4]
ADAPTER = "harness/study/storage/optuna_internals.py"
OPERATIONS = (
    "CREATE_STUDY", "DELETE_STUDY", "SET_STUDY_USER_ATTR", "SET_STUDY_SYSTEM_ATTR", "CREATE_TRIAL", "SET_TRIAL_PARAM",
    "SET_TRIAL_STATE_VALUES", "SET_TRIAL_INTERMEDIATE_VALUE", "SET_TRIAL_USER_ATTR", "SET_TRIAL_SYSTEM_ATTR",
    "DISCARD_TRIALS",
)  # fmt: skip
PRIVATE = re.compile(
    r"(from|import) optuna[\w.]*\._\w|from optuna[\w.]* import .*\b_\w|\boptuna[\w.]*\._[a-z]"
    r"|\b(study|optuna_study|trial|frozen|twin|one|storage|sampler|pruner|backend|result)\._[a-z]"
)


@pytest.fixture
def storage(record: Record) -> JournalStorage:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return record.storage()


def has(owner: Any, name: str, mend: str) -> Any:
    assert hasattr(owner, name), (
        f"Optuna {optuna.__version__} has no {owner}.{name} any more: mend {mend} in {ADAPTER}"
    )
    return getattr(owner, name)


def test_kinds_of_lines_are_the_ones_that_journals_hold() -> None:
    found = {one.name: int(one) for one in internals.Operation}
    mend = (
        f"Optuna numbers its journal's lines anew: mend Operation in {ADAPTER}, and read old journals still"
    )
    assert found == {name: code for code, name in enumerate(OPERATIONS)}, mend


def test_what_a_storage_has_read(storage: JournalStorage) -> None:
    study = optuna.create_study(study_name="s", storage=storage)
    number = study.ask().number
    result = has(storage, "_replay_result", "replayed")
    assert isinstance(result, internals.Replayed), f"mend Replayed in {ADAPTER}"
    for name, mend in (
        ("_trials", "trials_of"), ("_trial_id_to_study_id", "studies_of_trials"),
        ("log_number_read", "load in journal_reader"), ("apply_logs", "load in journal_reader"),
        ("_apply_set_trial_param", "its copy _set_param in journal_reader"),
        ("_apply_set_trial_state_values", "its copy _set_state in journal_reader"),
    ):  # fmt: skip
        has(result, name, mend)
    id_ = storage.get_trial_id_from_study_id_trial_number(0, number)
    assert internals.trials_of(internals.replayed(storage))[id_] is study.get_trials(deepcopy=False)[0]
    assert internals.studies_of_trials(result)[id_] == storage.get_study_id_from_name("s")


def test_a_trial_is_taken_on(storage: JournalStorage) -> None:
    study = optuna.create_study(study_name="s", storage=storage)
    number = study.ask().number
    id_ = storage.get_trial_id_from_study_id_trial_number(0, number)
    trial = internals.resumed_trial(study, id_)
    trial.report(0.5, 0)
    trial.set_user_attr("key", 1)
    study.tell(number, 0.5)
    (told,) = study.trials
    assert (told.intermediate_values, told.user_attrs, told.state) == (
        {0: 0.5},
        {"key": 1},
        TrialState.COMPLETE,
    ), f"mend resumed_trial in {ADAPTER}"


def test_rungs_and_brackets() -> None:
    study = optuna.create_study(study_name="s", direction="maximize", pruner=SuccessiveHalvingPruner(1))
    trial = study.ask()
    trial.report(0.5, 1)
    trial.should_prune()
    assert study.trials[0].system_attrs == {f"{internals.RUNG}0": 0.5}, f"mend RUNG in {ADAPTER}"
    pruner = HyperbandPruner(min_resource=1, max_resource=27, reduction_factor=3)
    for name in ("_n_brackets", "_try_initialization", "_get_bracket_id"):
        has(pruner, name, "bracket")
    frozen = [optuna.trial.create_trial(value=0.0) for _ in range(10)]
    for number, one in enumerate(frozen):
        one.number = number
    found = [internals.bracket(pruner, study, one) for one in frozen]
    assert found == [2, 1, 3, 3, 3, 2, 1, 1, 0, 0], (
        f"mend bracket in {ADAPTER}: the brackets were dealt otherwise"
    )


def test_tpe_is_what_bounded_tpe_takes_it_for() -> None:
    """Not private, but of Optuna 5.0.0: so many are its best, and it reads trials by `get_all_trials` only."""
    from optuna.samplers._tpe.sampler import default_gamma

    assert default_gamma(10**6) == BEST, (
        "Optuna's TPE takes another number of trials for the best: mend bounded_tpe"
    )
    storage, asked = InMemoryStorage(), []
    for shown in ([], None):
        study = optuna.create_study(direction="maximize", storage=storage)
        study.add_trials([optuna.trial.create_trial(
            params={"x": k / 40}, distributions={"x": optuna.distributions.FloatDistribution(0, 1)}, value=-k,
        ) for k in range(40)])  # fmt: skip
        view: Any = storage if shown is None else _FewTrials(storage, shown)
        sampler = TPESampler(seed=1, n_startup_trials=5)
        asked.append(optuna.load_study(study_name=study.study_name, storage=view, sampler=sampler))
    blind, seeing = (study.ask().suggest_float("x", 0, 1) for study in asked)
    empty = optuna.create_study(sampler=TPESampler(seed=1, n_startup_trials=5))
    assert blind == empty.ask().suggest_float("x", 0, 1) != seeing, (
        "TPE reads trials otherwise: mend _FewTrials"
    )


def test_no_other_module_names_a_private_part() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for folder in ("harness", "models", "data")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if path != ROOT / ADAPTER and PRIVATE.search(line)
    ]
    assert not found, f"private parts of Optuna stand in {ADAPTER} only:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "from optuna.storages.journal._storage import JournalOperation", "from optuna.trial import _state",
        "import optuna.study._frozen", "x = optuna.study._optimize.f", "id = trial._trial_id", "study._study_id",
        "self.study.optuna_study._storage", "storage._backend",
    ],
)  # fmt: skip
def test_such_lines_are_found(line: str) -> None:
    assert PRIVATE.search(line)
