"""Row 25: twelve secrets are planted where people have them; none is in what is kept or printed."""

import re
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, quote_plus

import psutil
import pytest

from harness.core.environment import OFF
from harness.core.redaction import HIDDEN, holds_secret, redact
from harness.tracking.server.server import free_port
from tests.faults.test_doors import listeners
from tests.harness.places.workplace import Workspace, before_others

IN_ENVIRONMENT = {
    "HF_TOKEN": "hf_PlantedPlantedPlanted01",
    "AWS_SECRET_ACCESS_KEY": "planted02/wJalrXUtnFEMI+bPxRf",
    "AWS_ACCESS_KEY_ID": "AKIAPLANTED03PLANTED",
    "GITHUB_TOKEN": "ghp_PlantedPlantedPlanted04",
    "DB_PASSWORD": "planted05 with spaces & signs?",
    "WANDB_API_KEY": "planted06c0ffee",
    "MLFLOW_TRACKING_PASSWORD": "planted07-mlflow",
}
PROXY, SERVER, REMOTE = "planted08proxy", "planted09/server", "planted10remote"
IN_SWEEP = ("hf_PlantedPlantedPlanted11", "planted12%20in%20url")
SECRETS = (*IN_ENVIRONMENT.values(), PROXY, SERVER, REMOTE, *IN_SWEEP)

SWEEP = """\
name: tiny
data: {corpus: demo, train_windows: 120, val_windows: 96, test_windows: 96}
parameters: {feature: mfcc, width: 0.0625, epochs: {choice: [1, 2]}}
sampler: grid
pruner: none
budget: {trials: 2}
workers: 1
"""

# What a user's own code may do: print its environment, and fail with an address in the message.
PLUGIN = """\
import logging, os, sys
def fit(model, train, val, training, **options):
    print(dict(os.environ), flush=True); print(os.environ["HF_TOKEN"], file=sys.stderr); logging.error(os.environ["DB_PASSWORD"])
    if training.epochs == 2:
        secrets = [value for name, value in os.environ.items() if "PLANTED" in value.upper()]
        raise RuntimeError(f"https://me:{os.environ['WANDB_API_KEY']}@host refused {secrets}, https_proxy={os.environ['HTTPS_PROXY']}")
    return own(model, train, val, training, **options)
if "harness.execution.executors.worker" in sys.orig_argv:
    from harness.training import trial
    own, trial.fit = trial.fit, fit
"""


def spelled(secret: str) -> set[bytes]:
    return {
        secret.encode(),
        quote(secret, safe="").encode(),
        quote(secret).encode(),
        repr(secret).encode()[1:-1],
    }


