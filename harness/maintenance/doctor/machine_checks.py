"""What `harness doctor` looks at outside the record: Python, libraries, GPU, providers, disk, limits, environment."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from data.errors import nearest
from data.plugins import installed_plugins
from harness.core.disk_space import MIN_FREE_BYTES
from harness.core.failpoints import VARIABLE as FAILPOINT
from harness.core.settings import Settings
from harness.execution.executors.build import VARIABLE as EXECUTOR
from harness.maintenance.doctor.finding import Finding, ok, problem, warn
from harness.maintenance.doctor.library_probe import run_probe
from harness.study.storage.record import Record

PROJECT = "diarization-harness"
# A worker holds about 60 files and sockets, its MLflow server some hundred.
MIN_FILES = 1024
# Every variable that the harness reads, with those of its own children and tests.
VARIABLES = (
    "HARNESS_RECORD", "HARNESS_DATA", "HARNESS_CACHE", "HARNESS_CACHE_SIZE", "HARNESS_PLUGINS", "HARNESS_WORKER",
    EXECUTOR,
    FAILPOINT, "HARNESS_FAILPOINT_ONCE", "HARNESS_LEDGER", "HARNESS_HANG_S", "HARNESS_UI_PASSWORD", "HARNESS_FAULTS",
    "HARNESS_FAULT_SEED", "HARNESS_REQUIRE_ALL",
)  # fmt: skip


def python() -> Iterator[Finding]:
    """The interpreter, and whether every library stands at a version that the project asks for."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    try:
        about = metadata.metadata(PROJECT)
    except metadata.PackageNotFoundError:
        yield warn(
            "python", f"{version}; {PROJECT} is not installed, so its requirements are not known", _install()
        )
        return
    wanted = about["Requires-Python"]
    if SpecifierSet(wanted).contains(version, prereleases=True):
        yield ok("python", version)
    else:
        yield problem("python", f"{version} is not {wanted}", f"make an environment with Python {wanted}")
    wrong, right = [], 0
    for line in metadata.requires(PROJECT) or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = _version(requirement.name)
        if found is not None and requirement.specifier.contains(found, prereleases=True):
            right += 1
        else:
            wrong.append(f"{requirement.name} is {found or 'missing'}, wanted {requirement.specifier}")
    if wrong:
        yield problem("libraries", "; ".join(wrong), _install())
    else:
        yield ok(
            "libraries", f"{right} as required, mlflow {_version('mlflow')}, optuna {_version('optuna')}"
        )


def torch() -> Iterator[Finding]:
    """Whether torch and torchaudio are of one release and build, and import."""
    versions = {name: _version(name) for name in ("torch", "torchaudio")}
    releases = {".".join(str(version).split("+")[0].split(".")[:2]) for version in versions.values()}
    shown = ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items())
    if len(releases) > 1 or None in versions.values():
        yield problem("torch", f"{shown}: they must be of one release", _install())
    works, text = run_probe("torch")
    if not works:
        yield problem(
            "torch", f"does not import: {text}", "reinstall: pip install --force-reinstall torch torchaudio"
        )
        return
    builds = {part.partition("+")[2] for part in text.split() if part[0].isdigit()}
    if len(builds) > 1:
        fix = "install both from one index: pip install --force-reinstall torch torchaudio"
        yield warn("torch", f"{text} are built for different devices", fix)
    elif len(releases) == 1:
        yield ok("torch", text)


def gpu(settings: Settings) -> Iterator[Finding]:
    """Whether a GPU that the machine shows can be used by a worker: one product of matrices is computed on it."""
    if settings.resolved_device != "cuda":
        hidden = (
            f" (CUDA_VISIBLE_DEVICES is {hides!r})"
            if (hides := os.environ.get("CUDA_VISIBLE_DEVICES"))
            else ""
        )
        yield ok("gpu", f"none that a sweep would use{hidden}: trials run on the CPU")
        return
    works, text = run_probe("device", "cuda")
    if works:
        yield ok("gpu", text)
    else:
        fix = "mend the driver or install a torch built for it; until then: --device cpu"
        yield problem("gpu", f"present and unusable: {text}", fix)


