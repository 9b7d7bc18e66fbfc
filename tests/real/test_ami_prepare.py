"""The real cut of AMI: twelve meetings of 30 s, in lists that are not the official partition."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.corpora.ami.disk import AmiReader
from data.corpora.ami.hub import AmiHubReader
from data.corpora.base import Request
from data.corpora.rttm import reference
from data.errors import DataError
from tests.data.meetings import write_hub

pytestmark = pytest.mark.needs_corpora
PARTS = ("train", "dev", "test")
MEETINGS = {
    "train": ("EN2001a", "EN2001b", "EN2001d", "EN2001e", "EN2003a", "EN2004a", "EN2005a", "EN2009b"),
    "dev": ("ES2003a", "ES2003b"),
    "test": ("EN2006a", "EN2006b"),
}


def scan(reader, root, cache, parts, partition):
    found = reader.locate(Request(parts, root, cache, print, partition=partition))
    return reader.scan(found, reader.listing(found, parts))


@pytest.fixture(scope="module")
def by_lists(corpora, tmp_path_factory):
    return scan(AmiReader(), corpora, tmp_path_factory.mktemp("unused"), PARTS, "lists")


@pytest.mark.parametrize("partition", [None, "full-corpus-asr"])
def test_its_lists_are_not_the_official_partition_and_refused(corpora, tmp_path, partition):
    with pytest.raises(DataError) as caught:
        scan(AmiReader(), corpora, tmp_path, PARTS, partition)
    for words in (
        "ES2003a, ES2003b: dev there, train officially",
        "EN2006a, EN2006b: test there, train officially",
        "`partition: lists`",
    ):
        assert words in str(caught.value)


def test_by_its_own_lists_every_meeting_is_read(by_lists):
    assert {part: tuple(r.id for r in rs) for part, rs in by_lists.recordings.items()} == MEETINGS
    assert by_lists.lost == ()
    assert by_lists.remarks == ("AMI by this folder's own lists: not comparable with the official partition",)
    recordings = [r for rs in by_lists.recordings.values() for r in rs]
    assert {r.sample_rate for r in recordings} == {16_000}
    assert all(29.9 < r.duration_s < 30.1 for r in recordings)
    assert all(r.sex[s.speaker] == s.speaker[0] for r in recordings for s in r.segments)
    assert all(0 <= s.start_s < s.end_s <= r.duration_s + 1e-4 for r in recordings for s in r.segments)


def test_the_references_hold_the_speech_of_the_rttm_files(by_lists):
    # ES2003a, by hand from its RTTM: MEE009 from 2.13 for 11.05 s, MEE012 from 13.24 for 3.57 s ...
    (first, second, *_) = by_lists.recordings["dev"][0].segments
    assert (first.start_s, first.end_s, first.speaker) == (
        pytest.approx(2.13),
        pytest.approx(13.18),
        "MEE009",
    )
    assert (second.start_s, second.end_s, second.speaker) == (
        pytest.approx(13.24),
        pytest.approx(16.81),
        "MEE012",
    )
    # People interrupt each other: some meetings overlap, and nobody talks for longer than the cut.
    annotations = [reference(r) for rs in by_lists.recordings.values() for r in rs]
    assert sum(annotation.get_overlap().duration() for annotation in annotations) > 5
    assert all(annotation.get_timeline().support().duration() <= 30.1 for annotation in annotations)


def test_as_the_hubs_parquet_it_is_the_same_corpus(corpora: Path, by_lists, tmp_path):
    hub = write_hub(corpora / "AMI", tmp_path / "hub", MEETINGS)
    parts = ("train", "validation", "test")
    with pytest.raises(DataError, match="ES2003a, ES2003b: validation there, train officially"):
        scan(AmiHubReader(), hub, tmp_path / "cache", parts, None)
    found = scan(AmiHubReader(), hub, tmp_path / "cache", parts, "lists")
    assert found.lost == ()
    for ours, theirs in zip(parts, PARTS, strict=True):
        for a, b in zip(found.recordings[ours], by_lists.recordings[theirs], strict=True):
            assert (a.id, a.group, a.num_samples, a.sex) == (b.id, b.group, b.num_samples, b.sex)
            assert a.path.read_bytes() == b.path.read_bytes()
            assert [(s.start_s, s.end_s, s.speaker) for s in a.segments] == [
                (pytest.approx(s.start_s, abs=1e-3), pytest.approx(s.end_s, abs=1e-3), s.speaker)
                for s in b.segments
            ]
