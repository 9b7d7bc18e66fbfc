"""The record that the repository ships was made by an earlier build: this one opens, goes on with and promotes it."""

import json
from pathlib import Path

import pytest

from harness.maintenance.snapshot.dvc_pointer import POINTER, read_manifest, read_pointer
from tests.harness.places.workplace import run_in_process

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def shipped_record(root: Path, folder: Path) -> None:
    """Put the objects that mlruns.dvc points to where they belong, as `dvc checkout` does."""
    remote = root / ".dvc" / "reference"
    for name, md5 in read_manifest(remote, read_pointer(root / POINTER).digest).items():
        path = folder / "mlruns" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((remote / "files" / "md5" / md5[:2] / md5[2:]).read_bytes())
    (folder / "mlruns" / "locks").mkdir(exist_ok=True)


def test_a_record_of_an_earlier_build_opens_goes_on_and_is_promoted(
    root: Path, tmp_path: Path, demo_cache: Path
) -> None:
    shipped_record(root, tmp_path)

    def harness(*words: str) -> str:
        return run_in_process(tmp_path, demo_cache, *words)

    before = json.loads(harness("status", "quickstart", "--json"))["trials"]
    assert {trial["state"] for trial in before} == {"complete", "pruned"}
    pruned = next(trial["number"] for trial in before if trial["state"] == "pruned")
    assert f"trial {pruned} was pruned by the median rule at epoch " in harness(
        "why", "quickstart", str(pruned)
    )
    harness("report", "quickstart")
    sweep = str(root / "sweeps" / "quickstart.yaml")
    after = json.loads(harness("sweep", sweep, "--trials", str(len(before) + 1), "--json"))
    assert (after["resumed"], after["new_trials"], after["spent"]) == (True, 1, len(before) + 1)
    assert after["trials"][: len(before)] == before
    harness("promote", "quickstart", "--run", str(max(before, key=lambda trial: trial["score"])["number"]))
    harness("verify", "promoted/quickstart")
