"""Named places where a test makes this process die, fail or wait: `HARNESS_FAILPOINT=name:n:action`.

`n` counts passes through the place, from 1; `action` is kill, raise, enospc or sleep (30 s). Nothing happens where
the variable is unset.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections import Counter

VARIABLE = "HARNESS_FAILPOINT"
SLEEP_S = 30.0
_passes: Counter[str] = Counter()


class FailpointError(RuntimeError):
    """What `raise` raises."""


def failpoint(name: str) -> None:
    """Do here what the environment asks for at this place."""
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    place, count, action = wanted.split(":")
    if place != name:
        return
    _passes[name] += 1
    if _passes[name] != int(count):
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "raise":
        raise FailpointError(name)
    elif action == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
    else:
        time.sleep(SLEEP_S)
