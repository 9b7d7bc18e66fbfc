"""A plugin whose networks fall ill while they learn: `HARNESS_SICK="0.02=hang,0.03=exits:once"` names them by their dropout.

The illness comes in the second epoch. `:once` is well again after the first time; what a network forked, and that it
fell ill, is noted in the folder HARNESS_SICK_NOTES.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from harness.training import trial
from models.networks.config import CnnConfig

NOTES = Path(os.environ["HARNESS_SICK_NOTES"])
STEPS_OF_EPOCH = 4  # the second epoch of 120 windows in batches of 32 has begun
# Memory that an ill network asks for, a window of its batch; a batch of 32 has no room, one of 16 has.
BYTES_A_WINDOW = 10_000_000
ROOM_BYTES = 240_000_000

_build, _cross_entropy, _summarise = trial.build_network, F.cross_entropy, trial.summarise
_planted: list[float] = []
_score: list[float] = []


@contextmanager
def little_memory() -> Any:
    """In this block the process may take so much more, and no more."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def fork_children() -> None:
    """Two children that nobody waits for; one holds every open file of this process."""
    with (NOTES / "children").open("a") as file:
        file.write(f"{subprocess.Popen(['sleep', '1000']).pid}\n")
    child = os.fork()
    if child == 0:
        time.sleep(1000)
        os._exit(0)
    with (NOTES / "children").open("a") as file:
        file.write(f"{child}\n")


def fall_ill(illness: str, windows: int) -> None:
    """Do what this illness does, in a step of `windows` windows."""
    if illness == "half_fits":
        with little_memory():
            torch.zeros(windows * BYTES_A_WINDOW, dtype=torch.uint8)
    elif illness == "never_fits":
        with little_memory():
            torch.zeros(4_000_000_000, dtype=torch.uint8)
    elif illness == "numpy":
        with little_memory():
            np.ones(4_000_000_000, dtype=np.uint8)
    elif illness == "python":
        with little_memory():
            bytearray(4_000_000_000)
    elif illness == "hangs":
        time.sleep(100_000)
    elif illness == "spins":
        while True:
            pass
    elif illness == "forks":
        fork_children()
    elif illness == "forks_and_dies":
        fork_children()
        os.kill(os.getpid(), signal.SIGKILL)
    elif illness == "exits":
        sys.exit(3)
    elif illness == "segfaults":
        ctypes.string_at(0)
    elif illness == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif illness == "cuda":
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    elif illness == "raises":
        raise RuntimeError("a mistake of the plugin")
    elif illness.startswith("loss "):
        _planted.append(float(illness.removeprefix("loss ")))
    elif illness.startswith("score "):
        _score.append(float(illness.removeprefix("score ")))


def build(config: CnnConfig, *words: Any, **named: Any) -> Any:
    """The network of a configuration, which may fall ill in its fifth step of training."""
    _planted.clear(), _score.clear()
    network = _build(config, *words, **named)
    listed = dict(one.split("=") for one in os.environ["HARNESS_SICK"].split(","))
    illness, _, once = listed.get(str(config.dropout), "").partition(":")
    begun = NOTES / f"{config.dropout}"
    steps = [0]

    def before(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        steps[0] += module.training
        well = 2 if begun.exists() else STEPS_OF_EPOCH  # what fell ill does so again before another epoch
        if steps[0] > well and module.training and not (once and begun.exists()):
            steps[0] = -1_000_000
            begun.touch()
            fall_ill(illness, len(inputs[0]))

    def after(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        ill = illness.startswith("logits ") and steps[0] > STEPS_OF_EPOCH
        return output + float(illness.removeprefix("logits ")) if ill and not module.training else output

    if illness.startswith("logits "):
        network.register_forward_hook(after)
        network.register_forward_pre_hook(lambda module, _: steps.__setitem__(0, steps[0] + module.training))
    elif illness:
        network.register_forward_pre_hook(before)
    return network


def cross_entropy(*words: Any, **named: Any) -> torch.Tensor:
    """The loss, with what an ill network plants in it."""
    return _cross_entropy(*words, **named) + sum(_planted)


def summarise(*words: Any, **named: Any) -> dict[str, Any]:
    """The outcome, with what an ill network makes of its score."""
    outcome = _summarise(*words, **named)
    return outcome | ({"score": _score[0]} if _score else {})


if "HARNESS_WORKER" in os.environ:  # the process of a test stays well
    trial.build_network = build
    F.cross_entropy = cross_entropy
    trial.summarise = summarise
