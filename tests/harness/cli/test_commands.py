"""The command line's help, its wrong usage, its settings, and the commands that read no record."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest

from harness.cli.main import FIRST, MORE, cli
from harness.cli.options import settings
from harness.config.files.sweep_loader import load_sweep, read_sweep_file
from harness.config.json_schema import json_schema
from tests.harness.places.command_line import run

pytestmark = pytest.mark.usefixtures("elsewhere")

COMMANDS = [*FIRST, *MORE]

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
        "from harness.cli.main import main\n"
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
    program = "import sys; from harness.cli.main import cli; cli(['--help'], standalone_mode=False); print([m for m in sys.modules if m.startswith(('harness.', 'pydantic', 'ruamel', 'rich'))])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['harness.cli', 'harness.cli.main']"


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


# ui and settings


def test_ui_with_a_teams_server_prints_its_links_and_starts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.tracking.experiment.connect", lambda uri: uri)
    monkeypatch.setattr("harness.tracking.experiment.study_links", lambda client, url: {"x": f"{url}/#/1"})
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
