"""What `harness doctor` looks at in a record; nothing is written, and studies that are being run are left alone."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator

from harness.maintenance.doctor.finding import Finding, ok, problem, warn
from harness.study.storage.mlflow_schema import (
    known_revisions,
    read_only_connection,
    revision_of,
    schema_problem,
)
from harness.study.storage.record import Record, RecordError, is_locked

FIX = "harness doctor --fix"


def layout(record: Record) -> Iterator[Finding]:
    """Whether there is a record, of a layout that this version knows, that may be written."""
    if not record.exists:
        yield ok("record", f"none at {record.root} yet: `harness sweep FILE` makes one")
        return
    try:
        record.require()
    except RecordError as error:
        yield problem("record", str(error), "use the version of the harness that made it")
        return
    closed = record.unwritable()
    if closed is None:
        yield ok("record", str(record.root))
    else:
        fix = f"make {record.root} writable, or copy it and name the copy with --record"
        yield problem(
            "record", f"{closed} may not be written: `status` and `report` work, nothing else does", fix
        )


def database(record: Record) -> Iterator[Finding]:
    """Whether SQLite finds mlflow.db whole, and the installed MLflow knows its schema."""
    if not record.exists:
        return
    try:
        with read_only_connection(record.database) as connection:
            found = [str(row[0]) for row in connection.execute("pragma quick_check(3)")]
    except sqlite3.Error as error:
        found = [str(error)]
    restore = "bring back the last good one: harness restore, or your own copy"
    if found != ["ok"]:
        yield problem("database", f"{record.database} is damaged: {'; '.join(found)[:300]}", restore)
        return
    mismatch = schema_problem(record.database)
    if mismatch is not None:
        revision, (_, known) = revision_of(record.database), known_revisions()
        upgrade = f"copy the record, then: mlflow db upgrade sqlite:///{record.database}"
        yield problem("schema", mismatch, upgrade if revision in known else "install the MLflow that made it")
    elif revision_of(record.database) is None:
        yield problem("schema", f"{record.database} is no database of MLflow", restore)
    else:
        yield ok("database", f"whole, schema {revision_of(record.database)} is that of the MLflow installed")


def journal(record: Record) -> Iterator[Finding]:
    """Whether every line of Optuna's journal can be read; a torn last one is cut off at the next opening."""
    if not record.journal.is_file():
        return
    with record.journal.open("rb") as file:
        lines = 0
        for lines, line in enumerate(file, start=1):
            if line.endswith(b"\n") and not _is_json(line):
                text = f"line {lines} of {record.journal} cannot be read, and no study after it"
                yield problem(
                    "journal", text, "bring back the last good one: harness restore, or your own copy"
                )
                return
    yield ok("journal", f"{lines} lines, all readable")


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def permissions(record: Record) -> Iterator[Finding]:
    """Whether only the user can read the record: what is in a private folder is private."""
    if not record.root.is_dir():
        return
    about = record.root.stat()
    if about.st_uid != os.getuid():
        text = f"{record.root} belongs to user {about.st_uid}, and this is user {os.getuid()}"
        yield warn("permissions", text, f"run as its owner, or: chown -R {os.getuid()} {record.root}")
    elif about.st_mode & 0o077:
        text = f"{record.root} can be read by others (mode {about.st_mode & 0o777:o})"
        yield warn("permissions", text, f"{FIX}, or: chmod 700 {record.root}")
    else:
        yield ok("permissions", "the record is private to its user")


def running(record: Record) -> dict[str, str]:
    """The studies whose lock is held now -> the id of that process, or `unknown`."""
    found = {}
    for lock in sorted(record.locks.glob("study-*.lock")):
        if is_locked(lock):
            name = lock.name.removeprefix("study-").removesuffix(".lock")
            owner = lock.with_suffix(".pid")
            found[name] = owner.read_text("utf-8", "replace").strip() if owner.is_file() else "unknown"
    return found


def locks(record: Record) -> Iterator[Finding]:
    """Who works on the record now, by the locks that are held; none of them is a fault."""
    for study, process in running(record).items():
        yield ok("locks", f"study {study} is being run by process {process}; it is left alone")
    if is_locked(record.locks / "promotion.lock"):
        yield ok("locks", "a promotion or rollback works on the record")


def stale(record: Record) -> Iterator[Finding]:
    """What processes that died left in the study, the spool and MLflow."""
    if not (record.exists and record.journal.is_file()):
        return
    from harness.execution.recovery import find_stale

    found = find_stale(record)
    for one in found:
        yield warn("stale", f"study {one.study}: {one.text}", f"{FIX}, or run the sweep again")
    if not found:
        yield ok("stale", "no trial or run is left of a process that died")


def idle_studies(record: Record) -> list[str]:
    """Names of the studies that nobody runs now: only those may be put right."""
    if not (record.exists and record.journal.is_file()):
        return []
    from harness.study.study import study_names

    return [name for name in study_names(record) if not record.is_run(name)]


def repair_study(record: Record, name: str) -> Iterator[str]:
    """Put right what killed processes left in a study; a line for each thing done."""
    from harness.execution.recovery import reconcile

    yield from (f"study {name}: {line}" for line in reconcile(record, name))


def repair_permissions(record: Record) -> Iterator[str]:
    """Close the record to others; one that is being run waits."""
    if not record.root.is_dir() or running(record):
        return
    about = record.root.stat()
    if about.st_uid == os.getuid() and about.st_mode & 0o077:
        record.root.chmod(0o700)
        yield f"{record.root}: only its user can read it now"
