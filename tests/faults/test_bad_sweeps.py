"""Row 9: a malformed sweep file is refused before the first trial, with its line and its key, at once."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli.main import cli
from tests.faults.bad_sweeps import Case, cases
from tests.faults.rights import without_rights
from tests.harness.places.workplace import HARNESS

FILE = "sweep.yaml"
SECONDS, MEGABYTES = 1.0, 200
LOCKED = "not permitted"
# A small process between: of the forked one Linux counts the memory of this large one, too.
MEASURING = """
import os, subprocess, sys
began = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
_, status, used = os.wait4(began.pid, 0)
print(f"\\n{used.ru_utime + used.ru_stime} {used.ru_maxrss / 1024}", end="")
os._exit(sys.stdout.flush() or os.waitstatus_to_exitcode(status) & 255)
"""
# In the short form only these have processes of their own; all are read in this one.
SAMPLE = (
    "parameter unknown",
    "alias bomb",
    "900 unknown keys",
    "5000 brackets",
    "tag that runs",
    "pipe",
    "100 MB",
)


@dataclass(frozen=True)
class Said:
    """How a command ended; CPU time, because that of the wall is the neighbours' too."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    megabytes: float


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that anybody may enter, as pytest's own may not be, with a neighbour of the absent file."""
    with tempfile.TemporaryDirectory(prefix="sweeps-") as name:
        path = Path(name)
        path.chmod(0o755)
        (path / "sweeps.yaml").write_text("name: x\n")
        yield path


def here(folder: Path, locked: bool = False) -> Said:
    """Run the command in this process, whose other threads and tests would count: its cost is not measured."""
    rights = without_rights() if locked else contextlib.nullcontext()
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch, rights:
        patch.setenv("HARNESS_CACHE", str(folder / "cache"))
        done = CliRunner().invoke(cli, ["sweep", FILE])
    crashed = done.exception is not None and not isinstance(done.exception, SystemExit)
    shown = f"Traceback: {done.exception!r}" if crashed else done.stderr
    return Said(done.exit_code, done.stdout, shown, 0.0, 0.0)


def alone(folder: Path) -> Said:
    """Run the command in a process of its own, and see what it cost."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", MEASURING, *HARNESS, "sweep", FILE], cwd=folder, text=True, check=False,
        capture_output=True, timeout=100, env={**os.environ, "HARNESS_CACHE": str(folder / "cache")},
    )  # fmt: skip
    stdout, _, used = done.stdout.rpartition("\n")
    seconds, megabytes = map(float, used.split())
    return Said(done.returncode, stdout, done.stderr, seconds, megabytes)


def what_is_wrong(case: Case, said: Said, folder: Path, before: set[str]) -> str:
    """Return what the refusal of a file lacks; "" for nothing."""
    head, first, *rest = [*said.stderr.splitlines(), "", ""]
    checks = {
        "exit code": said.code == 2,
        "traceback": "Traceback" not in said.stderr,
        "stdout": not said.stdout,
        "head": head.startswith(f"error: {FILE}: ") and head.endswith((" mistake", " mistakes")),
        "line and key": first.startswith(case.told),
        "message": case.words in first and len(first) < 800,
        "other mistakes": not case.only or head.endswith(": 1 mistake"),
        "what is printed": all(line.isprintable() for line in rest) and len(rest) <= 23,
        "something written": before == {path.name for path in folder.iterdir()},
        "seconds": said.seconds < SECONDS,
        "memory": said.megabytes < MEGABYTES,
    }
    failed = [name for name, holds in checks.items() if not holds]
    return f"{case.name}: {', '.join(failed)}\n{said}" if failed else ""


@pytest.mark.row(9)
@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_every_malformed_file_is_refused_before_the_first_trial(
    folder: Path, full: bool, measured: Callable[..., None]
) -> None:
    (folder / FILE).write_text("name: two words\n")
    here(folder)  # what is imported at the first use is not the file's fault
    wrong, costs, tracebacks = [], [], 0
    for case in cases():
        path = folder / FILE
        case.make(path)
        before = {entry.name for entry in folder.iterdir()}
        runs = [here(folder, locked=case.name == LOCKED)]
        if (full and case.name != LOCKED) or case.name in SAMPLE:  # root's own process may read everything
            runs.append(alone(folder))
            if runs[-1].seconds >= SECONDS:  # on a busy machine a second of CPU is less
                runs[-1] = min(alone(folder), alone(folder), key=lambda said: said.seconds)
        for said in runs:
            wrong += filter(None, [what_is_wrong(case, said, folder, before)])
            tracebacks += "Traceback" in said.stderr
            costs += [said] if said.megabytes else []
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
    slowest, largest = max(said.seconds for said in costs), max(said.megabytes for said in costs)
    figure = (
        f"{len(cases()) - len(wrong)} of {len(cases())} files: exit 2, line and key named, nothing written; "
        f"{tracebacks} tracebacks; {len(costs)} processes: at most {slowest:.2f} s of CPU, {largest:.0f} MB"
    )
    assert len(cases()) >= 60
    assert not wrong, "\n".join(wrong)
    measured(figure, holds=not wrong)
