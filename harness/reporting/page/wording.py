"""The words of a report: how numbers are written, and the sentences that its summary makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.metrics.paired_comparison import Difference
from harness.reporting.document import GroupTable, Leaderboard, Report, StudyComparison

# Settings of a sampler or pruner that its type listens to; the others have no effect.
HEARD = {
    "grid": (),
    "random": (),
    "tpe": ("startup_trials",),
    "none": (),
    "median": ("startup_trials", "warmup_epochs"),
    "hyperband": ("warmup_epochs", "reduction_factor"),
}


def share(value: float | None) -> str:
    """A share in [0, 1] to three places without its zero: .914; a dash where there is none."""
    if value is None:
        return "–"
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0.") else text


def signed(value: float | None) -> str:
    """A difference with its sign: +.016, −.120."""
    if value is None:
        return "–"
    return ("−" if value < 0 else "+") + share(abs(value))


def interval(low: float, high: float, *, difference: bool = False) -> str:
    """Ends in brackets; those of a difference with their signs."""
    shown = signed if difference else share
    return f"[{shown(low)}, {shown(high)}]"


def format_count(value: float | None) -> str:
    """A count for people: 85.3 M, 12.8 G; a dash where there is none."""
    if value is None:
        return "–"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:g}"


def digest(value: str) -> str:
    """The first twelve letters, as the command line prints digests."""
    return value[:12]


def cell(value: Any) -> str:
    """A text inside a Markdown table: one line, no bar, no HTML."""
    text = " ".join(str(value).split())
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def plain(value: Any) -> str:
    """A value of a sweep file as it reads there: lists in brackets, short forms for what is fixed."""
    if isinstance(value, Mapping):
        if set(value) <= {"value", "when"} and not value.get("when"):
            return plain(value["value"]) if "value" in value else "–"
        if "type" in value:
            rest = plain({key: one for key, one in value.items() if key != "type"})
            return f"{value['type']} ({rest})" if rest else str(value["type"])
        return ", ".join(f"{key}: {plain(one)}" for key, one in value.items() if one not in (None, {}, []))
    if isinstance(value, list | tuple):
        return "[" + ", ".join(plain(one) for one in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def brief(value: Any) -> str:
    """A value in a table: three figures are enough to tell trials apart."""
    return f"{value:.3g}" if isinstance(value, float) else plain(value)


def _lead(difference: Difference) -> str:
    return "is level with" if difference.value == 0 else "leads"


def claim(difference: Difference | None) -> str:
    """A difference, its interval, and what may be said of it: `+.016 [−.004, +.036], undecided: ...`."""
    if difference is None:
        return "not compared"
    ends = interval(difference.low, difference.high, difference=True)
    remedy = f": {difference.remedy}" if difference.remedy else ""
    return f"{signed(difference.value)} {ends}, {difference.verdict}{remedy}"


def sentence(difference: Difference) -> str:
    """The claim; of a pool with what the pool is made of, and what each part of it says by itself."""
    if not difference.columns:
        return claim(difference)
    parts = [
        f"{name} ({one.windows:,} windows, K = {one.clusters}: {signed(one.value)}, {one.verdict})"
        for name, one in difference.columns
    ]
    ends = interval(difference.low, difference.high, difference=True)
    remedy = f": {difference.remedy}" if difference.remedy else ""
    pool = f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"{signed(difference.value)} {ends} over {pool} together, {difference.verdict}{remedy}"


def effective(section: Mapping[str, Any]) -> str:
    """A sampler or pruner with the settings that its type listens to (`HEARD`); of a type not known there, with all."""
    heard = HEARD.get(str(section.get("type")), tuple(section))
    with_effect = {key: value for key, value in section.items() if key == "type" or key in heard}
    return plain(with_effect) if len(with_effect) > 1 else str(section.get("type", "–"))


def flags_once(data: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every flag of a study's data sets, once, with the data sets that carry it where not all of them do."""
    carriers: dict[str, list[str]] = {}
    for one in data:
        for flag in dict.fromkeys(one["flags"]):
            carriers.setdefault(flag, []).append(str(one["data"]))
    return [
        flag if len(names) == len(data) else f"{flag} ({'; '.join(names)})"
        for flag, names in carriers.items()
    ]


def summary(report: Report) -> list[str]:
    """What the study says, in sentences; the worst news first."""
    lines = [str(control["text"]) for control in report.controls if control["verdict"] == "broken"]
    for board in report.boards:
        lines += _board_lines(board, named=len(report.boards) > 1)
    return [*lines, *([comparison_line(report.against)] if report.against else [])]


def comparison_line(against: StudyComparison) -> str:
    """The answer of two studies, or why there is none, with the digests that differ and advice."""
    begin = f"Against {against.other} ({against.ours}; {against.theirs}): "
    if against.difference is not None:
        return f"{begin}{sentence(against.difference)}."
    manifests = [row for row in against.differing if row[0].startswith("manifest")]
    differing = [f"{what} {digest(ours)} and {digest(theirs)}" for what, ours, theirs in manifests]
    fields = [what for what, _, _ in against.differing if not what.startswith("manifest")]
    if fields:
        differing.append(f"fields {', '.join(fields)}")
    shown = f" Differing: {'; '.join(differing)}." if differing else ""
    return f"{begin}{against.refusal}{shown} {against.advice}"


def _board_lines(board: Leaderboard, *, named: bool) -> list[str]:
    best = board.best
    where = f" (validation {digest(board.val_digest)})" if named else ""
    lines = [
        f"Best{where}: trial {best.trial} ({best.name}) with {share(best.score)}, interval "
        f"{interval(best.low, best.high)} on {best.windows:,} windows, K = {best.clusters}."
    ]
    if best.few_clusters:
        lines.append("Few clusters: this shows that every path works, and nothing about the models.")
    elif best.low <= 0.5:
        lines.append("Nothing shows that it beats chance: its interval reaches down to .5.")
    if board.luck is not None and board.compared > 1:
        lines.append(
            f"It is the best of {board.compared} trials, so about {share(board.luck)} of its score is expected to be "
            f"luck: read {share(board.discounted)}."
        )
    if len(board.rows) > 1 and (next_best := board.rows[1]).to_best is not None:
        lines.append(
            f"It {_lead(next_best.to_best)} trial {next_best.trial} ({next_best.name}): "
            f"{sentence(next_best.to_best.reversed())}."
        )
    lines += [line for table in board.groups if (line := _group_line(table, board))]
    lines += [
        f"On {one.column}, training on {one.better} {_lead(one.difference)} training on {one.other}: "
        f"{claim(one.difference)}."
        for one in board.transfers
    ]
    return [*lines, *board.qualified]


def _group_line(table: GroupTable, board: Leaderboard) -> str:
    """The two best values of a parameter against each other; empty where it has but one."""
    if len(table.groups) < 2:
        return ""
    first, second = table.groups[:2]
    line = (
        f"By {table.parameter}: {first.value} ({share(first.best.score)}) against {second.value} "
        f"({share(second.best.score)})"
    )
    if second.best.to_best is None or first.best.rank != 1:
        return line + "."
    if second.best.trial == board.rows[1].trial:
        remedy = f": {second.best.to_best.remedy}" if second.best.to_best.remedy else ""
        return f"{line}: the two best trials, {second.best.to_best.verdict}{remedy}."
    return f"{line}, a difference of {sentence(second.best.to_best.reversed())}."