def providers(settings: Settings) -> Iterator[Finding]:
    """Which of onnxruntime's providers run a model: one is listed even where its libraries are missing."""
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
    if len(installed) > 1:
        yield problem(
            "onnxruntime",
            "onnxruntime and onnxruntime-gpu are both installed: each overwrites files of the other",
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu",
        )
    works, text = run_probe("provider", "cpu")
    if not works:
        fix = f"reinstall: pip install --force-reinstall {installed[0] if installed else 'onnxruntime'}"
        yield problem("onnxruntime", f"does not run a model on the CPU: {text}", fix)
        return
    yield ok("onnxruntime", f"{' '.join(f'{name} {_version(name)}' for name in installed)}: {text} runs")
    works, text = run_probe("provider", "cuda")
    if works:
        yield ok("onnxruntime", f"{text} runs")
    elif settings.resolved_device == "cuda":
        fix = "pip install onnxruntime-gpu of the CUDA version that torch has; until then models are served on the CPU"
        yield warn("onnxruntime", f"a GPU is there, and onnxruntime does not run on it: {text}", fix)
    else:
        yield ok("onnxruntime", f"nothing runs on a GPU: {text}")


def disk(settings: Settings) -> Iterator[Finding]:
    """Free space, and the right to write, in record, cache and the folder for temporary files.

    Too little is a problem for the record, elsewhere a warning.
    """
    places = {
        "record": settings.record,
        "cache": settings.cache,
        "temporary files": Path(tempfile.gettempdir()),
    }
    for name, path in places.items():
        there = path.absolute()
        while not there.exists():
            there = there.parent
        free = shutil.disk_usage(there).free
        shown = f"{free / 1e9:.1f} GB free for {name} at {path}"
        if free >= MIN_FREE_BYTES:
            yield ok("disk", shown)
        else:
            level = problem if name == "record" else warn
            fix = f"free some: a sweep needs {MIN_FREE_BYTES / 1e9:.1f} GB or more"
            yield level("disk", shown, fix)
        if not os.access(there, os.W_OK) and there != Record(settings.record).root:  # of which more is said
            name_of_option = {"record": "--record", "cache": "--cache"}.get(name, "TMPDIR")
            fix = f"make it writable, or name another with {name_of_option}"
            yield problem("disk", f"{name} at {path} may not be written", fix)


def limits() -> Iterator[Finding]:
    """How many files a process may open (RLIMIT_NOFILE, soft): sweeps with many workers need 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
    if soft == resource.RLIM_INFINITY or soft >= MIN_FILES:
        yield ok("open files", f"{shown} allowed")
        return
    more = MIN_FILES * 4 if hard == resource.RLIM_INFINITY else min(hard, MIN_FILES * 4)
    yield warn(
        "open files", f"{shown} allowed, a sweep of many workers needs {MIN_FILES}", f"ulimit -n {more}"
    )


def environment() -> Iterator[Finding]:
    """Variables that are misspelt or make the harness die on purpose; plug-ins or an executor that do not import."""
    ours = sorted(name for name in os.environ if name.startswith("HARNESS_"))
    for name in ours:
        if name not in VARIABLES:
            own = [known.removeprefix("HARNESS_") for known in VARIABLES]  # what all share says nothing
            near = nearest(name.removeprefix("HARNESS_"), own)
            fix = f"did you mean HARNESS_{near}? Else: unset {name}" if near else f"unset {name}"
            yield warn("environment", f"{name} is set, and nothing reads it", fix)
    if os.environ.get(FAILPOINT):
        text = f"{FAILPOINT} is {os.environ[FAILPOINT]!r}: the harness fails there on purpose"
        yield problem("environment", text, f"unset {FAILPOINT}")
    if os.environ.get("HARNESS_PLUGINS") or installed_plugins():
        works, text = run_probe("plugins")
        if works:
            yield ok("environment", f"plugins: {text}")
        elif text.startswith("HARNESS_PLUGINS"):
            yield problem("environment", text, "correct HARNESS_PLUGINS, or put the folder on PYTHONPATH")
        else:
            yield problem("environment", text, "mend that distribution, or uninstall it")
    if os.environ.get(EXECUTOR):
        works, text = run_probe("executor")
        yield (
            ok("environment", f"executor: {text}")
            if works
            else problem("environment", text, f"correct {EXECUTOR}, or name its plug-in in HARNESS_PLUGINS")
        )
    known = [name for name in ours if name in VARIABLES]
    yield ok("environment", f"set: {', '.join(known)}" if known else "no variable of the harness is set")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _install() -> str:
    return "install again as README.md says: make .venv, or pip install -c constraints.txt -e ."
