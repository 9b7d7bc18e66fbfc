"""What is installed, from what, and what happens when an installation goes wrong."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PACKAGES = ("harness", "models", "data")
TOP_LEVEL = {
    "harness", "models", "data", "sweeps", "tests", "mlruns.dvc", "pyproject.toml", "constraints.txt", "Makefile",
    "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "docs", ".ci", ".dvc", ".dvcignore", ".gitignore",
}  # fmt: skip


def pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


PINS = {canonicalize_name(pin.name): pin for pin in pins()}


def declared() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(text) for texts in (PROJECT["dependencies"], *extras) for text in texts]


def needed() -> Iterator[metadata.Distribution]:
    """Every installed distribution that the project needs with its extras, directly or not."""
    waiting = [(requirement, "") for requirement in declared()]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        found = metadata.distribution(requirement.name)
        yield found
        for wanted in ("", *requirement.extras):
            if (key := (canonicalize_name(requirement.name), wanted)) not in seen:
                seen.add(key)
                waiting += [(Requirement(text), wanted) for text in found.requires or ()]


def test_constraints_are_exact_versions_and_name_no_place() -> None:
    names = [canonicalize_name(pin.name) for pin in pins()]
    assert len(set(names)) == len(names)
    for pin in pins():
        assert re.fullmatch(r"==[^*]+", str(pin.specifier)), pin
        assert pin.url is None
        assert not pin.extras
    assert not re.search(r"^-|/", (ROOT / "constraints.txt").read_text("utf-8"), flags=re.MULTILINE)


def test_every_declared_dependency_is_pinned_within_its_bounds() -> None:
    for requirement in declared():
        pin = PINS[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(str(pin.specifier)[2:]), f"{requirement} against {pin}"


# Programs of the benchmarks' peers, which run in environments of their own (tests/benchmarks/peer_environments.py).
PEERS = {"ray", "hydra", "omegaconf"}


def imported(folder: Path) -> set[str]:
    """Modules of other projects that the sources in a folder import, by their first name."""
    trees = (ast.parse(path.read_text("utf-8")) for path in folder.rglob("*.py"))
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    own = {*PACKAGES, "tests", *sys.stdlib_module_names, *(path.stem for path in folder.rglob("*.py"))}
    return {name.partition(".")[0] for name in names} - own


@pytest.mark.parametrize("folder", [*PACKAGES, "tests"])
def test_what_is_imported_is_declared(folder: str) -> None:
    runtime = [Requirement(text) for text in PROJECT["dependencies"]]
    allowed = {canonicalize_name(one.name) for one in (declared() if folder == "tests" else runtime)}
    providers = metadata.packages_distributions()
    missing = {
        module: providers.get(module, ["not installed"])
        for module in imported(ROOT / folder)
        if not allowed & {canonicalize_name(name) for name in providers.get(module, ())}
        and not (folder == "tests" and module in PEERS)
    }
    assert missing == {}, "declare it in pyproject.toml"


def test_what_is_installed_is_what_is_pinned() -> None:
    installed = {canonicalize_name(found.name): found.version for found in needed()}
    assert len(installed) > 100
    wrong = {
        name: (version, str(PINS.get(name)))
        for name, version in installed.items()
        if name != "setuptools" and (name not in PINS or not PINS[name].specifier.contains(version))
    }
    assert wrong == {}, "constraints.txt and this environment differ"


def test_what_comes_next_is_pinned_with_it() -> None:
    assert {"ray", "dvc", "datasets", "pyannote-core", "pyannote-database", "pyannote-metrics"} <= set(PINS)


def test_ignored_patterns_hide_no_package() -> None:
    patterns = (ROOT / ".gitignore").read_text("utf-8").split()
    loose = {pattern.strip("/") for pattern in patterns if not pattern.startswith("/")}
    assert loose & {*PACKAGES, "mlruns", "promoted", "sweeps", "tests"} == set()
    assert {"/mlruns/", "/promoted/", "/.venv/"} <= set(patterns)


def test_nothing_else_stands_at_the_top() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git repository")
    assert {line.split("/")[0] for line in done.stdout.splitlines()} <= TOP_LEVEL


def test_no_test_folder_is_a_package() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


@pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="hatchling is not installed here")
def test_the_wheel_holds_the_packages_and_nothing_else(tmp_path: Path) -> None:
    copy = tmp_path / "source"
    ignored = shutil.ignore_patterns(
        ".venv", ".git", "mlruns", "promoted", "__pycache__", ".*_cache", ".hypothesis"
    )
    shutil.copytree(ROOT, copy, ignore=ignored)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", tmp_path, copy],
        check=True, timeout=120,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert {f"harness/reporting/page/templates/report.{kind}.j2" for kind in ("html", "md")} <= set(names)
    assert {f"harness/config/policies/{name}.yaml" for name in ("default", "production")} <= set(names)


# A Python that makes virtual environments of itself and whose pip only says what it was asked for.
STUB_PYTHON = """\
#!/bin/sh
case "$*" in
  *"import ensurepip"*) exit "${STUB_NO_VENV:-0}" ;;
  *version_info*) echo "@VERSION@" ;;
  -V) echo "Python @VERSION@.1" ;;
  "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python
    printf '#!/bin/sh\\necho 0.1.0\\n' >.venv/bin/harness && chmod +x .venv/bin/harness ;;
  "-m pip install"*) echo "pip: $*"; if [ "${STUB_PIP:-}" = killed ]; then kill -9 $PPID; fi; exit "${STUB_PIP:-0}" ;;
  *) echo "unexpected: $*" >&2; exit 99 ;;
