"""`harness doctor`: everything a sweep stands on, looked at; what is safe to put right is, when asked.

Each group of checks is on its own: one that breaks is a finding, and the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from harness.core.format import one_line
from harness.core.settings import Settings
from harness.maintenance.doctor import machine_checks as machine
from harness.maintenance.doctor import record_checks as of_record
from harness.maintenance.doctor.finding import Finding, ok, problem, warn
from harness.maintenance.leftovers import find_leftovers, remove_leftovers
from harness.study.storage.record import Record

Check = Callable[[], Iterator[Finding]]


def examine(settings: Settings, project: Path) -> list[Finding]:
    """Look at the machine, the record, the data and the snapshots of `project`; change nothing."""
    record = Record(settings.record)
    checks: dict[str, Check] = {
        "python": machine.python,
        "torch": machine.torch,
        "gpu": lambda: machine.gpu(settings),
        "onnxruntime": lambda: machine.providers(settings),
        "open files": machine.limits,
        "environment": machine.environment,
        "disk": lambda: machine.disk(settings),
        "data": lambda: _data(settings),
        "record": lambda: of_record.layout(record),
        "permissions": lambda: of_record.permissions(record),
        "database": lambda: of_record.database(record),
        "journal": lambda: of_record.journal(record),
        "locks": lambda: of_record.locks(record),
        "stale": lambda: of_record.stale(record),
        "leftovers": lambda: _leftovers(record, settings.cache),
        "snapshots": lambda: _snapshots(project),
    }
    return [finding for subject, check in checks.items() for finding in _guarded(subject, check)]


def repair(settings: Settings) -> tuple[list[str], list[Finding]]:
    """Put right what is safe to: leavings of killed processes, and who may read the record. Studies that run wait.

    Returns
    -------
    done : a line for each thing, also of a group that failed later
    failed : a problem for each group that broke; the others were gone through all the same
    """
    done: list[str] = []
    failed: list[Finding] = []
    for subject, work in _repairs(Record(settings.record), settings.cache):
        try:
            for line in work():
                done.append(line)  # one by one: what was done before a failure is told
        except Exception as error:
            failed.append(_broken(subject, "put right", error))
    return done, failed


def _repairs(record: Record, cache: Path) -> Iterator[tuple[str, Callable[[], Iterator[str]]]]:
    names: list[str] = []
    with suppress(Exception):  # `examine` says why
        names = of_record.idle_studies(record)
    for name in names:
        yield "stale", partial(of_record.repair_study, record, name)
    yield "permissions", partial(of_record.repair_permissions, record)
    removed = "removed, its maker was killed"
    yield "leftovers", lambda: (f"{path}: {removed}" for path in remove_leftovers(record, cache))


def _guarded(subject: str, check: Check) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:  # whatever breaks there is what somebody came to hear
        yield _broken(subject, "looked at", error)


def _broken(subject: str, what: str, error: Exception) -> Finding:
    text = f"this could not be {what}: {type(error).__name__}: {one_line(error)[:300]}"
    return problem(subject, text, "mend the findings before this one, then run doctor again")


def _data(settings: Settings) -> Iterator[Finding]:
    from harness.maintenance.doctor.corpora_checks import data_root

    return data_root(settings)


def _leftovers(record: Record, cache: Path) -> Iterator[Finding]:
    found = find_leftovers(record, cache)
    for path in found:
        yield warn("leftovers", f"{path} was left by a process that was killed", of_record.FIX)
    if not found:
        yield ok("leftovers", "none")


def _snapshots(project: Path) -> Iterator[Finding]:
    from harness.maintenance.snapshot.snapshot import check_snapshots

    found = check_snapshots(project)
    for text in found:
        said, _, remedy = text.rpartition(": ")
        known = remedy.startswith(("dvc ", "run `harness", "`harness"))
        again = "take mlruns.dvc from version control again, or: harness snapshot"
        yield warn("snapshots", said if known else text, remedy if known else again)
    if not found:
        yield ok("snapshots", "DVC's settings and mlruns.dvc, where they are, are as they should be")
