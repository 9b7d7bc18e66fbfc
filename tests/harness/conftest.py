"""What several tests of the harness begin with."""

from pathlib import Path

import pytest

from harness.record import Record


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """What Optuna's half needs, without the seconds that MLflow's database takes."""
    record = Record(tmp_path / "mlruns")
    for folder in (record.root, record.spool, record.locks):
        folder.mkdir()
    record.database.touch()
    return record