def hits(secrets: tuple[str, ...], kept: Path, printed: str) -> dict[str, list[str]]:
    """For each secret where it is: in which files, or in what was printed."""
    contents = {str(path.relative_to(kept)): path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    contents["printed"] = printed.encode()
    found = {
        s: [name for name, text in contents.items() if any(one in text for one in spelled(s))]
        for s in secrets
    }
    return {secret: names for secret, names in found.items() if names}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.row(25)
def test_no_secret_is_kept_or_printed(
    tmp_path: Path, demo_cache: Path, measured: Callable[..., None]
) -> None:
    place = Workspace(tmp_path, demo_cache, SWEEP)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/planting.py").write_text(PLUGIN)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    remote = f"https://me:{REMOTE}@example.org/x.git"
    for words in (
        ["init", "-q"],
        ["remote", "add", "origin", remote],
        ["add", "tiny.yaml"],
        ["commit", "-qm", "x"],
    ):
        subprocess.run([*git, *words], check=True)
    path = before_others(tmp_path / "plugins")
    extra = {
        **IN_ENVIRONMENT, "HARNESS_PLUGINS": "planting", "PYTHONPATH": path, "NO_PROXY": "*",
        "HTTPS_PROXY": f"http://me:{PROXY}@127.0.0.1:9",
    }  # fmt: skip
    sweep = place.start("sweep", "tiny.yaml", **extra)
    heard: list[str] = []
    watcher = threading.Thread(target=_listen, args=(psutil.Process(sweep.pid), heard))
    watcher.start()
    printed = "".join(sweep.communicate(timeout=400))
    watcher.join()
    assert sweep.returncode == 0, printed
    states = [trial["state"] for trial in place.inside("status", "tiny")["trials"]]
    assert sorted(states) == ["complete", "failed"], printed
    away = f"http://me:{quote(SERVER, safe='')}@127.0.0.1:{free_port()}"
    one = (
        SWEEP.replace("name: tiny", "name: away")
        .replace("{choice: [1, 2]}", "2")
        .replace("trials: 2", "trials: 1")
    )
    (tmp_path / "away.yaml").write_text(one)
    said = place.start("sweep", "away.yaml", MLFLOW_TRACKING_URI=away, **extra).communicate(timeout=400)
    assert "127.0.0.1" in said[0], said[0]  # the server that is away is named, without its password
    assert list(place.record.spooled("away"))
    (tmp_path / "told.yaml").write_text(
        f"{SWEEP}description: {IN_SWEEP[0]}, https://me:{IN_SWEEP[1]}@example.org/x\n"
    )
    told = place.run("sweep", "told.yaml", code=2)
    assert "line 8: description: this looks like a secret" in told, told
    printed = "".join([printed, *said, told])
    record = place.record.root
    logs = "".join(one.read_text() for one in (record / "logs").glob("*.log"))
    assert logs.count(HIDDEN) > 8, "the plugin has not run"
    for name, value in OFF.items():
        assert f"{name!r}: {value!r}" in logs, "a dependency may tell others of this run"
    assert any(HIDDEN in one.read_text() for one in record.rglob("traceback.txt"))
    found = hits(SECRETS, record, printed)
    assert not found
    assert heard, "nobody was seen to listen"
    assert set(heard) == {"127.0.0.1"}
    files = sum(path.is_file() for path in record.rglob("*"))
    measured(
        f"{len(found)} of {len(SECRETS)} secrets found in {files} files and what was printed", holds=not found
    )


def _listen(process: psutil.Process, heard: list[str]) -> None:
    """Note where a process and its descendants listen, until it ends; its exit code is left to who started it."""
    while process.is_running():
        with suppress(psutil.Error):  # a child that ended in between
            if process.status() == psutil.STATUS_ZOMBIE:
                return
            heard += listeners(process)
        time.sleep(0.5)


@pytest.mark.parametrize("secret", SECRETS[:7])
def test_the_environments_secrets_are_hidden_however_they_are_spelled(secret: str) -> None:
    for one in (secret, quote(secret, safe=""), f"x{secret}y"):
        assert redact(f"a {one} b", IN_ENVIRONMENT).count(HIDDEN) == 1
        assert secret not in redact(f"a {one} b", IN_ENVIRONMENT)


@pytest.mark.parametrize(
    "plain",
    ["learning_rate=0.01", "max_tokens=100000", "tokenizer: whisper", "git@github.com:a/b", "hf://datasets/a@main/b",
     "http://127.0.0.1:5000/#/experiments/1", "the password: x", "sha256 0123456789abcdef", "key: feature",
     "sk-learn-baseline-for-everything", "ssh://git@github.com/x"],
)  # fmt: skip
def test_plain_text_stays(plain: str) -> None:
    assert redact(plain, {"HOME": "/root", "LANG": "de", "A_TOKEN": "x", "B_KEY": ""}) == plain


KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEF\nAASCBKcwggSjAgEAAoIBAQC7/+zz\n-----END PRIVATE KEY-----"


def test_each_line_of_a_key_is_hidden() -> None:
    for line in KEY.splitlines()[1:3]:
        assert redact(f"read: {line} of it", {"SSH_PRIVATE_KEY": KEY}) == f"read: {HIDDEN} of it"


def test_a_secret_is_hidden_however_a_form_or_a_client_quotes_it() -> None:
    secret = "a b&c/ü?d=e+f"
    whole = quote(secret, safe="")
    for spelled in (
        quote_plus(secret),
        quote(secret),
        whole,
        re.sub("%..", lambda code: code[0].lower(), whole),
    ):
        assert redact(f"x={spelled}", {"DB_PASSWORD": secret}) == f"x={HIDDEN}", spelled


@pytest.mark.parametrize(
    "plain",
    ["Count each token: speaker", "see ssh://git@github.com/x", "sk-learn-baseline-for-everything",
     "a harness of words", "the basic architectures"],
)  # fmt: skip
def test_a_description_of_plain_text_is_no_secret(plain: str) -> None:
    assert not holds_secret(plain, {"DB_PASSWORD": "harness", "A_TOKEN": "words"}, prose=True)


@pytest.mark.parametrize(
    "secret",
    ["token: hunter2hunter2", "https://me:words@example.org", "ssh://git:words@example.org", "sk-Planted0Planted1Planted",
     "it is kept-under-7-seals", "as base64: Basic bWU6cGFzc3dvcmQ="],
)  # fmt: skip
def test_a_secret_in_a_description_is_one(secret: str) -> None:
    assert holds_secret(secret, {"DB_PASSWORD": "kept-under-7-seals"}, prose=True)
    assert holds_secret("password=swordfish", {})
    assert HIDDEN in redact(secret, {"DB_PASSWORD": "kept-under-7-seals"})
