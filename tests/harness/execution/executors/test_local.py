"""Workers that fail: how it is told, who is replaced, how long a silent one is waited for."""

import sys
import time
from pathlib import Path

import pytest

from harness.execution.executors.local import (
    VISIBLE,
    LocalExecutor,
    PatienceError,
    gpu_of,
    hang_timeout_s,
    visible_gpus,
)
from harness.execution.executors.protocol import Event, TrialDone, TrialFailed
from harness.training.failures import failure_kind, is_fatal_cuda_error
from harness.training.job import FailureKind, Job

# What a worker says, without the seconds that torch takes: it fails the job 0 for good, and does every other.
WORKER = """#!{python}
import json, os, sys
from multiprocessing.connection import Connection
link = Connection(int(sys.argv[-2]))
def say(message, /, **content):
    link.send_bytes(json.dumps(dict(content, message=message)).encode())
say("ready")
while True:
    (job,) = json.loads(link.recv_bytes())["jobs"]
    if job["number"] == 0:
        say("failed", number=0, kind="infrastructure", reason="CUDA error: x", traceback="", spent=True)
    else:
        say("done", number=job["number"], outcome={{"pid": os.getpid()}})
"""


def job(number: int) -> Job:
    return Job(number, {}, "", "", "", 0, {})


def heard(executor: LocalExecutor, count: int) -> list[Event]:
    """The next events, and whatever comes in a quarter of a second after them."""
    events: list[Event] = []
    deadline = time.monotonic() + 60
    while len(events) < count and time.monotonic() < deadline:
        events += executor.poll(0.1)
    until = time.monotonic() + 0.25
    while time.monotonic() < until:
        events += executor.poll(0.1)
    return events


def test_a_worker_that_cannot_go_on_is_replaced_before_it_gets_another_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "worker"
    program.write_text(WORKER.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    executor = LocalExecutor(1, "cpu", tmp_path / "logs")
    try:
        executor.submit(job(1))
        (first,) = heard(executor, 1)
        for _ in range(6):  # more than the deaths after which a sweep gives up
            executor.submit(job(0))
            (failed,) = heard(executor, 1)
            assert isinstance(failed, TrialFailed)
            assert failed.kind == "infrastructure"
        assert executor.idle == 1
        executor.submit(job(2))
        (last,) = heard(executor, 1)
    finally:
        executor.close()
    assert isinstance(first, TrialDone)
    assert isinstance(last, TrialDone)
    assert first.outcome["pid"] != last.outcome["pid"]
    assert not Path(f"/proc/{first.outcome['pid']}").exists()


@pytest.mark.parametrize(
    ("text", "kind", "spent"),
    [
        (
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
            "out_of_memory",
            False,
        ),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "out_of_memory", False),
        ("CUDA error: out of memory", "out_of_memory", False),
        ("CUDA error: an illegal memory access was encountered", "infrastructure", True),
        (
            "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`",
            "infrastructure",
            True,
        ),
        ("mat1 and mat2 shapes cannot be multiplied", "configuration", False),
    ],
)
def test_errors_of_a_gpu_are_told_apart(text: str, kind: FailureKind, spent: bool) -> None:
    error = RuntimeError(text)
    assert (failure_kind(error), is_fatal_cuda_error(error)) == (kind, spent)


@pytest.mark.parametrize("told", ["abc", "0", "-1", "nan", "inf"])
def test_a_patience_that_is_no_number_of_seconds_is_named(
    told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_HANG_S", told)
    with pytest.raises(PatienceError, match=rf"HARNESS_HANG_S is '{told}': give seconds, more than 0 \(600"):
        LocalExecutor(1, "cpu", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_patience_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HANG_S", "2.5")
    assert hang_timeout_s() == 2.5
    monkeypatch.setenv("HARNESS_HANG_S", "")
    assert hang_timeout_s() == 600


@pytest.mark.parametrize(
    ("told", "expected"),
    [("0,1,2", ["0", "1", "2"]), ("GPU-a, GPU-b", ["GPU-a", "GPU-b"]), ("1", ["1"]), ("", []), ("-1", [])],
)
def test_gpus_are_those_that_the_environment_lets_this_process_see(
    monkeypatch: pytest.MonkeyPatch, told: str, expected: list[str]
) -> None:
    monkeypatch.setenv(VISIBLE, told)
    assert visible_gpus() == expected
    assert LocalExecutor.default_slots("cuda") == max(1, len(expected))


def test_workers_take_the_gpus_in_turn_and_a_single_one_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VISIBLE, "4,7")
    assert [gpu_of(index, "cuda").get(VISIBLE) for index in range(3)] == ["4", "7", "4"]
    assert gpu_of(0, "cpu") == {}
    monkeypatch.setenv(VISIBLE, "4")
    assert gpu_of(1, "cuda") == {}
