"""A process that has imported everything and forks real ones: `python -m tests.faults.warm`, orders on standard input.

To import torch, MLflow and Optuna takes 6 s of CPU, which a test of many launches cannot pay for each. A child leads a
session of its own and does what `python -m harness.cli.main WORDS` does; how it ended is written to `EXIT` when it has.
"""

from __future__ import annotations

import json
import os
import runpy
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

MODULES = (
    "torch", "optuna", "mlflow", "mlflow.entities", "harness.execution.launch", "harness.cli.commands.sweep", "harness.execution.recovery",
    "harness.reporting.report", "harness.training.trial", "mlflow.tracking.client", "mlflow.store.tracking.rest_store", "harness.core.redaction",
)  # fmt: skip
RECONCILE, OPEN = "reconcile", "open"


def main() -> None:
    for name in MODULES:
        __import__(name)
    children: dict[int, Path] = {}
    while True:
        if select.select([sys.stdin], [], [], 0.05)[0]:
            line = sys.stdin.readline()
            if not line:
                for child in children:
                    os.kill(child, signal.SIGKILL)  # its workers and its server end with it
                return
            order = json.loads(line)
            child = os.fork()
            if child == 0:
                _be(order)
            children[child] = Path(order["exit"])
            print(child, flush=True)
        with suppress(ChildProcessError):
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                aside = children[pid].with_suffix(".aside")
                aside.write_text(str(code))
                aside.rename(children.pop(pid))


def _be(order: dict[str, Any]) -> None:
    """Become the process that was ordered, until it ends."""
    os.setsid()
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(order["out"], os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    for handle, number in ((null, 0), (out, 1), (out, 2)):
        os.dup2(handle, number)
    code: Any = 1
    try:
        own = {RECONCILE: _reconcile, OPEN: _open}.get(order["words"][0])
        code = own(*order["words"][1:]) if own is not None else _command(order["words"])
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def _command(words: list[str]) -> int:
    sys.argv = ["harness", *words]
    runpy.run_module("harness.cli.main", run_name="__main__")
    return 0


def _reconcile(root: str, study: str) -> int:
    from harness.execution.recovery import reconcile
    from harness.study.storage.record import Record

    for line in reconcile(Record(Path(root)), study):
        print(line)
    return 0


def _open(root: str) -> int:
    """The first use of a record, by whoever comes first: MLflow's half and Optuna's."""
    import optuna

    from harness.study.storage.record import Record

    optuna.create_study(study_name="first", storage=Record(Path(root)).open().storage(), load_if_exists=True)
    return 0


if __name__ == "__main__":
    main()
