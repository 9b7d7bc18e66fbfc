"""Run a command for as long as its owner lives: `python -m harness.tracking.server.supervisor COMMAND...`.

The owner holds the other end of this process's standard input. When it closes, whether by a clean stop or by
`kill -9`, the whole process group is ended. The owner starts this process in a session of its own, so that
Ctrl-C in the terminal does not reach the command before the owner has finished with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

# How long the command may take to end by itself when it is asked to.
GRACE_S = 5.0


def main() -> None:
    """Start the command, wait for the end of standard input or of the command, end the group."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, preexec_fn=_default_signals)

    def leave_with_child() -> None:
        child.wait()
        os.killpg(0, signal.SIGKILL)  # the command's own children too, and this process

    threading.Thread(target=leave_with_child, daemon=True).start()
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE_S)
    os.killpg(0, signal.SIGKILL)


def _default_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    main()
