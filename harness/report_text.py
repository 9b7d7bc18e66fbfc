"""The words of a report: how numbers are written, and the sentences that its summary makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.comparison import Difference
from harness.report_values import Board, GroupTable, Report


def share(value: float | None) -> str:
    """A share to three places without its zero: .914; a dash where there is none."""
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


def big(value: float | None) -> str:
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
    """A difference, its interval, and what may be said of it."""
    if difference is None:
        return "not compared"
    ends = interval(difference.low, difference.high, difference=True)
    remedy = f": {difference.remedy}" if difference.remedy else ""
    return f"{signed(difference.value)} {ends}, {difference.verdict}{remedy}"


def summary(report: Report) -> list[str]:
    """What the study says, in sentences; the worst news first."""
    lines = [str(control["text"]) for control in report.controls if control["verdict"] == "broken"]
    for board in report.boards:
        lines += _board_lines(board, named=len(report.boards) > 1)
    return lines


def _board_lines(board: Board, *, named: bool) -> list[str]:
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
            f"{claim(next_best.to_best.reversed())}."
        )
    lines += [line for table in board.groups if (line := _group_line(table))]
    lines += [
        f"On {one.column}, training on {one.better} {_lead(one.difference)} training on {one.other}: "
        f"{claim(one.difference)}."
        for one in board.transfers
    ]
    return lines


def _group_line(table: GroupTable) -> str:
    if len(table.groups) < 2:
        return ""
    first, second = table.groups[:2]
    line = (
        f"By {table.parameter}: {first.value} ({share(first.best.score)}) against {second.value} "
        f"({share(second.best.score)})"
    )
    if second.best.to_best is None or first.best.rank != 1:
        return line + "."
    return f"{line}, a difference of {claim(second.best.to_best.reversed())}."
