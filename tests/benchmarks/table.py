"""Rows to results.json and to the table in README.md, between its two markers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.benchmarks.result import Result

RESULTS, README = "results.json", "README.md"
BEGIN = "<!-- table: written by `make bench` -->"
END = "<!-- end of the table -->"

Rows = dict[str, dict[str, Any]]


def read(folder: Path) -> Rows:
    """Rows of an earlier run, by id; none where there was none."""
    path = folder / RESULTS
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def merged(old: Rows, results: Iterable[Result], machine: Mapping[str, Any]) -> Rows:
    """Put results in place of the rows of the same id; each row says on what it was measured."""
    rows = dict(old)
    for one in results:
        row = asdict(one)
        rows[row.pop("id")] = {**_plain(row), "machine": dict(machine)}
    return dict(sorted(rows.items(), key=lambda row: _order(row[0])))


def _plain(value: Any) -> Any:
    """Make JSON of it: what is not finite (an interval of one round) is null there."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(folder: Path, rows: Rows) -> None:
    """Write results.json, and the table into README.md (which keeps its other text)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULTS).write_text(json.dumps(rows, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    path = folder / README
    text = path.read_text(encoding="utf-8") if path.exists() else f"{BEGIN}\n{END}\n"
    path.write_text(with_table(text, rows), encoding="utf-8")


def with_table(text: str, rows: Rows) -> str:
    """Replace what stands between the markers.

    Raises
    ------
    ValueError
        If a marker is missing.
    """
    if BEGIN not in text or END not in text:
        raise ValueError(f"README.md lacks the markers {BEGIN!r} and {END!r}")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{markdown(rows)}\n{END}{after}"


def markdown(rows: Rows) -> str:
    """Draw the table, one line for each id, with the machines below and the notes at the end."""
    if not rows:
        return "Nothing was measured yet."
    lines = [
        "| id | what | value | 95 % interval | target | holds | beyond |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [_line(name, row) for name, row in rows.items()]
    lines += ["", *_machines(rows), "", *_notes(rows)]
    return "\n".join(lines).strip()


def _line(name: str, row: Mapping[str, Any]) -> str:
    interval = row["interval"]
    cells = [
        name,
        row["what"],
        "-" if row["value"] is None else f"{number(row['value'])} {row['unit']}".strip(),
        "" if interval is None else f"{number(interval[0])} to {number(interval[1])}",
        row["target"],
        {True: "yes", False: "**no**", None: "-"}[row["holds"]],
        row["beyond"],
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def number(value: float) -> str:
    """Three significant digits, no exponent."""
    if value == 0:
        return "0"
    digits = max(0, 2 - int(f"{abs(value):e}".partition("e")[2]))
    return f"{value:,.{digits}f}"


def _machines(rows: Rows) -> list[str]:
    by_machine: dict[str, list[str]] = {}
    for name, row in rows.items():
        by_machine.setdefault(_machine(row["machine"]), []).append(name)
    if len(by_machine) == 1:
        return [f"Measured on {next(iter(by_machine))}."]
    return [f"* {', '.join(names)}: measured on {text}." for text, names in by_machine.items()]


def _machine(machine: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gb']} GB, {machine['gpu'] or 'no GPU'}, "
        f"{machine['system']}, Python {machine['python']}; {versions}; {machine['date']}, "
        f"canary {machine['canary_ms']} ms, load {machine['load']}"
    )


def _notes(rows: Rows) -> list[str]:
    return [f"* **{name}**: {'; '.join(row['notes'])}." for name, row in rows.items() if row["notes"]]


def _order(name: str) -> tuple[int, str]:
    number, _, rest = name.removeprefix("B").partition(" ")
    return (int(number), rest) if number.isdigit() else (10**6, name)
