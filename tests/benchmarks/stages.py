"""What the time of a trial is spent on: functions timed by name, each second counted once.

A stage that calls another loses the other's time, so that the stages of a thread add up to what it did.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Stages:
    """CPU and wall seconds by stage, all threads of this process together."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._lock = threading.Lock()
        self._cpu_s: dict[str, float] = {}
        self._wall_s: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens in this block, in this thread, less the stages within it."""
        stack: list[list[float]] = self._local.__dict__.setdefault("stack", [])
        inner = [0.0, 0.0]  # CPU and wall seconds of the stages within
        stack.append(inner)
        cpu, wall = time.thread_time(), time.perf_counter()
        try:
            yield
        finally:
            cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
            stack.pop()
            with self._lock:
                self._cpu_s[name] = self._cpu_s.get(name, 0.0) + cpu - inner[0]
                self._wall_s[name] = self._wall_s.get(name, 0.0) + wall - inner[1]
            if stack:
                stack[-1][0] += cpu
                stack[-1][1] += wall

    def wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, whose time is counted."""

        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            with self.stage(name):
                return function(*arguments, **named)

        return timed

    def watch(self, name: str, owner: Any, attribute: str) -> None:
        """Count a function of a module, or a method of a class, for as long as this process lives."""
        setattr(owner, attribute, self.wrapped(name, getattr(owner, attribute)))

    def taken(self) -> dict[str, tuple[float, float]]:
        """CPU and wall seconds of each stage since the last call."""
        with self._lock:
            found = {name: (self._cpu_s[name], self._wall_s[name]) for name in self._cpu_s}
            self._cpu_s.clear()
            self._wall_s.clear()
        return found
