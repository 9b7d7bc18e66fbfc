"""The fault matrix: what is done to the harness, what it promises, and what was measured.

A test carries `@pytest.mark.row(number)` and hands its figure to `measured`. `make faults` runs the full sizes and
writes the figures into `faults.json` and the table of `README.md`; what `make test` runs is short and writes nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "faults.json"
FIGURES = HERE / "figures.json"  # what each test measured last, from which the rows are made
README = HERE / "README.md"
KEPT_SEEDS = HERE / "kept_seeds.json"
BEGIN, END = "<!-- matrix -->", "<!-- end of the matrix -->"


@dataclass(frozen=True)
class Row:
    """A fault and what is promised about it."""

    id: int
    fault: str
    promise: str


ROWS = (
    Row(1, "SIGKILL of a worker at a random moment", "every acknowledged epoch stored, nothing RUNNING, one FINISHED run a configuration, exact budget"),
    Row(2, "SIGKILL at every named point, the reconciler's included", "as 1; reconciling twice changes nothing"),
    Row(3, "SIGKILL of the coordinator again and again", "every epoch exactly once, the same final metrics as an undisturbed run; with one worker the same trials"),
    Row(4, "8 processes use an empty record first, at once", "all succeed"),
    Row(5, "SIGKILL while the record is created", "the next start works"),
    Row(6, "snapshot under load; restored elsewhere", "consistent, complete, every object's md5 right, artifacts open"),
    Row(7, "a promoted file truncated, flipped, swapped, with external data, hard-linked", "refused, file and digests named"),
    Row(8, "SIGKILL between any two steps of a promotion", "the alias points to a complete, verified version; running it again converges"),
    Row(9, "malformed sweep files", "exit 2 before the first trial, line and key named, under 1 s and 200 MB"),
    Row(10, "bad audio files", "a named error or a counted quarantine; never NaN in a batch"),
    Row(11, "tracking server killed 20 s, 60 s, stopped 20 s, never back", "0 epochs lost, training not blocked, true status"),
    Row(12, "response lost after commit", "one run a trial, one model version"),
    Row(14, "database locked 8 s, 25 s, 60 s", "no failed trial"),
    Row(15, "worker, coordinator, both stopped for 30 s and more (SIGSTOP)", "no duplicate, no crash"),
    Row(16, "INT, TERM, HUP, double INT x train, log, artifact, idle", "the right exit code within 5 s + one step, nothing RUNNING, resumable"),
    Row(17, "disk full in artifacts, database, study, WAL, spool", "stops clearly, no corruption, resumes"),
    Row(18, "two coordinators; doctor and restore while a sweep lives", "refused, live trials untouched"),
    Row(19, "budget with 8 workers and kills", "exactly N trials"),
    Row(20, "out of memory, hang, stray children", "failed with the reason, the sweep goes on, no orphans"),
    Row(21, "NaN, inf, -inf loss", "failed `diverged`, never best, never promoted"),
    Row(23, "Host, Origin, traversal and authentication probes of what the harness starts", "403, 401 or 400; no listener beyond loopback"),
    Row(24, "malicious model folder, checkpoint, DVC manifest, sweep file", "refused, the marker file absent"),
    Row(25, "secrets planted in parameters, environment, URL", "0 hits in databases, artifacts, logs"),
    Row(26, "clock stepped, read-only record, older schema", "a clear refusal or no difference, nothing changed"),
)  # fmt: skip


def remembered(before: dict[str, Any], parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures by test, those of the tests that ran now replaced; a test that is no more has none.

    `parts` are {"id", "test", "figure", "holds"}; a test that ran for several parameters has several.
    """
    now: dict[str, list[dict[str, Any]]] = {}
    for part in sorted(parts, key=lambda part: str(part["test"])):
        test = str(part["test"]).partition("[")[0].rpartition("/")[2]
        now.setdefault(test, []).append({key: part[key] for key in ("id", "figure", "holds")})
    return {test: found for test, found in sorted({**before, **now}.items()) if is_there(test)}


def is_there(test: str) -> bool:
    """Whether `FILE::FUNCTION` is a test here."""
    file, _, function = test.partition("::")
    return (HERE / file).is_file() and f"def {function}(" in (HERE / file).read_text("utf-8")


def rows_of(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of faults.json, in order of id; several figures make one row, which holds where they all do."""
    parts = [part for test in sorted(figures) for part in figures[test]]
    rows = []
    for row in ROWS:
        mine = [part for part in parts if part["id"] == row.id]
        if mine:
            figure = "; ".join(dict.fromkeys(part["figure"] for part in mine))
            holds = all(part["holds"] for part in mine)
            rows.append({"id": row.id, "fault": row.fault, "figure": figure, "holds": holds})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows of faults.json as Markdown."""
    promises = {row.id: row.promise for row in ROWS}
    lines = ["| # | fault | promise | measured | holds |", "|---|---|---|---|---|"]
    for row in rows:
        words = (row["fault"], promises[row["id"]], row["figure"])
        cells = " | ".join(text.replace("|", "\\|") for text in words)
        lines.append(f"| {row['id']} | {cells} | {'yes' if row['holds'] else '**no**'} |")
    return "\n".join(lines)


def with_table(readme: str, rows: list[dict[str, Any]]) -> str:
    """README.md with its table replaced."""
    head, _, rest = readme.partition(BEGIN)
    return f"{head}{BEGIN}\n{table(rows)}\n{END}{rest.partition(END)[2]}"


def write_results(parts: list[dict[str, Any]]) -> None:
    """Put what was measured into figures.json, faults.json and README.md; what was not stays as it was."""
    figures = remembered(json.loads(FIGURES.read_text("utf-8")) if FIGURES.exists() else {}, parts)
    for path, content in ((FIGURES, figures), (RESULTS, rows_of(figures))):
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
    README.write_text(with_table(README.read_text("utf-8"), rows_of(figures)), "utf-8")


def keep_seed(function: str, seed: int) -> None:
    """Have a test run with this seed from now on: it failed once."""
    kept = json.loads(KEPT_SEEDS.read_text("utf-8")) if KEPT_SEEDS.exists() else {}
    kept[function] = sorted({*kept.get(function, []), seed})
    KEPT_SEEDS.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", "utf-8")
