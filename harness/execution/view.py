"""What a person sees of a running sweep: a live table in a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


class View:
    """Hears what the coordinator does and says nothing (`--quiet`, `--json`); every method returns at once."""

    def message(self, text: str) -> None:
        """One line worth knowing."""

    def begin(self, study: str, total: int, done: int, best: tuple[int, float] | None = None) -> None:
        """The study starts with `done` of `total` trials spent, the best of them by number and score."""

    def started(self, number: int, name: str, epochs: int, done: int = 0) -> None:
        """A trial began, or goes on after `done` of its epochs."""

    def epoch(self, number: int, epoch: int, metrics: dict[str, float]) -> None:
        """A trial finished an epoch (0-based)."""

    def finished(self, number: int, state: str, score: float | None, reason: str) -> None:
        """A trial ended."""

    def close(self) -> None:
        """Nothing more will come."""

    def leave(self) -> None:
        """Give the terminal back at once: the process is about to end without more ado."""
