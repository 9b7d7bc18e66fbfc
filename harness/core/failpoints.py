"""Named places where a test makes this process die, fail or wait: `HARNESS_FAILPOINT=name:n:action`.

`n` counts passes through the place, from 1; `action` is kill, raise, enospc or sleep (2 s). A process that is
started again counts anew: with HARNESS_FAILPOINT_ONCE=FILE it happens once in all, and makes that file.
HARNESS_LEDGER=FILE takes a line for each thing that a worker may rely on. Nothing happens where they are unset.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections import Counter

VARIABLE = "HARNESS_FAILPOINT"
ONCE = "HARNESS_FAILPOINT_ONCE"
LEDGER = "HARNESS_LEDGER"
# Long enough for a signal to find a process here; a launch that ends after one waits for its writer a second longer.
SLEEP_S = 2.0
_passes: Counter[str] = Counter()


class FailpointError(RuntimeError):
    """What the action `raise` raises: an error that no code expects."""


def failpoint(name: str) -> None:
    """Die, fail or wait here, where HARNESS_FAILPOINT names this place and this pass through it.

    Without the variable it does nothing: the calls stand in the shipped code, so that tests kill what users run.
    """
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    place, count, action = wanted.split(":")
    if place != name:
        return
    _passes[name] += 1
    if _passes[name] != int(count) or not _first():
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "raise":
        raise FailpointError(name)
    elif action == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
    else:
        time.sleep(SLEEP_S)


def _first() -> bool:
    """Whether no process passed here before, by the marker file of HARNESS_FAILPOINT_ONCE; True where it is unset."""
    marker = os.environ.get(ONCE)
    if not marker:
        return True
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    return True


def acknowledged(text: str) -> None:
    """Append a line to HARNESS_LEDGER: something that this process was told is safely stored.

    One write in append mode is whole whatever kills the process; tests hold the record against the ledger.
    """
    ledger = os.environ.get(LEDGER)
    if not ledger:
        return
    handle = os.open(ledger, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    try:
        os.write(handle, f"{text}\n".encode())
    finally:
        os.close(handle)
