"""What a study says: its finished trials as one typed value. Pure: nothing is drawn, read or written here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.config.parameters import Choice
from harness.metrics.paired_comparison import Difference, paired_cluster_bootstrap
from harness.reporting.caveats import caveats_of
from harness.reporting.document import ARMS, Group, GroupTable, Leaderboard, Report, Row, Transfer
from harness.reporting.learning_curves import learning_curve_of
from harness.reporting.train_test_matrix import Matrix, matrix_of
from harness.study.controls import controls_of
from harness.study.ensembles import ensembles_of
from harness.study.leaderboard import comparable_trials, expected_optimism
from harness.study.skipped_front_ends import SKIPPED
from harness.study.study import NOT_RECORDED, Study, audit_of, manifests_of
from harness.study.trials import TrialSummary

# A searched parameter of at most this many values gets a table of its own.
MAX_GROUPS = 6
# Trials whose answers are held against the best one's, window by window.
MAX_COMPARED = 20


@dataclass(frozen=True)
class WindowCorrectness:
    """Which validation windows a trial got right.

    Attributes
    ----------
    correct, clusters, subsets : (window,) each, in the order of the manifest; subsets are None where they are not known
    speakers : how many people are in the windows of each subset, and of all as ""
    """

    correct: npt.NDArray[np.bool_]
    clusters: npt.NDArray[np.str_]
    subsets: npt.NDArray[np.str_] | None = None
    speakers: Mapping[str, int] = field(default_factory=dict)

    def difference_from(self, other: WindowCorrectness) -> Difference | None:
        """How much more often these are right, in all and by subset; None where the windows are not the same ones."""
        if not np.array_equal(self.clusters, other.clusters):
            return None
        found = paired_cluster_bootstrap(self.correct, other.correct, self.clusters)
        return replace(found, speakers=self.speakers.get(""), columns=self._columns(other))

    def _columns(self, other: WindowCorrectness) -> tuple[tuple[str, Difference], ...]:
        """The difference on each evaluation subset; none where there is but one."""
        names = [] if self.subsets is None else sorted(set(self.subsets.tolist()))
        if len(names) < 2:
            return ()
        parts = ((name, _minus(self.of(name), other.of(name))) for name in names)
        return tuple((name, part) for name, part in parts if part)

    def of(self, subset: str) -> WindowCorrectness | None:
        """Those on the windows of one evaluation subset; None where windows do not know theirs."""
        if self.subsets is None or not (self.subsets == subset).any():
            return None
        chosen = self.subsets == subset
        speakers = {"": self.speakers[subset]} if subset in self.speakers else {}
        return WindowCorrectness(self.correct[chosen], self.clusters[chosen], self.subsets[chosen], speakers)


CorrectnessOf = Callable[[TrialSummary], WindowCorrectness | None]


def analyse(
    study: Study,
    answers: CorrectnessOf,
    *,
    created: str,
    evaluations: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Report:
    """What a study says, as one value; trials that were judged on different windows stand on boards of their own.

    Parameters
    ----------
    answers : of a trial on its validation windows; None where they are not to be had
    created : ISO 8601
    evaluations : results on whole meetings, by protocol digest, then one mapping a trial
    """
    answers = with_speakers(study, answers)
    trials = [trial for trial in study.trials() if trial.state != "abandoned"]
    complete = [trial for trial in trials if trial.state == "complete" and trial.outcome]
    digests = {trial.number: manifests_of(study, trial).get("val", NOT_RECORDED) for trial in trials}
    found = sorted({digests[trial.number] for trial in complete})
    boards = [
        _board(study, [trial for trial in trials if digests[trial.number] == digest], digest, answers)
        for digest in found
    ]
    boards.sort(key=lambda board: (-len(board.rows), board.val_digest))
    if len(boards) > 1:
        shown = ", ".join(board.val_digest[:12] for board in boards)
        split = (
            f"The trials were judged on {len(boards)} different sets of validation windows ({shown}): each has a table "
            "of its own, and none ranks against another's. Set data.evaluate_on to judge all on the same."
        )
        notes = [*notes, split]
    states = [trial.state for trial in trials]
    return Report(
        study=study.name,
        created=created,
        asked=study.sweep.model_dump(mode="json", by_alias=True, exclude_none=True),
        code=study.optuna_study.user_attrs.get("code", {}),
        data=tuple(study.optuna_study.user_attrs.get("audits", ())),
        counts={state: states.count(state) for state in sorted(set(states))},
        boards=tuple(boards),
        ensembles=tuple(one.as_json() for one in ensembles_of(study)),
        incomplete=tuple(_incomplete(trial) for trial in trials if trial.state not in ("complete", SKIPPED)),
        skipped=tuple(study.optuna_study.user_attrs.get("skipped", ())),
        controls=tuple({**one.as_json(), "text": str(one)} for one in controls_of(study)),
        evaluations=evaluations or {},
        notes=tuple(notes),
    )


def with_speakers(study: Study, answers: CorrectnessOf) -> CorrectnessOf:
    """The same answers, which know how many speakers the validation windows are of, where the study does."""

    def known(trial: TrialSummary) -> WindowCorrectness | None:
        found, counted = answers(trial), audit_of(study, trial).get("evidence", {}).get("val", {})
        speakers = {name: int(of["speakers"]) for name, of in counted.items()}
        return replace(found, speakers=speakers) if found else None

    return known


def _board(study: Study, trials: list[TrialSummary], digest: str, answers: CorrectnessOf) -> Leaderboard:
    """The trials of one set of validation windows, ranked; each one's answers are read once at most."""
    complete = [trial for trial in trials if trial.state == "complete" and trial.outcome]
    ranked = sorted(complete, key=lambda trial: (-(trial.score or 0.0), trial.number))
    held: dict[int, WindowCorrectness | None] = {}

    def answered(trial: TrialSummary) -> WindowCorrectness | None:
        if trial.number not in held:
            held[trial.number] = answers(trial)
        return held[trial.number]

    times = _seconds(study)
    first = answered(ranked[0])
    rows = []
    for rank, trial in enumerate(ranked, 1):
        row = _row(study, trial, rank, times.get(trial.number))
        theirs = answered(trial) if 1 < rank <= MAX_COMPARED else None
        rows.append(replace(row, to_best=theirs.difference_from(first) if theirs and first else None))
    compared = len(comparable_trials(study, ranked[0]))
    by_number = {trial.number: trial for trial in ranked}

    def compared_with_best(group: Group) -> Group:
        """The best of a group may rank below the rows that were compared."""
        if group.best.to_best or group.best.rank == 1:
            return group
        to_best = _minus(answered(by_number[group.best.trial]), first)
        return replace(group, best=replace(group.best, to_best=to_best))

    grouped = [
        replace(table, groups=tuple(map(compared_with_best, table.groups)))
        for table in _groups(study, trials, rows)
    ]
    matrix = matrix_of(complete)
    transfers = _transfers(matrix, lambda number: answered(by_number[number])) if matrix else ()
    return Leaderboard(
        val_digest=digest,
        rows=tuple(rows),
        compared=compared,
        luck=expected_optimism(ranked[0], compared),
        groups=tuple(grouped),
        matrix=matrix,
        transfers=transfers,
        qualified=caveats_of(study, complete),
    )


