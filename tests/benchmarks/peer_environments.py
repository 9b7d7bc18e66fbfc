"""Environments of the peers: what they need beside ours, without a second torch.

::

    <cache>/benchmarks/hydra-1a2b3c/   its own site-packages: hydra-optuna-sweeper, optuna 2
      └ main_environment.pth           behind them those of the environment that runs the benchmarks

pip sees both, installs what is missing or of another version into the first, and leaves the second alone.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tests.benchmarks.rounds import CannotRun

REQUIREMENTS = {
    "ray": ("ray[tune]==2.60.*",),
    "hydra": ("hydra-core==1.3.*", "hydra-optuna-sweeper==1.3.*"),
}
INSTALL_S = 600


@dataclass(frozen=True)
class Environment:
    """A peer's interpreter. setup_s : seconds to make it, 0 where it was there already."""

    python: Path
    setup_s: float


def environment(name: str, cache: Path) -> Environment:
    """The environment of a peer of REQUIREMENTS, made from the package index where the cache has none.

    Raises
    ------
    CannotRun
        With pip's last words, where it cannot be made.
    """
    paths = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    key = hashlib.sha256("\n".join([sys.version, *paths, *REQUIREMENTS[name]]).encode()).hexdigest()[:12]
    folder = cache / "benchmarks" / f"{name}-{key}"
    python, complete = folder / "bin" / "python", folder / "complete"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if complete.is_file():
            return Environment(python, 0.0)
        began = time.perf_counter()
        shutil.rmtree(folder, ignore_errors=True)
        _checked(name, [sys.executable, "-m", "venv", str(folder)])
        own = next(folder.glob("lib/python*/site-packages"))
        (own / "main_environment.pth").write_text("\n".join(paths) + "\n", encoding="utf-8")
        _checked(name, [str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS[name]])
        complete.touch()
        return Environment(python, time.perf_counter() - began)


def _checked(name: str, words: list[str]) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        raise CannotRun(f"{name}: its environment was not installed within {INSTALL_S} s") from None
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise CannotRun(f"{name}: its environment cannot be installed: {lines[-1] if lines else words}")
