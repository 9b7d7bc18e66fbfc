import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
from click.testing import CliRunner, Result

from harness.cli import FIRST, MORE, cli
from harness.commands.options import exit_code_of
from harness.record import Record
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
        pytest.param(["promote", "x"], marks=pytest.mark.slow),
    ],
)
def test_json_prints_one_document_also_for_an_error(words: list[str]) -> None:
    result = run(*words, "--json")
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


def test_a_bad_study_name_ends_with_2(elsewhere: Path) -> None:
    (elsewhere / "s.yaml").write_text("name: x\n")
    result = run("sweep", "s.yaml", "--name", "my study")
    assert result.exit_code == 2
    assert "for example my-study" in result.stderr


@pytest.mark.parametrize(
    ("name", "module", "code"),
    [
        ("GateRefusedError", "harness.gate", 3), ("GuardRefusedError", "harness.guards", 3),
        ("DataChangedError", "harness.study", 3), ("OutOfSpaceError", "harness.coordinator", 1),
        ("SweepError", "harness.sweep_file", 2), ("DataError", "data.errors", 2), ("Other", "builtins", None),
    ],
)  # fmt: skip
def test_errors_end_with_their_codes(name: str, module: str, code: int | None) -> None:
    error = type(name, (ValueError,), {"__module__": module})("x")
    assert exit_code_of(error) == code


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
