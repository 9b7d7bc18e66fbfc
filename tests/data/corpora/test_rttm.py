"""Laws of references: every turn is read, or one error names the file and the line."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.corpora.rttm import read_meetings, read_rttm, read_speakers, read_uem
from data.errors import DataError
from tests.data.meetings import draw_turns, speaker_ids, write_rttm

LINE = "SPEAKER m 1 1.00 2.00 <NA> <NA> MEE001 <NA> <NA>"
FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def outcome(reading, *given):
    """Return what is read and "", or None and the error."""
    try:
        return reading(*given), ""
    except DataError as error:
        return None, str(error)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("SPEAKER m 1 1.0", "4 fields"),
        (LINE + " more", "11 fields"),  # pandas would shift its columns
        (LINE.replace("1.00", "x"), "start 'x'"),
        (LINE.replace("1.00", "nan"), "start 'nan'"),  # would be dropped without a word
        (LINE.replace("2.00", "inf"), "duration 'inf'"),
        (LINE.replace("2.00", "-2.00"), "duration '-2.00'"),
        (LINE.replace("2.00", "1e300"), "duration '1e300'"),
        (LINE.replace("MEE001", "NA"), "names no speaker: 'NA'"),  # would be called nan
        (LINE.replace("MEE001", '"MEE001'), "do not belong"),  # would swallow the next lines
        (LINE.replace(" m ", " n "), "is of 'n', not of m"),
        (LINE.replace("SPEAKER", "speaker"), "a turn begins with 'SPEAKER'"),
        (LINE + "\0", "do not belong"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, words):
    path = tmp_path / "m.rttm"
    path.write_text(f"{LINE}\n\n{line}\n{LINE}\n")
    for reader in (read_rttm, read_speakers):
        with pytest.raises(DataError) as caught:
            reader(path, "m")
        assert str(caught.value).startswith(f"{path}, line 3 ")
        assert words in str(caught.value)


def test_comments_other_types_and_turns_of_no_length_are_passed_over(tmp_path):
    path = tmp_path / "m.rttm"
    path.write_text(f";; made by hand, and more words than an RTTM line has fields\nSPKR-INFO m 1 <NA>\n{LINE}\n"
                    f"{LINE.replace('2.00', '0.00')}\n{LINE.rpartition(' ')[0].replace('1.00', '7')}\r\n")  # fmt: skip
    turns = [(s.start, s.end, name) for s, _, name in read_rttm(path, "m").itertracks(yield_label=True)]
    assert turns == [(1.0, 3.0, "MEE001"), (7.0, 9.0, "MEE001")]


def test_what_is_no_text_is_one_error(tmp_path):
    path = tmp_path / "m.rttm"
    path.write_bytes(LINE.encode() + b"\n\xff\xfe")
    for reader in (read_rttm, read_speakers, read_uem):
        with pytest.raises(DataError, match="not text in UTF-8"):
            reader(path, "m")
        with pytest.raises(DataError, match="cannot be read"):
            reader(tmp_path, "m")
    for bad in (path, tmp_path):
        with pytest.raises(DataError, match="not a readable list"):
            read_meetings(bad)


@FUZZ
@given(data=st.data())
def test_a_broken_reference_is_read_whole_or_is_one_error(tmp_path, data):
    """Whatever the bytes: an Annotation of every turn, or a DataError; never a traceback of pandas."""
    field = st.one_of(
        st.sampled_from(
            [
                "SPEAKER",
                "m",
                "1",
                "1.0",
                "0.25",
                "<NA>",
                "NA",
                "nan",
                "inf",
                "-1",
                "1e5",
                "A",
                "B,C",
                "'",
                '"',
                ";;",
            ]
        ),
        st.text(max_size=4),
    )
    good = st.tuples(st.floats(0, 50), st.floats(0, 9), st.sampled_from("ABC")).map(
        lambda turn: f"SPEAKER m 1 {turn[0]:.3f} {turn[1]:.3f} <NA> <NA> {turn[2]} <NA> <NA>"
    )
    bent = st.tuples(st.integers(0, 9), field).map(
        lambda change: " ".join(change[1] if at == change[0] else old for at, old in enumerate(LINE.split()))
    )
    lines = st.lists(st.one_of(good, bent, st.lists(field, max_size=12).map(" ".join)), max_size=5)
    raw = data.draw(
        st.one_of(lines.map(lambda ls: "\n".join(ls).encode(errors="replace")), st.binary(max_size=60))
    )
    path = tmp_path / "m.rttm"
    path.write_bytes(raw)
    for reader in (read_rttm, read_uem):
        found, error = outcome(reader, path, "m")
        assert (found is None) == (str(path) in error)
        if reader is read_rttm and found is not None:
            assert set(found.labels()) == read_speakers(path, "m")
            assert all(isinstance(name, str) for name in found.labels())
    path.with_suffix(".txt").write_bytes(raw)
    names, error = outcome(read_meetings, path.with_suffix(".txt"))
    assert (names is None) == ("m.txt" in error)


@FUZZ
@given(seed=st.integers(0, 2**32), speakers=st.integers(1, 6), seconds=st.floats(3, 60))
def test_a_written_reference_reads_back(tmp_path, seed, speakers, seconds):
    turns = draw_turns(np.random.default_rng(seed), speaker_ids("EN2001a", speakers), seconds)
    path = tmp_path / "EN2001a.rttm"
    write_rttm(path, "EN2001a", turns)
    annotation = read_rttm(path, "EN2001a")
    found = [(s.start, s.end, name) for s, _, name in annotation.itertracks(yield_label=True)]
    assert found == [(pytest.approx(start), pytest.approx(end), name) for start, end, name in turns]
    for name in annotation.labels():  # a speaker's own turns are disjoint
        own = annotation.label_timeline(name)
        assert own.duration() == pytest.approx(sum(segment.duration for segment in own))
    assert all(0 <= start < end <= seconds + 0.01 for start, end, _ in turns)
