"""SQLite work on a record's database, always in a process of its own.

A process that opens a second handle on a database file and closes it drops the locks of its first one.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness.core.errors import FailedError

BUSY_S = 60.0
# How a database is opened that nobody else has: no -wal and no -shm appear beside it.
_ALONE = "immutable=1"


class DatabaseUnreadableError(FailedError, RuntimeError):
    """A record's database cannot be read, or is not sound."""


def back_up(source: Path, target: Path) -> None:
    """Copy a database through SQLite's API: one consistent state, whoever writes meanwhile.

    Raises
    ------
    DatabaseUnreadableError
        It cannot be read, or the copy is not sound.
    """
    _in_child("back_up", source, target)


def count_runs(database: Path) -> int:
    """Runs in a sound database that nobody else has open.

    Raises
    ------
    DatabaseUnreadableError
        SQLite's integrity check fails, or it is no MLflow database.
    """
    return int(_in_child("count_runs", database))


def rows_lost(old: Path, new: Path) -> dict[str, int]:
    """Rows of `old` that `new` does not hold (a changed row counts), by table; tables that lose none are left out.

    Raises
    ------
    DatabaseUnreadableError
        One of them cannot be read.
    """
    return dict(_in_child("rows_lost", old, new))


def _in_child(function: str, *paths: Path) -> Any:
    words = [sys.executable, "-P", "-m", __name__, function, *map(str, paths)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise DatabaseUnreadableError(f"{paths[0]} cannot be read: {reason}")
    return json.loads(done.stdout)


def _open(path: Path, how: str) -> sqlite3.Connection:
    return sqlite3.connect(_uri(path, how), uri=True, timeout=BUSY_S)


def _uri(path: Path, how: str) -> str:
    return f"file:{quote(str(path))}?{how}"


def _back_up(source: Path, target: Path) -> None:
    with closing(_open(source, "mode=ro")) as live, closing(_open(target, "mode=rwc")) as copy:
        live.backup(copy)
        _require_sound(copy)


def _count_runs(database: Path) -> int:
    with closing(_open(database, _ALONE)) as copy:
        _require_sound(copy)
        return int(copy.execute("select count(*) from runs").fetchone()[0])


def _rows_lost(old: Path, new: Path) -> dict[str, int]:
    with closing(_open(old, "mode=ro")) as database:
        database.execute("attach ? as new", (_uri(new, _ALONE),))
        query = "select name from {}.sqlite_master where type = 'table' and name not like 'sqlite_%' order by name"
        tables = [name for (name,) in database.execute(query.format("main"))]
        known = {name for (name,) in database.execute(query.format("new"))}
        lost = {}
        for table in tables:
            rows = f'select * from main."{table}"'
            kept = f' except select * from new."{table}"' if table in known else ""
            lost[table] = int(database.execute(f"select count(*) from ({rows}{kept})").fetchone()[0])
        return {table: count for table, count in lost.items() if count}


def _require_sound(database: sqlite3.Connection) -> None:
    (found,) = database.execute("pragma integrity_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(f"its integrity check says: {found}")


if __name__ == "__main__":
    work = {"back_up": _back_up, "count_runs": _count_runs, "rows_lost": _rows_lost}[sys.argv[1]]
    try:
        print(json.dumps(work(*map(Path, sys.argv[2:]))))  # type: ignore[operator]
    except sqlite3.Error as error:
        sys.exit(str(error))
