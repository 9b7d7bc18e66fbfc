import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
from click.testing import CliRunner, Result
from filelock import FileLock

from harness.cli import FIRST, MORE, cli
from harness.commands.options import exit_code_of, message_of, settings
from harness.launch import Launch
from harness.record import Record
from harness.study import Study, TrialSummary, load_study, open_study
from harness.sweep import load_sweep
from harness.sweep_file import read_sweep_file
from harness.sweep_schema import json_schema

COMMANDS = [*FIRST, *MORE]


def run(*words: object, **environment: str) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words], env=environment)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every command runs in an empty folder, without what the caller's shell sets."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("HARNESS_")]:
        monkeypatch.delenv(name)
    return tmp_path


# Help


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["nonsense"],
        ["sweep"],
        ["init", "x.yaml"],
        ["sweep", "none.yaml"],
        ["sweep", "--help"],
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(tmp_path: Path, words: list[str]) -> None:
    program = (
        "import sys\nsys.argv = ['harness', *sys.argv[1:]]\n"
        "from harness.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'mlflow', 'optuna', 'numpy', 'onnx', 'onnxruntime', 'scipy', 'sklearn', 'librosa', 'pandas'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.splitlines()[-1] == "HEAVY []", done.stdout


def test_help_imports_no_command_at_all() -> None:
    program = "import sys; from harness.cli import cli; cli(['--help'], standalone_mode=False); print([m for m in sys.modules if m.startswith(('harness.', 'pydantic', 'ruamel', 'rich'))])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['harness.cli']"


def test_the_first_help_shows_the_everyday_commands_first() -> None:
    text = run("--help").output
    places = [text.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places)
    assert text.index("Commands:") < text.index("More:")
    assert "Exit codes: 0 done" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.help
    assert all(option.help for option in command.params if isinstance(option, click.Option))


@pytest.mark.parametrize(
    "flag",
    [
        "--record",
        "--data-root",
        "--cache",
        "--workers",
        "--device",
        "--json",
        "--quiet",
        "--set",
        "--name",
        "--trials",
    ],
)
def test_sweep_has_the_options_that_users_rely_on(flag: str) -> None:
    assert flag in run("sweep", "--help").output


# Wrong usage


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["swep"], "Did you mean sweep?"),
        (["promte", "x"], "Did you mean promote?"),
        (["zzz"], "See harness --help."),
        (["sweep"], "Missing argument 'FILE'"),
        (["sweep", "x.yaml", "--trails", "3"], "--trials"),
        (["sweep", "x.yaml", "--trials", "0"], "0 is not in the range"),
        (["sweep", "x.yaml", "--workers", "many"], "is not a valid integer"),
        (["sweep", "x.yaml", "--device", "tpu"], "'tpu' is not one of"),
        (["status", "a", "b"], "unexpected extra argument"),
        (["init", "absent/x.yaml"], "there is no folder absent"),
        (["promote"], "Missing argument"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_to_type(words: list[str], message: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_no_command_shows_the_help() -> None:
    result = run()
    assert result.exit_code == 2
    assert "harness sweep sweeps/quickstart.yaml" in result.output


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


@pytest.mark.parametrize(
    ("name", "module", "code"),
    [
        ("GateRefusedError", "harness.gate", 3), ("GuardRefusedError", "harness.assessment", 3),
        ("PolicyError", "harness.policy", 2),
        ("DataChangedError", "harness.study", 3), ("OutOfSpaceError", "harness.coordinator", 1),
        ("SweepError", "harness.sweep_file", 2), ("DataError", "data.errors", 2), ("Other", "builtins", None),
        ("ServerError", "harness.server", 1), ("ExportError", "models.export.export", 1),
        ("WeightsError", "models.checkpoints", 1), ("WorkersFailedError", "harness.executors.protocol", 1),
        ("PromotionError", "harness.promotion", 1), ("MlflowException", "mlflow.exceptions", 1),
        ("ConnectionError", "requests.exceptions", 1), ("MlflowException", "elsewhere", None),
    ],
)  # fmt: skip
def test_errors_end_with_their_codes(name: str, module: str, code: int | None) -> None:
    error = type(name, (ValueError,), {"__module__": module})("x")
    assert exit_code_of(error) == code


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
    monkeypatch.setattr("harness.sweep_schema.json_schema", lambda: dict[str, int]()["absent"])
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
    monkeypatch.setattr("harness.launch.launch", lambda *_: signal.raise_signal(number))
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
        "from harness.commands.options import common\n"
        "@common()\n"
        "def command():\n"
        "    try: signal.raise_signal(signal.SIGTERM)\n"
        "    finally: signal.raise_signal(signal.SIGINT); time.sleep(60)\n"
        "command()\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=30, check=False).returncode == 130


def test_nohup_stays_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        monkeypatch.setattr("harness.sweep_schema.json_schema", lambda: signal.raise_signal(signal.SIGHUP))
        assert run("schema").exit_code == 0
    finally:
        signal.signal(signal.SIGHUP, before)


# The end of a sweep


def trial(number: int = 0, state: str = "complete") -> TrialSummary:
    interval = {"low": 0.8, "high": 0.9, "windows": 96, "clusters": 96}
    return TrialSummary(
        number, state, f"{number:03} mfcc", 0.85 if state == "complete" else None, 5, "", {},
        {"interval": interval}, {}, f"fingerprint {number}",
    )  # fmt: skip


def ended(monkeypatch: pytest.MonkeyPatch, *words: str, **fields: Any) -> Result:
    """`harness sweep s.yaml WORDS` of a launch that ended so."""
    Path("s.yaml").write_text("name: x\n")
    plain = {
        "study": "x", "resumed": True, "trials": [trial()], "new_trials": 0, "inspections": [], "seconds": 1.0,
        "signal": None, "exhausted": False, "out_of_time": False, "unstored": [], "problem": None, "budget": 2,
    }  # fmt: skip
    monkeypatch.setattr("harness.launch.launch", lambda *_: Launch(**{**plain, **fields}))
    return run("sweep", "s.yaml", *words, HARNESS_CACHE="from the environment")


GIVEN = ["--set", "seed=1", "--set", "description=a b", "--name", "x", "--trials", "2", "--record", "my record",
         "--data-root", "d", "--workers", "1", "--device", "cpu"]  # fmt: skip
SAME = "--set seed=1 --set 'description=a b' --name x{} --record 'my record' --data-root d --workers 1 --device cpu\n"


def test_what_is_printed_goes_on_with_this_very_study(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = ended(monkeypatch, *GIVEN, signal=15)
    assert stopped.exit_code == 143
    assert "stopped. To go on: harness sweep s.yaml " + SAME.format(" --trials 2") in stopped.stdout
    spent = ended(monkeypatch, *GIVEN, trials=[trial(0), trial(1)])
    assert "the budget of 2 trials is spent. For more: harness sweep s.yaml " in spent.stdout
    assert SAME.format(" --trials 4") in spent.stdout
    assert "compare: harness ui --record 'my record'\n" in spent.stdout
    assert "export:  harness promote x --record 'my record' --data-root d\n" in spent.stdout


def test_what_is_printed_stays_short_where_little_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ended(monkeypatch, trials=[trial(0), trial(1)]).stdout.splitlines()
    assert "the budget of 2 trials is spent. For more: harness sweep s.yaml --trials 4" in lines
    assert lines[-2:] == ["compare: harness ui", "export:  harness promote x"]


def test_a_launch_out_of_time_claims_no_spent_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = ended(monkeypatch, out_of_time=True).stdout
    assert "stopped after budget.hours; to go on: harness sweep s.yaml\n" in shown
    assert "is spent" not in shown


def test_a_stopped_sweep_still_prints_its_document(monkeypatch: pytest.MonkeyPatch) -> None:
    result = ended(monkeypatch, "--json", signal=2)
    assert result.exit_code == 130
    assert json.loads(result.stdout)["interrupted"] is True


# init and schema


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("sweep.yaml", "sweep"), ("my sweep.yaml", "my-sweep"), ("2024.yaml", "2024"), ("1e3.yaml", "1e3"), ("true.yaml", "true"),
        ("null.yaml", "null"), ("0x1F.yaml", "0x1F"), ("größe.yaml", "gr--e"), ("...yaml", "sweep"), ("{x}.yaml", "x"),
        ("it's # odd.yaml", "it-s---odd"), ("x" * 120 + ".yaml", "x" * 80),
    ],
)  # fmt: skip
def test_what_init_writes_loads(elsewhere: Path, file: str, name: str) -> None:
    result = run("init", file)
    assert result.exit_code == 0, result.output
    sweep = load_sweep(elsewhere / file)
    assert sweep.name == name
    assert "harness sweep" in result.output
    jsonschema.Draft202012Validator(json_schema()).validate(read_sweep_file(elsewhere / file).values)


def test_what_init_writes_holds_its_command_in_one_comment(elsewhere: Path) -> None:
    assert run("init", "a b\nc: d.yaml").exit_code == 0
    assert load_sweep(elsewhere / "a b\nc: d.yaml").name == "a-b-c--d"


def test_init_leaves_an_existing_file_alone(elsewhere: Path) -> None:
    (elsewhere / "sweep.yaml").write_text("mine")
    result = run("init")
    assert result.exit_code == 2
    assert "sweep.yaml exists already" in result.output
    assert (elsewhere / "sweep.yaml").read_text() == "mine"


def test_init_follows_no_dangling_link(elsewhere: Path) -> None:
    (elsewhere / "sweep.yaml").symlink_to(elsewhere / "target")
    assert run("init").exit_code == 2
    assert not (elsewhere / "target").exists()


def test_init_can_be_quiet() -> None:
    assert run("init", "--quiet").output == ""


def test_schema_prints_the_schema() -> None:
    result = run("schema")
    assert result.exit_code == 0
    document: dict[str, Any] = json.loads(result.stdout)
    assert document == json_schema()
    assert document["$schema"].startswith("https://json-schema.org/")


# status


def test_status_without_a_record_says_what_to_do(elsewhere: Path) -> None:
    result = run("status")
    assert result.exit_code == 2
    assert "no record at" in result.stderr
    assert "harness sweep FILE" in result.stderr
    assert list(elsewhere.iterdir()) == []


def test_status_of_an_empty_record_is_empty(elsewhere: Path) -> None:
    record = Record(elsewhere / "there")
    record.locks.mkdir(parents=True)
    record.database.touch()
    assert json.loads(run("status", "--json", "--record", "there").stdout) == {"studies": []}
    assert json.loads(run("status", "--json", HARNESS_RECORD="there").stdout) == {"studies": []}
    unknown = run("status", "x", "--record", "there")
    assert unknown.exit_code == 2
    assert "no study is called 'x'" in unknown.stderr


@pytest.fixture
def left(elsewhere: Path) -> Study:
    """A study whose coordinator died: one trial runs, one was never started."""
    (elsewhere / "s.yaml").write_text("name: x\n")
    record = Record(elsewhere / "there")
    record.locks.mkdir(parents=True)
    record.database.touch()
    study = open_study(record, load_sweep(elsewhere / "s.yaml"))
    running = study.optuna_study.ask()
    running.set_user_attr("name", "1000 mfcc lr 0.01")
    running.set_user_attr("fingerprint", "f")
    study.optuna_study.ask().set_user_attr("state", "abandoned")
    return load_study(record, "x")


def states(*words: str) -> list[str]:
    document = json.loads(run("status", "x", "--json", "--record", "there", *words).stdout)
    return [trial["state"] for trial in document["trials"]]


def test_a_trial_that_nobody_runs_was_interrupted(left: Study, elsewhere: Path) -> None:
    lock = FileLock(elsewhere / "there" / "locks" / "study-x.lock")
    assert states() == ["interrupted"]
    with lock:
        assert states() == ["running"]
    assert states() == ["interrupted"]
    with lock.acquire(timeout=0):
        pass  # `status` let go of it
    row = json.loads(run("status", "--json", "--record", "there").stdout)["studies"][0]
    assert (row["trials"], row["interrupted"], row["running"]) == (1, 1, 0)
    shown = run("status", "x", "--record", "there").stdout
    assert "mfcc lr 0.01" in shown
    assert "1000" not in shown


# ui and settings


def test_ui_with_a_teams_server_prints_its_links_and_starts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.tracking.connect", lambda uri: uri)
    monkeypatch.setattr("harness.tracking.study_links", lambda client, url: {"x": f"{url}/#/1"})
    team = {"MLFLOW_TRACKING_URI": "https://me:secret@mlflow.example/base/"}
    shown = run("ui", **team)
    assert shown.exit_code == 0
    assert shown.stdout.splitlines() == [
        "MLFLOW_TRACKING_URI is set; the runs are on https://mlflow.example/base",
        "  x: https://mlflow.example/base/#/1",
    ]
    assert run("ui", "--quiet", **team).stdout == "https://mlflow.example/base\n"
    assert json.loads(run("ui", "--json", **team).stdout)["studies"] == {
        "x": "https://mlflow.example/base/#/1"
    }


def test_a_tilde_is_the_home_folder_in_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    where = settings(record=Path("~/r"), cache=Path("~/c"), data_root=Path("~/d"))
    assert [where.record, where.cache, where.data_root] == [Path(f"/home/me/{name}") for name in "rcd"]
    with pytest.raises(click.UsageError, match="no such user"):
        settings(record=Path("~nobody-of-this-name/r"))
