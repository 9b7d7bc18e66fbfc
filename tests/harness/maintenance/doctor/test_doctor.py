"""`harness doctor`: each thing that can be wrong is found and its fix is named; what is right is left as it is."""

import functools
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.core.settings import Settings
from harness.maintenance.doctor import corpora_checks, library_probe, machine_checks, record_checks
from harness.maintenance.doctor.library_probe import run_probe
from harness.study.storage.record import Record
from tests.harness.places.doctor_findings import problems_in
from tests.harness.places.workplace import run_in_process

ROOT = Path(__file__).parents[4]


def settings(folder: Path, device: str = "cpu") -> Settings:
    return Settings(folder / "mlruns", folder / "cache", device=device)


def package(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> None:
    """A library of this name that stands before the real one, in children too."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{ROOT}")


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, version: str) -> None:
    """A distribution as pip leaves it."""
    about = folder / "site" / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(about.parent))


# The machine

asked_once = functools.cache(run_probe)  # an answer takes seconds, and stays


def test_a_sound_machine_and_no_record_are_no_problem_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_checks, "run_probe", asked_once)
    found = [
        *machine_checks.python(), *machine_checks.torch(), *machine_checks.gpu(settings(tmp_path)),
        *machine_checks.providers(settings(tmp_path)),
    ]  # fmt: skip
    assert problems_in(found) == []
    assert {"python", "libraries", "torch", "gpu", "onnxruntime"} == {finding.subject for finding in found}
    record = Record(tmp_path / "mlruns")
    checks = (record_checks.layout, record_checks.permissions, record_checks.database, record_checks.stale)
    assert problems_in(finding for check in checks for finding in check(record)) == []
    assert problems_in(machine_checks.disk(settings(tmp_path))) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "raise ImportError('libcudart.so.13: cannot open shared object file')",
            "ImportError: libcudart.so.13",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", r"it died \(signal 11\)"),
        ("import time; time.sleep(60)", "no answer in 2 s"),
    ],
)
def test_a_torch_that_does_not_import_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    package(tmp_path, monkeypatch, "torch", code)
    monkeypatch.setattr(library_probe, "TIMEOUT_S", 2.0 if "sleep" in code else 60.0)
    (found,) = problems_in(machine_checks.torch())
    assert (found.level, found.subject) == ("problem", "torch")
    assert re.search(said, found.message)


def test_the_whole_of_doctor_works_where_torch_does_not_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path / "broken", monkeypatch, "torch", "raise ImportError('broken')")
    program = (
        "import sys; from pathlib import Path; from harness.maintenance.doctor import doctor, machine_checks; from harness.core.settings import Settings\n"
        "machine_checks.providers = lambda settings: iter(())\n"  # it has tests of its own, and costs seconds
        "for one in doctor.examine(Settings(Path('mlruns'), Path('cache')), Path()): print(one.level, one.subject, one.message)\n"
        "assert 'torch' not in sys.modules and 'mlflow' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=tmp_path, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    problems = [line for line in done.stdout.splitlines() if line.startswith("problem")]
    assert problems == ["problem torch does not import: ImportError: broken"]


def test_libraries_of_other_versions_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, monkeypatch, "mlflow", "2.9.2")
    installed(tmp_path, monkeypatch, "torchaudio", "2.4.0")
    (found,) = problems_in(machine_checks.python())
    assert "mlflow is 2.9.2, wanted ==3.17.*; torchaudio is 2.4.0, wanted ==2.11.*" in found.message
    monkeypatch.setattr(
        machine_checks, "run_probe", lambda *words: (True, "torch 2.11.0 and torchaudio 2.11.0")
    )
    (found,) = problems_in(machine_checks.torch())
    assert re.search(r"torch 2\.11\.\S+, torchaudio 2\.4\.0: they must be of one release", found.message)


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU that works")
def test_a_gpu_that_cannot_be_used_is_a_problem_and_its_provider_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_checks, "run_probe", asked_once)
    (gpu,) = problems_in(machine_checks.gpu(settings(tmp_path, "cuda")))
    assert gpu.level == "problem"
    assert gpu.message.startswith("present and unusable: the GPU cannot be used: ")
    (provider,) = problems_in(machine_checks.providers(settings(tmp_path, "cuda")))
    assert provider.level == "warn"
    assert "onnxruntime does not run on it" in provider.message


def test_two_installations_of_onnxruntime_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        installed(tmp_path / name, monkeypatch, name, "1.31.1")
    monkeypatch.setattr(machine_checks, "run_probe", lambda *words: (True, words[-1]))
    (found,) = problems_in(machine_checks.providers(settings(tmp_path)))
    assert "are both installed" in found.message


def test_every_variable_that_is_read_is_known_and_a_misspelt_one_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    product, tests = (
        {
            name
            for part in parts
            for path in (ROOT / part).rglob("*.py")
            for name in re.findall(r"\bHARNESS_[A-Z_]*[A-Z]\b", path.read_text("utf-8"))
        }
        for parts in (("harness", "models", "data"), ("tests",))
    )
    known = set(machine_checks.VARIABLES)
    assert product <= known <= product | tests
    for name in (name for name in list(os.environ) if name.startswith("HARNESS_")):
        monkeypatch.delenv(name)
    assert problems_in(machine_checks.environment()) == []
    monkeypatch.setenv("HARNESS_RECROD", "elsewhere")
    (found,) = problems_in(machine_checks.environment())
    assert (found.level, "did you mean HARNESS_RECORD?" in found.fix) == ("warn", True)
    monkeypatch.delenv("HARNESS_RECROD")
    monkeypatch.setenv("HARNESS_FOO", "1")
    (found,) = problems_in(machine_checks.environment())
    assert found.fix == "unset HARNESS_FOO"
    monkeypatch.delenv("HARNESS_FOO")
    monkeypatch.setenv("HARNESS_FAILPOINT", "writer.stored:1:kill")
    (found,) = problems_in(machine_checks.environment())
    assert (found.level, found.fix) == ("problem", "unset HARNESS_FAILPOINT")


def test_plugins_that_do_not_import_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_PLUGINS", "no_such_module")
    (found,) = problems_in(machine_checks.environment())
    assert "HARNESS_PLUGINS names 'no_such_module'" in found.message
    monkeypatch.delenv("HARNESS_PLUGINS")
    monkeypatch.setattr(machine_checks, "installed_plugins", lambda: ("an entry point",))
    monkeypatch.setattr(machine_checks, "run_probe", lambda _: (False, "entry point 'a' of b names 'c'"))
    (found,) = problems_in(machine_checks.environment())
    assert (found.level, found.fix) == ("problem", "mend that distribution, or uninstall it")


def test_an_executor_that_there_is_not_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_EXECUTOR", "locl")
    (found,) = problems_in(machine_checks.environment())
    assert found.message == "HARNESS_EXECUTOR: no such executor: 'locl'; did you mean local?"


def test_few_open_files_and_a_full_disk_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        (found,) = problems_in(machine_checks.limits())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert found.fix.startswith("ulimit -n ")
    monkeypatch.setattr(machine_checks, "MIN_FREE_BYTES", 10**18)
    levels = [finding.level for finding in problems_in(machine_checks.disk(settings(tmp_path)))]
    assert levels == ["problem", "warn", "warn"]


def test_a_probe_that_prints_more_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(
        tmp_path,
        monkeypatch,
        "torch",
        "__version__ = '2.11.0'\nprint('{not json')\nimport atexit; atexit.register(print, 'bye')",
    )
    package(tmp_path, monkeypatch, "torchaudio", "__version__ = '2.11.0'")
    assert run_probe("torch") == (True, "torch 2.11.0 and torchaudio 2.11.0")


# The data


def test_corpora_in_the_data_root_are_found_part_by_part(corpora: Path, tmp_path: Path) -> None:
    found = list(corpora_checks.data_root(Settings(tmp_path, tmp_path, corpora)))
    assert re.search(r"librispeech: dev-clean \(\d+ files\)", found[0].message)
    (lists,) = problems_in(found)  # the small copy of AMI goes by lists of its own
    assert (lists.level, "partition: lists" in lists.fix) == ("warn", True)


@pytest.mark.parametrize("made", [True, False])
def test_a_data_root_without_corpora_is_told(tmp_path: Path, made: bool) -> None:
    if made:
        (tmp_path / "root").mkdir()
    (found,) = problems_in(corpora_checks.data_root(Settings(tmp_path, tmp_path, tmp_path / "root")))
    assert found.level == ("warn" if made else "problem")
    assert "--data-root" in found.fix


def test_a_corpus_of_damaged_audio_is_a_problem(tmp_path: Path) -> None:
    chapter = tmp_path / "LibriSpeech" / "dev-clean" / "84" / "121123"
    chapter.mkdir(parents=True)
    (chapter / "84-121123-0000.flac").write_bytes(b"fLaC" + bytes(100))
    (found,) = problems_in(corpora_checks.data_root(Settings(tmp_path, tmp_path, tmp_path)))
    assert found.level == "problem"
    assert "librispeech dev-clean" in found.message


# The command


@pytest.fixture
def made(tmp_path: Path, new_record: Callable[[Path], Record]) -> Record:
    """An empty record with MLflow's database."""
    return new_record(tmp_path / "mlruns")


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the children, each of which has its tests."""
    monkeypatch.setattr(machine_checks, "run_probe", lambda *words: (True, "fine"))


def test_the_command_prints_lines_or_one_document_and_ends_as_it_says(
    tmp_path: Path, made: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    quick(monkeypatch)
    shutil.rmtree(made.root / "spool")
    (made.root / ".creating-abc").mkdir()
    made.root.chmod(0o755)
    shown = run_in_process(tmp_path, tmp_path / "cache", "doctor")
    assert re.search(r"^warn     leftovers: .*\.creating-abc was left", shown, re.MULTILINE)
    assert "         -> harness doctor --fix" in shown
    assert "\x1b" not in shown
    fixed = json.loads(run_in_process(tmp_path, tmp_path / "cache", "doctor", "--fix", "--json"))
    assert fixed["ok"]
    assert len(fixed["fixed"]) == 2
    assert all(set(one) == {"level", "subject", "message", "fix"} for one in fixed["findings"])
    again = json.loads(run_in_process(tmp_path, tmp_path / "cache", "doctor", "--fix", "--json"))
    assert again["fixed"] == []
    assert run_in_process(tmp_path, tmp_path / "cache", "doctor", "--quiet") == ""
    assert '"ok": false' in run_in_process(
        tmp_path, tmp_path / "cache", "doctor", "--json", code=1, HARNESS_FAILPOINT="x:1:kill"
    )
    run_in_process(tmp_path, tmp_path / "cache", "doctor", "--record", str(tmp_path / "cache-file"), code=0)
    (tmp_path / "file").write_text("")
    run_in_process(tmp_path, tmp_path / "cache", "doctor", "--record", "file", code=2)
