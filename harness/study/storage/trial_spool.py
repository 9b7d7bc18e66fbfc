"""A trial's own folder: what its worker wrote, durable before anybody hears of it.

    trial.json       what the run is called and configured (coordinator, before dispatch)
    events.jsonl     one line an epoch, fsynced (worker)
    last.pt          the training's checkpoint (worker)
    notes.txt        what its run must say of the training: begun again, came out differently (worker)
    outputs/         artifacts/** and images/*.png for the run (worker)
    outcome.json     how the training ended, with the score (worker)
    verdict.json     how the trial was told, with status and reason (coordinator, after tell)

MLflow is fed from here and only from here, so that live logging, a tracking server that was away, and the
coordinator after a crash all take the same way. The folder goes when MLflow holds everything.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from harness.core.failpoints import failpoint
from harness.core.files import sync_folder, write_text_atomic

# Metrics that differ when an epoch is repeated.
TIMING_METRICS = ("windows_per_s",)
CHECKPOINT = "last.pt"


class TrialSpool:
    """Reads and writes one trial's folder; its JSON files and its epochs are found whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events_file = folder / "events.jsonl"
        self.outputs = folder / "outputs"
        self._stored: dict[int, dict[str, float]] | None = None

    @property
    def artifacts(self) -> Path:
        """What the run logs as it is, in the same folders."""
        return self.outputs / "artifacts"

    @property
    def images(self) -> Path:
        """PNG files that the run logs into MLflow's image grid, named by their key."""
        return self.outputs / "images"

    def append_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """Store one epoch durably; an epoch that is stored already is left as it is (a resumed training).

        What then comes out differently, the clock's readings aside, is noted. The time is fixed here: MLflow takes the
        same point twice as one only if its time is the same.
        """
        if self._stored is None:  # one process writes a spool: read once what its earlier lives wrote
            self._stored = {int(event["epoch"]): event["metrics"] for event in self.epochs()}
        if epoch in self._stored:
            before = self._stored[epoch]
            other = [
                name
                for name in sorted(metrics)
                if name not in TIMING_METRICS and metrics[name] != before.get(name)
            ]
            if other:
                told = f"{other[0]} is {metrics[other[0]]!r}, stored is {before.get(other[0])!r}"
                self.note(f"epoch {epoch} came out differently when it was repeated: {told}")
            return
        line = json.dumps({"epoch": epoch, "time_ms": int(time.time() * 1000), "metrics": metrics})
        with self.events_file.open("ab") as file:
            if file.tell() and not self._ends_with_newline():
                file.write(b"\n")  # a torn line from an earlier life stays unreadable, alone
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if not self._stored:
            sync_folder(self.folder)  # the file is new
        self._stored[epoch] = metrics

    def epochs(self) -> list[dict[str, Any]]:
        """The stored epochs, in order; a torn line counts as not stored."""
        if not self.events_file.is_file():
            return []
        events: dict[int, dict[str, Any]] = {}
        for line in self.events_file.read_bytes().split(b"\n"):
            event = _event(line)
            if event is not None:
                events.setdefault(event["epoch"], event)
        return [events[epoch] for epoch in sorted(events)]

    def _ends_with_newline(self) -> bool:
        with self.events_file.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def checkpoint_written(self) -> int:
        """When the training's checkpoint was last replaced, in ns; 0 where there is none."""
        try:
            return (self.folder / CHECKPOINT).stat().st_mtime_ns
        except OSError:
            return 0

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Write `NAME.json` aside, then rename it; in one line, which takes json a fifth of the time."""
        write_text_atomic(
            self.folder / f"{name}.json", json.dumps(content, sort_keys=True, ensure_ascii=False)
        )

    def read(self, name: str) -> dict[str, Any] | None:
        """The content of `NAME.json` (trial, outcome, verdict), or None where that was not written yet."""
        path = self.folder / f"{name}.json"
        if not path.is_file():
            return None
        content = json.loads(path.read_text("utf-8"))
        assert isinstance(content, dict)
        return content

    def note(self, text: str) -> None:
        """Keep, durably, what the run must say of its training; once, however often it is noted."""
        if text not in self.notes():
            with (self.folder / "notes.txt").open("a", encoding="utf-8") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())

    def notes(self) -> list[str]:
        """What was noted, a line each, in order."""
        path = self.folder / "notes.txt"
        return path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else []

    def write_traceback(self, text: str) -> None:
        """Keep a failure's traceback as an artifact; an empty one is none."""
        if text:
            self.artifacts.mkdir(parents=True, exist_ok=True)
            (self.artifacts / "traceback.txt").write_text(text, "utf-8")

    def remove(self) -> None:
        """Delete the folder, once MLflow holds everything; a kill in the middle leaves one that nobody replays."""
        (self.folder / "trial.json").unlink(missing_ok=True)  # first: without it nothing is replayed
        failpoint("spool.removing")
        shutil.rmtree(self.folder, ignore_errors=True)


def _event(line: bytes) -> dict[str, Any] | None:
    """The epoch that a line holds; None where the line is torn."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    whole = (
        isinstance(event, dict)
        and isinstance(event.get("epoch"), int)
        and {"time_ms", "metrics"} <= set(event)
    )
    return event if whole else None
