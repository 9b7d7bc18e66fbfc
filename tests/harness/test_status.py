"""`harness status` on a study that is longer than anybody reads."""

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner

from harness.cli import cli
from harness.commands.status import SHOWN
from harness.record import Record
from tests.harness.places.untrained_study import outcome, told_study


def test_a_long_study_shows_its_best_and_json_has_them_all(
    tmp_path: Path, new_record: Callable[[Path], Record]
) -> None:
    record = new_record(tmp_path / "mlruns")
    count = SHOWN + 7
    told_study(
        record, [({"feature": "mfcc", "width": 0.125}, outcome(0.5 + at / 1000)) for at in range(count)]
    )
    place = ("--record", str(record.root))
    shown = CliRunner().invoke(cli, ["status", "told", *place])
    assert shown.exit_code == 0, shown.output
    rows = [line.split()[0] for line in shown.output.splitlines() if " complete " in line]
    assert rows == [str(number) for number in reversed(range(7, count))]
    assert f"{SHOWN} of {count} trials; --json has them all" in shown.output
    everything = json.loads(CliRunner().invoke(cli, ["status", "told", "--json", *place]).stdout)
    assert len(everything["trials"]) == count
