"""The stages of a trial are functions of the harness, found by name: a renamed one fails here, not in a benchmark."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("watched", ["bench_worker.watch_worker", "coordinator_stages.watch_coordinator"])
def test_every_stage_is_a_function_that_there_is(watched: str) -> None:
    module, _, function = watched.partition(".")
    program = f"from tests.benchmarks.{module} import {function}; from tests.benchmarks.stages import Stages; {function}(Stages())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_program_that_opens_a_large_study_finds_what_it_imports() -> None:
    from tests.benchmarks.b10_scale import OPENED

    imports, _, _ = OPENED.partition("began =")
    names = "load_study, Record, choose_trial"
    done = subprocess.run(
        [sys.executable, "-c", imports + names], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
