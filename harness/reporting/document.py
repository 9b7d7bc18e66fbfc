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
    """A complete trial among those that were judged on the same windows; epochs count from 1.

    Attributes
    ----------
    rank : its place by score, from 1
    parameters : those that were searched
    score, low, high : validation balanced accuracy with its 95 % interval, in [0, 1]
    windows, clusters : of the validation set; the interval rests on the clusters
    peak_epoch : whose weights are kept
    seconds : wall time from its start to its end; None where Optuna does not know both
    macs : multiply-accumulates of a window; None for a configuration of another version
    final_train, final_val : balanced accuracy of the last epoch
    gap : training less validation at the peak
    to_best : its answers less the best one's, window by window; None of the best itself, of trials that rank too low
        to be compared, and where the answers are not to be had
    """

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
    """The trials that share one value of a parameter, by their best one.

    `complete` of them have a score; `others` were pruned or failed.
    """

    value: str
    complete: int
    others: int
    best: Row


@dataclass(frozen=True)
class GroupTable:
    """One searched parameter's values side by side, by the score of their best trial, highest first."""

    parameter: str
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Transfer:
    """Two training subsets on one evaluation subset (`column`): the better row of the matrix less the next one."""

    column: str
    better: str
    other: str
    difference: Difference


@dataclass(frozen=True)
class Leaderboard:
    """Trials judged on the same validation windows, ranked.

    Attributes
    ----------
    val_digest : of the manifest of those windows
    compared : complete and pruned trials among which the best was chosen
    luck : how much of the best score is expected to be luck; None where every window is right, or none is
    matrix : None where there is but one training and one evaluation subset
    qualified : sentences on what limits every score here
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
    """The bests of two studies: a difference where they saw the same windows, else what differs and advice.

    Attributes
    ----------
    other : name of the other study
    ours, theirs : a text each: study, trial and score
    difference : ours less theirs; None where `refusal` says why
    differing : what, ours, theirs
    """

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
    """All that a report shows.

    Attributes
    ----------
    created : ISO 8601, UTC
    asked : the sweep as its file says it
    code : versions of the code and the machine
    data : each data configuration, as the study remembers its audit
    counts : trials by state
    boards : one for each set of validation windows, the one of most trials first
    incomplete : trials that were pruned, failed, repeated others or have not ended, each with its reason
    skipped : front ends whose file was missing at the last launch: feature, data, path and reason
    evaluations : results on whole meetings, by protocol digest
    notes : sentences on what the report could not do
    against : the other study, if it is held against one
    """

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
        """A copy with more notes behind its own."""
        return replace(self, notes=(*self.notes, *notes))

    def as_json(self) -> dict[str, Any]:
        """The fields of report.json, but for the summary and the rules that the page adds."""
        against = self.against.as_json() if self.against else None
        return {**asdict(self), "boards": [board_json(board) for board in self.boards], "against": against}


def board_json(board: Leaderboard) -> dict[str, Any]:
    """A board's fields as JSON: trials by number, differences with their verdicts, the matrix as in matrix.json."""
    rows = [{**asdict(row), "to_best": _difference_json(row.to_best)} for row in board.rows]
    groups = [
        {
            "parameter": table.parameter,
            "groups": [{**asdict(one), "best": one.best.trial} for one in table.groups],
        }
        for table in board.groups
    ]
    return {
        **asdict(board),
        "rows": rows,
        "groups": groups,
        "best": board.best.trial,
        "discounted": board.discounted,
        "matrix": board.matrix.as_json() if board.matrix else None,
        "transfers": [{**asdict(one), "difference": one.difference.as_json()} for one in board.transfers],
    }


def _difference_json(difference: Difference | None) -> dict[str, Any] | None:
    return difference.as_json() if difference else None
