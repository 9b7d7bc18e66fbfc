"""How a command ends that cannot go on: its exit code and its one message, or document, for bad files, errors and signals."""

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli.exits import exit_code_of, message_of
from tests.harness.places.command_line import run

pytestmark = pytest.mark.usefixtures("elsewhere")


# Bad files


def test_a_bad_file_ends_with_2_and_every_mistake(elsewhere: Path) -> None:
    (elsewhere / "s.yaml").write_text("name: a b\nparameters:\n  learning_rat: 1\n")
    result = run("sweep", "s.yaml")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines()[0] == "error: s.yaml: 2 mistakes"
    assert "line 3: parameters.learning_rat: no such parameter; did you mean learning_rate?" in result.stderr
    assert not (elsewhere / "mlruns").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["sweep", "none.yaml"],
        ["data", "audit", "none.yaml"],
        ["status"],
        ["status", "x"],
        ["promote", "x"],
        ["sweep"],
        ["sweep", "x.yaml", "--workers", "0"],
        ["sweep", "x.yaml", "--trails", "3"],
        ["init", "absent/x.yaml"],
        ["ui", "--port", "0"],
        ["data", "none"],
        ["nonsense"],
        [],
    ],
)
def test_json_prints_one_document_also_for_an_error(words: list[str]) -> None:
    result = run(*words, "--json")
    assert result.stderr == ""
    assert result.exit_code == 2
    document = json.loads(result.stdout)
    assert set(document) == {"error", "exit_code"}
    assert document["exit_code"] == 2
    assert document["error"]


@pytest.mark.parametrize(
    "override",
    [
        "budget.trials",
        "budget.trials=0",
        "parameters.learning_rat=1",
        "sampler.type=grd",
        "seed=[",
        "seed=*a",
    ],
)
def test_a_bad_override_ends_with_2_and_names_itself(elsewhere: Path, override: str) -> None:
    (elsewhere / "s.yaml").write_text("name: x\n")
    result = run("sweep", "s.yaml", "--set", override)
    assert result.exit_code == 2
    assert "--set" in result.stderr
    assert override.split("=")[0] in result.stderr


@pytest.mark.parametrize("words", [("sweep", "s.yaml"), ("confirm", "s")])
def test_a_patience_that_is_none_ends_with_2_at_once(elsewhere: Path, words: tuple[str, ...]) -> None:
    (elsewhere / "s.yaml").write_text("name: x\n")
    result = run(*words, HARNESS_HANG_S="abc")
    assert result.exit_code == 2
    assert "HARNESS_HANG_S is 'abc': give seconds" in result.stderr
    assert [path.name for path in elsewhere.iterdir()] == ["s.yaml"]


def test_a_bad_study_name_ends_with_2(elsewhere: Path) -> None:
    (elsewhere / "s.yaml").write_text("name: x\n")
    result = run("sweep", "s.yaml", "--name", "my study")
    assert result.exit_code == 2
    assert "for example my-study" in result.stderr


def test_mlflows_trouble_is_one_line() -> None:
    base = type("MlflowException", (Exception,), {"__module__": "mlflow.exceptions"})
    error = type("RestException", (base,), {"__module__": "mlflow.exceptions"})(
        "the server is away\n  a trace"
    )
    assert (exit_code_of(error), message_of(error)) == (1, "MLflow: the server is away")


def test_a_full_disk_says_what_to_do() -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "/there/x")
    assert exit_code_of(error) == 1
    assert message_of(error).startswith("no space left on /there/x: free some space and run the same")
    assert exit_code_of(OSError(errno.ENOENT, "no such file", "/there/x")) is None


def test_a_bug_keeps_its_traceback_and_json_its_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.config.json_schema.json_schema", lambda: dict[str, int]()["absent"])
    assert isinstance(run("schema").exception, KeyError)
    result = run("schema", "--json")
    assert json.loads(result.stdout) == {"error": "KeyError: 'absent'", "exit_code": 1}
    assert "Traceback" in result.stderr


def test_init_on_an_existing_file_prints_one_document(elsewhere: Path) -> None:
    (elsewhere / "sweep.yaml").touch()
    result = run("init", "--json")
    assert result.exit_code == json.loads(result.stdout)["exit_code"] == 2


# Signals while a command prepares


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_preparation_ends_with_its_code(
    number: signal.Signals, as_json: bool, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / "s.yaml").write_text("name: x\n")
    before = [signal.getsignal(one) for one in signal.Signals if one.name in ("SIGINT", "SIGTERM", "SIGHUP")]
    monkeypatch.setattr("harness.execution.launch.launch", lambda *_: signal.raise_signal(number))
    result = run("sweep", "s.yaml", *(["--json"] if as_json else []))
    assert result.exit_code == 128 + number
    if as_json:
        assert json.loads(result.stdout)["exit_code"] == 128 + number
    else:
        assert result.stderr == "stopped; the same command goes on\n"
    after = [signal.getsignal(one) for one in signal.Signals if one.name in ("SIGINT", "SIGTERM", "SIGHUP")]
    assert after == before


def test_a_second_signal_leaves_at_once(elsewhere: Path) -> None:
    program = (
        "import signal, sys, time\n"
        "from harness.cli.options import common_options\n"
        "@common_options()\n"
        "def command():\n"
        "    try: signal.raise_signal(signal.SIGTERM)\n"
        "    finally: signal.raise_signal(signal.SIGINT); time.sleep(60)\n"
        "command()\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=30, check=False).returncode == 130


def test_nohup_stays_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        monkeypatch.setattr(
            "harness.config.json_schema.json_schema", lambda: signal.raise_signal(signal.SIGHUP)
        )
        assert run("schema").exit_code == 0
    finally:
        signal.signal(signal.SIGHUP, before)