def _minus(ours: WindowCorrectness | None, theirs: WindowCorrectness | None) -> Difference | None:
    return ours.difference_from(theirs) if ours and theirs else None


def _row(study: Study, trial: TrialSummary, rank: int, seconds: float | None) -> Row:
    outcome, interval = trial.outcome, trial.outcome["interval"]
    curve, at_best = learning_curve_of(outcome), outcome.get("at_best", {})
    return Row(
        rank=rank,
        trial=trial.number,
        name=trial.name.partition(" ")[2] or trial.name,
        parameters={name: trial.values[name] for name in study.space.searched if name in trial.values},
        score=float(trial.score or 0.0),
        low=interval["low"],
        high=interval["high"],
        windows=interval["windows"],
        clusters=interval["clusters"],
        epochs=trial.epochs,
        peak_epoch=int(outcome["best_epoch"]) + 1,
        seconds=seconds,
        macs=_macs(trial),
        final_train=curve.train[-1] if curve and curve.train else None,
        final_val=curve.val[-1] if curve else None,
        gap=at_best.get("gap"),
        findings=curve.findings(interval["n_eff"], at_best.get("val/predicted_positive")) if curve else (),
        to_best=None,
        curve=curve,
    )


def _groups(study: Study, trials: list[TrialSummary], rows: list[Row]) -> list[GroupTable]:
    """A table for each searched parameter of few values that split these trials; subset and front end first."""
    forms = study.space.parameters
    wanted = [name for name in study.space.searched if name in ARMS or _is_small(forms[name])]
    tables = []
    for name in sorted(wanted, key=lambda one: (one not in ARMS, one == "feature")):
        by_value: dict[str, list[Row]] = {}
        for row in rows:  # in rank order: the first of a value is its best
            if name in row.parameters:
                by_value.setdefault(str(row.parameters[name]), []).append(row)
        ended = [trial for trial in trials if trial.state in ("pruned", "failed")]
        stopped = [str(trial.values[name]) for trial in ended if name in trial.values]
        groups = [Group(value, len(of), stopped.count(value), of[0]) for value, of in by_value.items()]
        if groups:
            tables.append(GroupTable(name, tuple(groups)))
    return tables


