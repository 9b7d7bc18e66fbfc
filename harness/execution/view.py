"""What a person sees of a running sweep: a live table in a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations


class View:
    """Hears what the coordinator does and says nothing (`--quiet`, `--json`); every method returns at once.

    A view that shows something overrides what it needs of this one.
    """

    def message(self, text: str) -> None:
        """Hear a line for people that belongs to no trial's row."""

    def begin(self, study: str, total: int, done: int, best: tuple[int, float] | None = None) -> None:
        """Hear that the study starts with `done` of `total` trials ended, the best of them by number and score."""

    def started(self, number: int, name: str, epochs: int, done: int = 0) -> None:
        """Hear that a worker was given a trial, anew or after `done` of its epochs; `name` is that of its run."""

    def epoch(self, number: int, epoch: int, metrics: dict[str, float]) -> None:
        """Hear that a trial finished an epoch (0-based), with the metrics of `EpochDone`."""

    def finished(self, number: int, state: str, score: float | None, reason: str) -> None:
        """Hear that a trial ended, or is `interrupted` and waits; its score and reason, where it has them."""

    def close(self) -> None:
        """Hear that no trial has more to tell; messages may still come."""

    def leave(self) -> None:
        """Give the terminal back at once: the process is about to end without more ado."""
