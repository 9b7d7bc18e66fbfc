"""The documents are tests: every command in them exists, and everything that exists stands in them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from data.labels import LABEL_RULES
from harness.cli.main import cli
from harness.config.files.sweep_loader import load_sweep
from harness.config.parameters import Choice, Fixed, FloatRange, IntRange
from harness.config.search_space import SearchSpace
from tests.harness.places.workplace import run_in_process

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))
# Set by the harness for its own children, and by tests.
INTERNAL_VARIABLES = {
    "HARNESS_WORKER", "HARNESS_FAILPOINT", "HARNESS_FAILPOINT_ONCE", "HARNESS_LEDGER",
    "HARNESS_FAULTS", "HARNESS_FAULT_SEED", "HARNESS_REQUIRE_ALL",
}  # fmt: skip


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def commands_of(text: str) -> Iterator[str]:
    """Command lines of `console` blocks, after the prompt, and of `bash` blocks, without their comments."""
    for block in blocks(text, "console"):
        yield from (line[2:] for line in block.splitlines() if line.startswith("$ "))
    for block in blocks(text, "bash"):
        yield from (
            shlex.join(words)
            for line in block.replace("\\\n", " ").splitlines()
            if (words := shlex.split(line, comments=True))
        )


def all_commands() -> list[str]:
    heads = [file.read_text("utf-8").splitlines()[0].removeprefix("# ") for file in SWEEPS]
    return sorted({*commands_of(README), *commands_of(CONTRIBUTING), *heads})


def every_command() -> Iterator[tuple[str, click.Command]]:
    """(`harness data audit`, its command) for every command that does something."""

    def walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        if not isinstance(command, click.Group):
            yield name, command
            return
        context = click.Context(command)
        for part in command.list_commands(context):
            inner = command.get_command(context, part)
            assert inner is not None, f"{name} {part} is listed and absent"
            yield from walk(f"{name} {part}", inner)

    return walk("harness", cli)


COMMANDS = dict(every_command())


def parse(words: list[str]) -> dict[str, Any]:
    """What a command line of ours means; click's UsageError where it means nothing."""
    command: click.Command = cli
    while isinstance(command, click.Group):
        inner = command.get_command(click.Context(command), words[0])
        assert inner is not None, f"no such command: {words[0]}"
        command, words = inner, words[1:]
    return command.make_context("harness", list(words)).params