esac
"""
STUB_DF = "#!/bin/sh\nprintf 'Filesystem 1024-blocks Used Available Capacity Mounted\\nx 1 1 %s 1 /\\n' \"${STUB_FREE_KB:-99000000}\"\n"

Install = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with a space in its name, and in it what an installation reads."""
    folder = tmp_path / "a clone"
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in {
        "python3.9": STUB_PYTHON.replace("@VERSION@", "3.9"), "python3.11": STUB_PYTHON.replace("@VERSION@", "3.11"),
        "python3.12": STUB_PYTHON.replace("@VERSION@", "3.12"), "df": STUB_DF,
    }.items():  # fmt: skip
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    return folder


@pytest.fixture
def install(clone: Path) -> Install:
    def run(*words: str, folder: Path = clone, **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{clone.parent / 'bin'}:/usr/bin:/bin"
        inherited = {key: value for key, value in os.environ.items() if key != "PYTHON"}
        return subprocess.run(
            ["sh", ".ci/install", *words], cwd=folder, env={**inherited, "PATH": path, **environment},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    return run


def leave_a_mark(folder: Path) -> Path:
    mark = folder / ".venv" / "mark"
    mark.touch()
    return mark


def test_the_cost_is_said_before_it_is_paid_and_only_once(install: Install) -> None:
    first = install()
    assert first.returncode == 0, first.stderr
    assert "Python 3.12" in first.stdout  # the newest of those that are tested
    said, paid = first.stdout.index("3.3 GB"), first.stdout.index("pip: ")
    assert said < paid
    assert "-c constraints.txt -e ." in first.stdout
    again = install()
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


@pytest.mark.parametrize("end", ["1", "killed"])
def test_a_broken_installation_is_begun_anew(install: Install, clone: Path, end: str) -> None:
    assert install(STUB_PIP=end).returncode != 0
    mark = leave_a_mark(clone)
    again = install()
    assert again.returncode == 0
    assert "broken off" in again.stdout
    assert not mark.exists()
    assert install().stdout == ""


def test_a_broken_update_is_begun_anew(install: Install, clone: Path) -> None:
    install()
    assert install("dev", STUB_PIP="killed").returncode != 0
    again = install()
    assert "broken off" in again.stdout
    assert again.returncode == 0


@pytest.mark.parametrize("name", ["constraints.txt", "pyproject.toml"])
def test_changed_requirements_bring_it_up_to_date(install: Install, clone: Path, name: str) -> None:
    install()
    mark = leave_a_mark(clone)
    with (clone / name).open("a") as file:
        file.write("# changed\n")
    shown = install().stdout
    assert "up to date" in shown
    assert "pip: " in shown
    assert mark.exists()
    assert install().stdout == ""


def test_what_development_needs_is_added_and_never_taken_back(install: Install, clone: Path) -> None:
    install()
    mark = leave_a_mark(clone)
    assert "-e .[dev]" in install("dev").stdout
    assert mark.exists()
    assert install().stdout == install("dev").stdout == ""
    (clone / "constraints.txt").touch()
    assert install().stdout == ""  # a date is no reason


def test_a_moved_folder_is_installed_anew(install: Install, clone: Path) -> None:
    install("dev")
    moved = clone.rename(clone.with_name("moved"))
    shown = install(folder=moved).stdout
    assert "moved" in shown
    assert "-e .[dev]" in shown


def test_another_python_is_installed_anew_only_when_asked_for(install: Install, clone: Path) -> None:
    install(PYTHON="python3.11")
    assert install().stdout == ""
    assert install(PYTHON="python3.11").stdout == ""
    shown = install(PYTHON="python3.12").stdout
    assert "it has Python 3.11" in shown
    assert install(PYTHON="python3.11").returncode == 0


def test_a_python_that_is_gone_is_replaced(install: Install, clone: Path) -> None:
    install()
    (clone / ".venv" / "bin" / "python").unlink()
    assert "its Python is gone" in install().stdout


def test_what_is_missing_is_said_and_nothing_is_touched(install: Install, clone: Path) -> None:
    for environment, words in (
        (
            {"PYTHON": "python3.9"},
            ("Python 3.11, 3.12 or 3.13 is needed; python3.9 is 3.9", "apt-get install", "brew"),
        ),
        ({"PYTHON": "python9"}, ("python9 is absent",)),
        ({"STUB_NO_VENV": "1", "PYTHON": "python3.12"}, ("sudo apt-get install python3.12-venv",)),
        ({"STUB_FREE_KB": "2000000"}, ("only 1953 MB are free", "are needed")),
    ):
        done = install(**environment)
        assert done.returncode == 1
        assert all(word in done.stderr for word in words), done.stderr
        assert not (clone / ".venv").exists()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed here")
def test_make_alone_lists_every_target() -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    shown = subprocess.run(
        ["make"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    for target in ("sweep", "ui", "test", "lint", ".venv"):
        assert f"make {target} " in shown


@pytest.mark.parametrize("name", ["install", "run"])
def test_scripts_can_be_run_and_parse(name: str) -> None:
    script = ROOT / ".ci" / name
    assert os.access(script, os.X_OK)
    shell = script.read_text("utf-8").splitlines()[0].rpartition("/")[2].split()[-1]
    subprocess.run([shell, "-n", script], check=True)
