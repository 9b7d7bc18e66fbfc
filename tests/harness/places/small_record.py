"""Small records and manifests to take apart."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

from harness.maintenance.snapshot.dvc_pointer import md5_of, object_path
from harness.study.storage.record import Record

MD5 = "0" * 32


def stored_manifest(cache: Path, content: object) -> str:
    """Put a manifest into a cache under its true md5; its digest."""
    data = json.dumps(content).encode()
    digest = hashlib.md5(data).hexdigest() + ".dir"
    object_path(cache, digest).parent.mkdir(parents=True, exist_ok=True)
    object_path(cache, digest).write_bytes(data)
    return digest


def small_record(root: Path) -> Record:
    """A record of two runs and no study, with something in every part; MLflow and Optuna are not asked."""
    record = Record(root)
    for folder in (
        record.artifacts / "1",
        record.spool / "tiny" / "00001" / "outputs",
        record.locks,
        root / "logs",
    ):
        folder.mkdir(parents=True)
    with closing(sqlite3.connect(record.database)) as database:
        database.execute("pragma journal_mode=wal")
        database.execute("create table runs (run_uuid text, status text)")
        database.executemany("insert into runs values (?, ?)", [("a", "FINISHED"), ("b", "RUNNING")])
        database.commit()
    record.journal.write_bytes(b"")
    (root / "VERSION").write_text("1\n")
    (record.artifacts / "1" / "model.onnx").write_bytes(b"weights")
    (record.spool / "tiny" / "00001" / "trial.json").write_text("{}")
    (record.spool / "tiny" / "00001" / "events.jsonl").write_text('{"epoch": 0}\n')
    (root / "test_openings.jsonl").write_text('{"study": "tiny"}\n{"torn')
    for left_out in (
        "server.log",
        "logs/worker.log",
        "locks/study-tiny.lock",
        "spool/tiny/00001/lease.lock",
        "secret.txt",
    ):
        (root / left_out).write_text("x")
    return record


def contents(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): md5_of(path)
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix not in (".db-wal", ".db-shm", ".lock")
    }
