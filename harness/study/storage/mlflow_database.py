"""MLflow's database without a row. Its migrations take seconds: in a process of its own, beside whatever is done."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

PROGRAM = """\
import sqlite3
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
store = SqlAlchemyStore('sqlite:///mlflow.db', 'mlflow-artifacts:/')
store.engine.dispose()
database = sqlite3.connect('mlflow.db')
database.execute('PRAGMA journal_mode=WAL')
database.close()
"""
END = 2_000  # characters of what a failed process said


class EmptyDatabaseError(RuntimeError):
    """MLflow could not make it; the message is what MLflow said."""


class EmptyDatabase:
    """Begun at once, in a temporary folder in `place`; `copy_to` waits for it. It is gone with the block."""

    def __init__(self, environment: Mapping[str, str], place: Path | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="harness-record-", dir=place)
        self._said = Path(self._folder.name) / "said.txt"
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", PROGRAM],
                env=dict(environment),
                cwd=self._folder.name,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    def copy_to(self, path: Path) -> None:
        """Wait until it is complete, and copy it: one file, its connections are closed and its WAL is gone.

        Raises
        ------
        EmptyDatabaseError
            It could not be made.
        """
        if self._process.wait() != 0:
            raise EmptyDatabaseError(self._said.read_text("utf-8", "replace").strip()[-END:])
        shutil.copyfile(Path(self._folder.name) / "mlflow.db", path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()
