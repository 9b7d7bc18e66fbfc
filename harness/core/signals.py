"""The signals that ask a program to stop, INT, TERM and HUP, handled as one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Stopped(KeyboardInterrupt):
    """INT, TERM or HUP ended the work; the same command goes on with it. `number` is the signal's.

    A KeyboardInterrupt, so that no `except Exception` on the way swallows it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def ignore_signals() -> None:
    """Ignore them from here on, in a process that is ending after one: another would take its exit code away."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def handling_signals(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """In this block the signals call `handler`; afterwards what handled them before does again.

    Only the main thread can set handlers: in another the block runs as it is.

    Parameters
    ----------
    handler : (number, frame), as `signal.signal` takes it
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # `nohup` ignores SIGHUP, and means it; a script's shell ignores SIGINT for what it starts in the background.
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    wanted = [number for number in STOPPING if number != signal.SIGHUP or not nohup]
    before = {number: signal.signal(number, handler) for number in wanted}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)
