"""A bundle is verified where only onnxruntime and numpy are."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from harness.promotion.bundle.files import bundle_digest

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has onnxruntime, numpy and this package; nothing else, not even pip."""
    place = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True, timeout=60)
    (site,) = place.glob("lib/python*/site-packages")
    for module in (np, onnxruntime):
        installed = Path(str(module.__file__)).parent
        for folder in (installed, installed.with_name(f"{installed.name}.libs")):
            if folder.is_dir():
                (site / folder.name).symlink_to(folder)
    for package in ("harness", "models"):
        (site / package).symlink_to(ROOT / package)
    script = place / "bin" / "harness"  # as pip writes it of [project.scripts]
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]["harness"]
    module, function = declared.split(":")
    script.write_text(f"#!{place}/bin/python\nfrom {module} import {function}\n{function}()\n")
    script.chmod(0o755)
    return place


def run(bare: Path, *words: str, code: int = 0) -> str:
    """Standard output and error of a command in the bare environment."""
    words = (str(bare / "bin" / words[0]), *words[1:])
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        words, cwd=bare.parent, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_bare_environment_is_bare(bare: Path) -> None:
    tried = "import importlib.util as u; print([m for m in {} if u.find_spec(m)])"
    absent = [
        "torch",
        "mlflow",
        "click",
        "onnx",
        "pydantic",
        "scipy",
        "rich",
        "optuna",
        "google",
        "data",
        "pip",
    ]
    assert run(bare, "python", "-c", tried.format(absent)) == "[]\n"


def test_onnxruntime_and_numpy_are_enough(bare: Path, sealed: Path, bundle: Path) -> None:
    digest = bundle_digest(sealed)
    assert "verified, digest " + digest in run(bare, "harness", "verify", str(sealed), "--digest", digest)
    with (bundle / "golden" / "logits.npy").open("ab") as file:
        file.write(b"x")
    shown = run(bare, "harness", "verify", str(bundle), "--json", code=3)
    assert "golden/logits.npy was altered" in json.loads(shown)["checks"][1]["text"]


def test_without_click_only_verify_works_and_says_so(bare: Path) -> None:
    assert "only `harness verify BUNDLE` works here" in run(bare, "harness", "status", code=1)
    assert "is not a signature" in " ".join(run(bare, "harness", "verify", "--help").split())
    assert "no such folder" in run(bare, "harness", "verify", "nowhere", code=2)
