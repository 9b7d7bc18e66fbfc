"""What `harness doctor` asks of libraries and drivers, each in a process of its own: one that crashes or hangs is told.

    python -m harness.maintenance.doctor.library_probe torch | device NAME | provider NAME | plugins | executor

Prints one line of JSON: {"ok": what was found} or {"error": the reason}.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from harness.core.format import one_line

# An import of torch from a cold disk on a busy machine takes most of this.
TIMEOUT_S = 120.0


def run_probe(*words: str) -> tuple[bool, str]:
    """Run a probe in a child: whether it worked, and what it found or why not, in a line.

    A library that crashes, hangs (120 s) or prints takes no command with it.

    Parameters
    ----------
    words : name of the probe and its arguments, as the module says
    """
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "harness.maintenance.doctor.library_probe", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        printed, _ = child.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return False, f"no answer in {TIMEOUT_S:.0f} s"
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
    return _answer(printed.strip().splitlines(), child.returncode)


def _answer(lines: list[str], code: int) -> tuple[bool, str]:
    """What a child that ended said; libraries print too, even after it."""
    for line in reversed(lines):
        if line.startswith(('{"ok":', '{"error":')):
            answer = json.loads(line)
            return "ok" in answer, str(answer.get("ok", answer.get("error")))
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return False, f"it died ({how})" + (f": {lines[-1][:300]}" if lines else "")


def _torch() -> str:
    import torch
    import torchaudio

    return f"torch {torch.__version__} and torchaudio {torchaudio.__version__}"


def _device(name: str) -> str:
    import torch

    from harness.training.trial import open_device

    device = open_device(name)
    square = torch.ones(64, 64, device=device)
    assert float((square @ square).sum()) == 64.0**3, "a product of matrices is wrong"
    return torch.cuda.get_device_name(device) if name == "cuda" else name


def _provider(name: str) -> str:
    import numpy as np
    from onnx import TensorProto, helper

    from models.onnx_io.runtime import session_of

    value = [helper.make_tensor_value_info(word, TensorProto.FLOAT, [4]) for word in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "twice", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = session_of(model.SerializeToString(), name)
    (found,) = session.run(None, {"x": np.arange(4, dtype=np.float32)})
    assert found.tolist() == [0.0, 2.0, 4.0, 6.0], f"twice (0, 1, 2, 3) is {found.tolist()}"
    return str(session.get_providers()[0])


def _plugins() -> str:
    from data.plugins import load_plugins

    return ", ".join(load_plugins())


def _executor() -> str:
    from harness.execution.executors.build import VARIABLE, executor_class

    executor_class().check()
    return os.environ[VARIABLE]


PROBES: dict[str, Callable[..., str]] = {
    "torch": _torch,
    "device": _device,
    "provider": _provider,
    "plugins": _plugins,
    "executor": _executor,
}


def main() -> None:
    """Answer the question of the command line with one line of JSON; whatever is raised is the answer too (exit 0)."""
    answer: dict[str, Any]
    try:
        answer = {"ok": PROBES[sys.argv[1]](*sys.argv[2:])}
    except BaseException as error:
        first = one_line(error)
        plain = hasattr(error, "exit_code")  # an error for people, in its own words
        answer = {"error": first if plain else f"{type(error).__name__}: {first}"}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
