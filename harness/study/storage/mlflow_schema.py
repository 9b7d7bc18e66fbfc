"""The schema of `mlflow.db` against the one that the installed MLflow writes; MLflow itself is not imported.

An MLflow server refuses a database of another schema with a traceback in its log: it is said here, before one starts.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_REVISION = re.compile(r"^(revision|down_revision)\s*=\s*[\"'](\w+)[\"']", re.MULTILINE)


@contextmanager
def read_only_connection(database: Path) -> Iterator[sqlite3.Connection]:
    """A connection that changes nothing, not even by its end: the last one to close would fold in the WAL.

    A database without a WAL is opened as immutable: `mode=ro` would leave an empty WAL beside it.
    """
    wal = database.with_name(f"{database.name}-wal")
    in_use = wal.is_file() and wal.stat().st_size > 0
    uri = f"{database.absolute().as_uri()}?{'mode=ro' if in_use else 'immutable=1'}"
    with closing(sqlite3.connect(uri, uri=True, timeout=5)) as connection:
        yield connection


def revision_of(database: Path) -> str | None:
    """The revision (alembic's, 12 hex digits) that a database says it has; None: it says none, or cannot be read."""
    try:
        with read_only_connection(database) as connection:
            row = connection.execute("select version_num from alembic_version").fetchone()
    except sqlite3.Error:
        return None
    return str(row[0]) if row else None


def _damage(database: Path) -> str | None:
    """What SQLite says of a file that it cannot take for a database; None where it can, or was not let."""
    try:
        with read_only_connection(database) as connection:
            connection.execute("select count(*) from sqlite_master").fetchone()
    except sqlite3.OperationalError:  # locked, or not to be opened: others say so
        return None
    except sqlite3.DatabaseError as error:
        return str(error)
    return None


@cache
def known_revisions() -> tuple[str | None, frozenset[str]]:
    """The newest revision of the installed MLflow, and all that it knows; (None, empty) where it is not there."""
    spec = find_spec("mlflow")
    if spec is None or spec.origin is None:
        return None, frozenset()
    folder = Path(spec.origin).parent / "store" / "db_migrations" / "versions"
    known: set[str] = set()
    replaced: set[str] = set()
    for path in folder.glob("*.py"):
        for name, revision in _REVISION.findall(path.read_text("utf-8")):
            (known if name == "revision" else replaced).add(revision)
    newest = known - replaced
    return (newest.pop() if len(newest) == 1 else None), frozenset(known)


def schema_problem(database: Path) -> str | None:
    """Why the installed MLflow cannot work on this database, and what to do; None where it can."""
    if damage := _damage(database):  # an MLflow server would try for 100 s before it gave up
        return f"{database} is damaged ({damage}): `harness restore` brings a snapshot back, `harness doctor` says more"
    found = revision_of(database)
    newest, known = known_revisions()
    if found is None or newest is None or found == newest:
        return None
    if found in known:
        return (
            f"{database} has schema {found}, older than {newest} of the MLflow installed; copy the record, then run "
            f"`mlflow db upgrade sqlite:///{database.absolute()}`"
        )
    return (
        f"{database} has schema {found}, which the MLflow installed ({newest}) does not know: a newer version made it. "
        "Use that version; nothing was changed"
    )
