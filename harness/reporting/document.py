"""What a report says, as frozen values: rows, groups, boards, the report itself. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from harness.metrics.few_clusters import FEW_CLUSTERS
from harness.metrics.paired_comparison import Difference
from harness.reporting.learning_curves import CurveFinding, LearningCurve
from harness.reporting.train_test_matrix import Matrix

# Parameters that a study is about: each value has a table row and a learning curve, however many there are.
ARMS = ("subset", "feature")


@dataclass(frozen=True)
class Row:
    """A complete trial among those that were judged on the same windows; epochs count from 1."""

    rank: int
    trial: int
    name: str
    parameters: Mapping[str, Any]
    score: float
    low: float
    high: float
    windows: int
    clusters: int
    epochs: int
    peak_epoch: int
    seconds: float | None
    macs: int | None
    final_train: float | None
    final_val: float | None
    gap: float | None
    findings: tuple[CurveFinding, ...]
    to_best: Difference | None
    curve: LearningCurve | None

    @property
    def few_clusters(self) -> bool:
        """Whether the interval rests on too few clusters to count as evidence."""
        return self.clusters < FEW_CLUSTERS


@dataclass(frozen=True)
class Group:
    """The trials that share one value of a parameter, by their best one."""

    value: str
    complete: int
    others: int
    best: Row


@dataclass(frozen=True)
class GroupTable:
    """One parameter's values side by side, best first."""

    parameter: str
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Transfer:
    """Two training subsets on one evaluation subset: the better row of the matrix less the next one."""

    column: str
    better: str
    other: str
    difference: Difference


@dataclass(frozen=True)
class Leaderboard:
    """Trials judged on the same validation windows, ranked.

    `luck` is the predicted optimism of the best; `qualified` says what limits every score here.
    """

    val_digest: str
    rows: tuple[Row, ...]
    compared: int
    luck: float | None
    groups: tuple[GroupTable, ...]
    matrix: Matrix | None
    transfers: tuple[Transfer, ...]
    qualified: tuple[str, ...] = ()

    @property
    def best(self) -> Row:
        """The highest score; of equals the first trial."""
        return self.rows[0]

    @property
    def discounted(self) -> float | None:
        """The best score less what of it is expected to be luck."""
        return None if self.luck is None else self.best.score - self.luck


@dataclass(frozen=True)
class StudyComparison:
    """The bests of two studies: a difference where they saw the same windows, else what differs and advice."""

    other: str
    ours: str
    theirs: str
    difference: Difference | None
    refusal: str
    advice: str
    differing: tuple[tuple[str, str, str], ...]

    def as_json(self) -> dict[str, Any]:
        """Every field, the difference with its verdict."""
        return {**asdict(self), "difference": _difference_json(self.difference)}


@dataclass(frozen=True)
class Report:
    """All that a report shows."""

    study: str
    created: str
    asked: Mapping[str, Any]
    code: Mapping[str, str]
    data: tuple[Mapping[str, Any], ...]
    counts: Mapping[str, int]
    boards: tuple[Leaderboard, ...]
    ensembles: tuple[Mapping[str, Any], ...]
    incomplete: tuple[Mapping[str, Any], ...]
    skipped: tuple[Mapping[str, Any], ...]
    controls: tuple[Mapping[str, Any], ...]
    evaluations: Mapping[str, Sequence[Mapping[str, Any]]]
    notes: tuple[str, ...]
    against: StudyComparison | None = None

    def with_notes(self, notes: Sequence[str]) -> Report:
        """The report with more notes."""
        return replace(self, notes=(*self.notes, *notes))

    def as_json(self) -> dict[str, Any]:
        """The content of report.json."""
        against = self.against.as_json() if self.against else None
        return {**asdict(self), "boards": [board_json(board) for board in self.boards], "against": against}


def board_json(board: Leaderboard) -> dict[str, Any]:
    """A board's fields, with the best and the matrix as other documents have them."""
    rows = [{**asdict(row), "to_best": _difference_json(row.to_best)} for row in board.rows]
    groups = [
        {
            "parameter": table.parameter,
            "groups": [{**asdict(one), "best": one.best.trial} for one in table.groups],
        }
        for table in board.groups
    ]
    return {
        **asdict(board), "rows": rows, "groups": groups, "best": board.best.trial, "discounted": board.discounted,
        "matrix": board.matrix.as_json() if board.matrix else None,
        "transfers": [{**asdict(one), "difference": one.difference.as_json()} for one in board.transfers],
    }  # fmt: skip


def _difference_json(difference: Difference | None) -> dict[str, Any] | None:
    return difference.as_json() if difference else None