def _is_small(form: Any) -> bool:
    return isinstance(form, Choice) and form.size is not None and form.size <= MAX_GROUPS


def _transfers(matrix: Matrix, answers: Callable[[int], WindowCorrectness | None]) -> tuple[Transfer, ...]:
    """In each column the best training subset against the next one, window by window."""
    found = []
    for at, column in enumerate(matrix.columns):
        scored = [(row, cell) for row in matrix.rows if (cell := row.cells[at]) is not None]
        scored.sort(key=lambda one: (-one[1].value, one[0].subset))
        if len(scored) < 2:
            continue
        (first, _), (second, _) = scored[:2]
        ours, theirs = answers(first.trial), answers(second.trial)
        parts = (ours.of(column), theirs.of(column)) if ours and theirs else (None, None)
        difference = _minus(*parts)
        if difference is not None and difference.value < 0:  # classes need not be balanced within a subset
            first, second, difference = second, first, difference.reversed()
        if difference is not None:
            found.append(Transfer(column, first.subset, second.subset, difference))
    return tuple(found)


def _incomplete(trial: TrialSummary) -> dict[str, Any]:
    reason = trial.reason or {
        "running": "it is running",
        "interrupted": "the next launch goes on with it",
    }.get(trial.state, "no reason recorded")
    name = trial.name.partition(" ")[2] or trial.name
    return {
        "trial": trial.number,
        "name": name,
        "state": trial.state,
        "epochs": trial.epochs,
        "score": trial.score,
        "reason": reason,
    }


def _macs(trial: TrialSummary) -> int | None:
    """Multiply-accumulates of a window; None for a configuration of another version."""
    from pydantic import ValidationError

    from harness.config.cost import window_macs
    from harness.config.trial.trial_config import TrialConfig

    try:
        return window_macs(TrialConfig.from_record(trial.config))
    except (ValidationError, AttributeError, NotImplementedError):
        return None


def _seconds(study: Study) -> dict[int, float]:
    """Wall time of each trial, from its start to its end."""
    found = {}
    for trial in study.optuna_study.get_trials(deepcopy=False):
        if trial.duration is not None:
            found[trial.number] = trial.duration.total_seconds()
    return found
