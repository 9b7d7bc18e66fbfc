"""The ledger of test openings counts every opening and survives a torn line."""

from pathlib import Path

from harness.ledger import LEDGER, open_test


def test_openings_count_by_study_and_by_all_on_the_same_windows(tmp_path: Path) -> None:
    assert open_test(tmp_path, "a", 0, "m").by_study == 1
    assert open_test(tmp_path, "a", 3, "m").by_study == 2
    assert open_test(tmp_path, "b", 0, "other").by_all == 1
    third = open_test(tmp_path, "a-2", 0, "m")
    assert (third.by_study, third.by_all) == (1, 3)


def test_a_torn_line_costs_itself_only(tmp_path: Path) -> None:
    open_test(tmp_path, "a", 0, "m")
    with (tmp_path / LEDGER).open("a") as file:
        file.write('{"study": "a", "tri')
    assert open_test(tmp_path, "a", 1, "m").by_study == 2
    assert open_test(tmp_path, "a", 2, "m").by_study == 3