def run(folder: Path, cache: Path, *words: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli.main", *words], cwd=folder, text=True, capture_output=True, timeout=400,
        env={**os.environ, "HARNESS_CACHE": str(cache), "NO_COLOR": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == code, f"{words} -> {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def documented(command: str) -> set[str]:
    rows = [line.split("|") for line in README.splitlines() if line.startswith("| ")]
    (fields,) = (row[2] for row in rows if row[1].strip().strip("`") == command)
    return set(re.findall(r"`(\w+)`", fields))


def test_there_are_commands_to_look_at() -> None:
    assert {"make sweep", "make test", "harness ui", "harness promote quickstart"} <= set(all_commands())
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("line", all_commands())
def test_every_command_in_the_documents_exists(line: str) -> None:
    program, *words = shlex.split(line)
    if program == "make":
        assert f"\n{words[0]}:" in (ROOT / "Makefile").read_text("utf-8")
        return
    assert program == "harness", f"who runs {program}?"
    params = parse(words)
    if str(params.get("file", "")).startswith("sweeps/"):
        load_sweep(ROOT / params["file"], params["overrides"])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_stands_in_the_readme(name: str) -> None:
    assert re.search(rf"{name}\b", README), f"{name} is not in README.md"
    shown = CliRunner().invoke(cli, [*name.split()[1:], "--help"])
    assert shown.exit_code == 0
    assert (COMMANDS[name].help or "").strip()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_described_and_stands_in_the_readme(name: str) -> None:
    for param in COMMANDS[name].params:
        if not isinstance(param, click.Option):
            continue
        assert param.help, f"{name} {param.opts[0]} has no help"
        for option in param.opts:
            assert f"`{option}" in README, f"{name} {option} is not in README.md"
        if isinstance(param.envvar, str):
            assert f"`{param.envvar}`" in README


def test_every_variable_stands_in_the_readme() -> None:
    sources = (
        path.read_text("utf-8")
        for part in ("harness", "models", "data")
        for path in (ROOT / part).rglob("*.py")
    )
    found = {name for source in sources for name in re.findall(r"\bHARNESS_[A-Z_]+\b", source)}
    assert {"HARNESS_RECORD", "HARNESS_PLUGINS"} <= found
    assert {name for name in found - INTERNAL_VARIABLES if f"`{name}`" not in README} == set()


def test_the_readme_knows_the_exit_codes() -> None:
    from harness.cli.exits import EXIT_FAILED, EXIT_INPUT, EXIT_REFUSED

    shown = README[README.index("Exit codes:") :].split("\n\n")[0]
    for code, word in (
        (0, "done"),
        (EXIT_FAILED, "failed"),
        (EXIT_INPUT, "wrong"),
        (EXIT_REFUSED, "refused"),
    ):
        assert f"{code} {word}" in shown
    assert "129, 130 or 143" in shown


def test_the_sweep_file_of_the_readme_shows_every_form(tmp_path: Path) -> None:
    (example,) = blocks(README, "yaml")
    (tmp_path / "mine.yaml").write_text(example, "utf-8")
    sweep = load_sweep(tmp_path / "mine.yaml")
    assert {type(form) for form in sweep.parameters.values()} == {Fixed, Choice, IntRange, FloatRange}
    assert any(form.when for form in sweep.parameters.values())


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_shipped_sweep_loads_and_opens_with_what_to_expect(path: Path) -> None:
    head = path.read_text("utf-8").partition("\nname:")[0]
    command = f"# harness sweep sweeps/{path.name}"
    if head.startswith(f"{command} --data-root DIR\n"):  # needs a corpus that cannot be had everywhere
        assert "Expected: not measured" in head
    else:
        assert head.startswith(f"{command}\n")
        assert re.search(r"Expected: \d+ minutes? on 2 CPU cores, best score about \.\d", head)
    assert f"sweeps/{path.name}" in README
    sweep = load_sweep(path)
    assert sweep.name == path.stem
    combinations = SearchSpace(sweep).combinations()
    if sweep.sampler.type == "grid":
        assert combinations is not None
        assert sum(1 for _ in combinations) == sweep.budget.trials


def test_the_label_rule_of_the_guide_can_be_registered() -> None:
    (example,) = blocks(CONTRIBUTING, "python")
    before = dict(LABEL_RULES)
    try:
        exec(compile(example, "CONTRIBUTING.md", "exec"), {})
        assert len(LABEL_RULES) == len(before) + 1
    finally:
        LABEL_RULES.clear()
        LABEL_RULES.update(before)


def test_the_cheap_commands_of_the_readme_do_what_it_says(tmp_path: Path) -> None:
    shown = set(commands_of(README))
    assert {"harness init my.yaml", "harness schema", "harness status"} <= shown
    run_in_process(tmp_path, tmp_path, "init", "my.yaml")
    assert load_sweep(tmp_path / "my.yaml").name == "my"
    assert set(json.loads(run_in_process(tmp_path, tmp_path, "init", "other.yaml", "--json"))) == documented(
        "init"
    )
    assert json.loads(run_in_process(tmp_path, tmp_path, "schema"))["title"]
    run(tmp_path, tmp_path, "status", code=2)  # there is no record in this folder


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_data_commands_of_the_readme_do_what_it_says(tmp_path: Path, demo_cache: Path) -> None:
    shutil.copytree(ROOT / "sweeps", tmp_path / "sweeps")
    data = [shlex.split(line) for line in commands_of(README) if line.startswith("harness data")]
    demo = [words for words in data if "--data-root" not in words]
    assert len(demo) == 2
    for _, *words in demo:
        run(tmp_path, demo_cache, *words)
    assert not (tmp_path / "mlruns").exists()


TINY = """\
name: quickstart
data: {train_windows: 240, val_windows: 96, test_windows: 96}
parameters: {feature: mfcc, learning_rate: 0.01, width: 0.125, epochs: 5}
sampler: random
pruner: none
budget: {trials: 1}
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_json_documents_and_the_example_in_python_are_as_the_readme_has_them(
    tmp_path: Path, demo_cache: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY, "utf-8")

    def document(*words: str, code: int = 0) -> dict[str, Any]:
        return dict(json.loads(run_in_process(tmp_path, demo_cache, *words, "--json", code=code)))

    audit = document("data", "audit", "tiny.yaml")
    sweep = json.loads(run(tmp_path, demo_cache, "sweep", "tiny.yaml", "--json"))
    status, study = document("status"), document("status", "quickstart")
    review, plan = (
        document("promote", "quickstart", "--dry-run"),
        document("confirm", "quickstart", "--dry-run"),
    )
    promotion = json.loads(run(tmp_path, demo_cache, "promote", "quickstart", "--json"))
    verified, why = document("verify", "promoted/quickstart"), document("why", "quickstart", "0")
    assert set(audit) == documented("data audit")
    assert set(document("data", "prepare", "tiny.yaml")) == documented("data prepare")
    assert set(sweep) == documented("sweep")
    assert {*status, *status["studies"][0]} == documented("status")
    assert set(study) == documented("status STUDY")
    assert set(promotion) == documented("promote")
    assert set(review) == documented("promote --dry-run")
    assert set(plan) == documented("confirm --dry-run")
    assert set(verified) == documented("verify")
    assert set(why) == documented("why")
    assert set(document("promote", "nothing", code=2)) == documented("any that fails")
    inner = [
        sweep["best"], sweep["best"]["interval"], audit["data"][0], audit["data"][0]["checks"][0],
        promotion["trial"], promotion["test"], promotion["guards"][0], promotion["latency"],
        promotion["variants"][0], plan["finalists"][0], why["decisions"][0], verified["checks"][0],
    ]  # fmt: skip
    assert {key for part in inner for key in part if f"`{key}`" not in README} == set()

    (example,) = blocks(README, "python promoted-model")
    isolated = [sys.executable, "-I", "-W", "error", "-c", example]
    subprocess.run(isolated, cwd=tmp_path, check=True, timeout=120)
