"""Laws of the reader of AMI folders: parts, references, and refusals that say what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pyannote.core import Annotation

from data.corpora import CORPORA
from data.corpora.ami.disk import AmiReader
from data.corpora.ami.partition import OFFICIAL, PARTS, group_of, sex_of
from data.corpora.base import Request
from data.corpora.rttm import reference
from data.errors import DataError
from tests.data.meetings import MEETINGS, Files, speaker_ids, write_ami, write_rttm


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_ami(tmp_path_factory.mktemp("written") / "AMI", seconds=12.0, voices=False)


@pytest.fixture
def ami(written, tmp_path):
    """A folder of one's own, to change."""
    return Path(shutil.copytree(written, tmp_path / "AMI"))


def request(root, *parts, partition=None):
    return Request(parts or PARTS, root, root, print, partition=partition)


def read(root, *parts, partition=None):
    reader = AmiReader()
    found = reader.locate(request(root, *parts, partition=partition))
    return reader.scan(found, reader.listing(found, parts or PARTS))


def refusal(root, *parts, partition=None):
    with pytest.raises(DataError) as caught:
        read(root, *parts, partition=partition)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_official_partition_has_136_18_and_16_meetings():
    counts = {part: list(OFFICIAL.values()).count(part) for part in PARTS}
    assert counts == {"train": 136, "dev": 18, "test": 16}
    assert {OFFICIAL[m] for m in ("ES2003a", "EN2006b", "IN1016", "IS1005c", "TS3012d")} == {"train"}
    assert {OFFICIAL[m] for m in ("ES2011d", "IS1008a", "TS3004b", "IB4011")} == {"dev"}
    assert {OFFICIAL[m] for m in ("ES2004a", "IS1009d", "TS3003c", "EN2002b")} == {"test"}
    # Not recorded, and the one whose speakers are in dev.
    assert not {"IS1002a", "IS1005d", "EN2001c", "EN2009a", "IB4005"} & OFFICIAL.keys()


def test_no_series_stands_in_two_official_parts():
    for part in PARTS:
        own = {group_of(meeting) for meeting, of in OFFICIAL.items() if of == part}
        assert not own & {group_of(meeting) for meeting, of in OFFICIAL.items() if of != part}
    # SCIENCE: the test part's cluster count.
    assert {group_of(m) for m, part in OFFICIAL.items() if part == "test"} == {
        "ES2004",
        "IS1009",
        "TS3003",
        "EN2002",
    }


def test_ids_tell_series_and_sex():
    assert [group_of(m) for m in ("EN2001a", "IB4001", "IN1016", "train-3")] == [
        "EN2001",
        "IB4001",
        "IN1016",
        "train-3",
    ]
    assert [sex_of(s) for s in ("MEE068", "FEO065", "FTD019UID", "Mary", "spk1")] == [
        "M",
        "F",
        "F",
        None,
        None,
    ]


def test_a_meeting_is_a_conversation_with_its_reference(written):
    scan = read(written)
    assert {part: [r.id for r in rs] for part, rs in scan.recordings.items()} == {
        p: [*m] for p, m in MEETINGS.items()
    }
    assert scan.lost == scan.remarks == ()
    for part, recordings in scan.recordings.items():
        for recording in recordings:
            files = Files(written, recording.id, part)
            assert recording.conversation
            assert (recording.chapter, recording.group) == (recording.id, group_of(recording.id))
            assert recording.num_samples == 12 * 16_000
            assert recording.path == files.audio
            assert (
                set(recording.sex)
                == {s.speaker for s in recording.segments}
                <= set(speaker_ids(recording.id))
            )
            assert all(sex == name[0] for name, sex in recording.sex.items())
            assert [(s.start_s, s.end_s, s.speaker) for s in recording.segments] == [
                (pytest.approx(start), pytest.approx(end), name) for start, end, name in files.turns
            ]


def test_the_reference_is_the_annotation_of_the_segments(written):
    recording = read(written, "dev").recordings["dev"][0]
    annotation = reference(recording)
    assert isinstance(annotation, Annotation)
    assert annotation.uri == recording.id
    found = [(s.start, s.end, name) for s, _, name in annotation.itertracks(yield_label=True)]
    assert found == [(s.start_s, s.end_s, s.speaker) for s in recording.segments]


def test_only_the_parts_asked_for_are_read(written):
    reader = AmiReader()
    root = reader.locate(request(written, "dev"))
    names = [stamp.path for stamp in reader.listing(root, ["dev"])]
    assert names == sorted(names)
    assert {name.rpartition("/")[2].split(".")[0] for name in names if "lists" not in name} == {
        *MEETINGS["dev"]
    }
    assert list(reader.scan(root, reader.listing(root, ["dev"])).recordings) == ["dev"]


@pytest.mark.parametrize("which", ["audio", "rttm", "uem"])
def test_a_changed_file_changes_the_listing(ami, which):
    reader = AmiReader()
    before = reader.listing(ami, PARTS)
    with getattr(Files(ami, "EN2001b", "train"), which).open("ab") as file:
        file.write(b"\n\n")
    assert reader.listing(ami, PARTS) != before


def test_segments_are_cut_to_the_uem_and_the_audio(ami):
    files = Files(ami, "EN2002a", "test")
    write_rttm(files.rttm, "EN2002a", [(0.0, 3.0, "MEE001"), (4.0, 99.0, "FEE002")])
    files.uem.write_text("EN2002a 1 1.0 2.0\nEN2002a 1 5.0 60.0\n")
    (recording,) = read(ami, "test").recordings["test"]
    assert [(s.start_s, s.end_s, s.speaker) for s in recording.segments] == [
        (1.0, 2.0, "MEE001"),
        (5.0, 12.0, "FEE002"),
    ]


def test_nobody_overlaps_with_themselves(ami):
    write_rttm(Files(ami, "EN2002a", "test").rttm, "EN2002a", [(0.0, 3.0, "MEE001"), (2.0, 4.0, "MEE001")])
    (recording,) = read(ami, "test").recordings["test"]
    assert [(s.start_s, s.end_s) for s in recording.segments] == [(0.0, 4.0)]


def test_a_missing_uem_is_remarked_and_the_whole_meeting_scored(ami):
    Files(ami, "EN2002a", "test").uem.unlink()
    scan = read(ami, "test")
    assert scan.remarks == ("1 meetings (EN2002a) have no UEM: scored from end to end",)


def test_what_cannot_be_used_is_lost_with_the_reason(ami):
    Files(ami, "EN2001a", "train").audio.unlink()
    Files(ami, "EN2001b", "train").rttm.unlink()
    Files(ami, "ES2002a", "train").audio.write_bytes(b"RIFF")
    Files(ami, "ES2011a", "dev").rttm.write_text("")
    scan = read(ami)
    reasons = {lost.path.rpartition("/")[2].split(".")[0]: lost.reason for lost in scan.lost}
    assert set(reasons) == {"EN2001a", "EN2001b", "ES2002a", "ES2011a"}
    assert "has no audio" in reasons["EN2001a"]
    assert "no reference" in reasons["EN2001b"]
    assert "unreadable" in reasons["ES2002a"]
    assert "nobody speaks" in reasons["ES2011a"]
    assert [r.id for rs in scan.recordings.values() for r in rs] == ["ES2011b", "EN2002a"]


def test_the_root_may_be_the_corpus_or_the_folder_that_holds_it(written):
    for root in (written, written.parent):
        assert AmiReader().locate(request(root)) == written


@pytest.mark.parametrize("root", [None, "nowhere", "."])
def test_a_missing_root_says_what_to_pass(tmp_path, root):
    words = refusal(tmp_path / root if root else None)
    assert "--data-root DIR" in words
    assert "HARNESS_DATA" in words
    assert "amicorpus" in words


def test_an_unknown_part_or_partition_names_the_nearest(written):
    assert "did you mean 'dev'" in refusal(written, "dve")
    assert "did you mean 'lists'" in refusal(written, partition="list")


def test_a_part_without_meetings_says_what_is_there(tmp_path):
    root = write_ami(tmp_path, {"train": ["EN2001a"]}, seconds=5, voices=False)
    assert "no meeting of part dev by the official partition (it has 1 train, 0 dev, 0 test)" in refusal(root)


# ---------------------------------------------------------------- partitions


@pytest.mark.parametrize("also_lists", [True, False])
def test_the_es2003_trap_is_refused_and_lists_accept_it(tmp_path, also_lists):
    meetings = {"train": ["EN2001a"], "dev": ["ES2003a", "ES2003b"], "test": ["EN2002a"]}
    root = write_ami(tmp_path, meetings, seconds=5, voices=False)
    if not also_lists:
        shutil.rmtree(root / "lists")  # the references still lie in the part
    words = refusal(root, "train")
    for said in (
        "ES2003a, ES2003b: dev there, train officially",
        "has heard",
        "`partition: lists`",
        "every model",
    ):
        assert said in words
    if also_lists:
        scan = read(root, partition="lists")
        assert [r.id for r in scan.recordings["dev"]] == ["ES2003a", "ES2003b"]
        assert "not comparable" in scan.remarks[0]
    else:
        assert "train.meetings.txt" in refusal(root, partition="lists")


def test_meetings_of_no_official_part_are_left_out_and_said(tmp_path):
    meetings = {"train": ["EN2001a", "IB4005"], "dev": ["ES2011a"], "test": ["EN2002a"]}
    root = write_ami(tmp_path, meetings, seconds=5, voices=False)
    scan = read(root)
    assert [r.id for r in scan.recordings["train"]] == ["EN2001a"]
    assert scan.remarks == ("1 meetings (IB4005) are in no part of the official partition and left out",)
    assert [r.id for r in read(root, partition="lists").recordings["train"]] == ["EN2001a", "IB4005"]


def test_a_series_in_two_parts_is_refused(tmp_path):
    meetings = {"train": ["XX1000a"], "dev": ["XX1000b"], "test": ["EN2002a"]}
    words = refusal(write_ami(tmp_path, meetings, seconds=5, voices=False), "train", partition="lists")
    assert "meeting series in two parts: XX1000 (dev: XX1000b; train: XX1000a)" in words


@pytest.mark.parametrize("partition", [None, "full-corpus-asr", "lists"])
def test_a_speaker_in_two_parts_is_refused_whichever_part_is_read(ami, partition):
    for meeting, part in (("ES2011a", "dev"), ("EN2002a", "test")):
        write_rttm(Files(ami, meeting, part).rttm, meeting, [(0.0, 3.0, "MEE777")])
    words = refusal(ami, "train", partition=partition)
    assert "speakers in two parts: MEE777 (dev: ES2011a; test: EN2002a)" in words


def test_a_meeting_in_two_lists_or_with_two_references_is_refused(ami):
    (ami / "lists/dev.meetings.txt").write_text("ES2011a\nES2011b\nEN2001a\n")
    assert "EN2001a in two lists" in refusal(ami, partition="lists")
    (ami / "lists/dev.meetings.txt").write_text("ES2011a\nES2011b\n")
    again = Files(ami, "EN2002a", "dev").rttm
    again.write_text(Files(ami, "EN2002a", "test").rttm.read_text())
    assert "EN2002a stands twice" in refusal(ami, partition="lists")


def test_ami_is_registered_with_its_parts():
    corpus = CORPORA["ami"]
    assert isinstance(corpus.reader(), AmiReader)
    assert [corpus.subsets["ami"].of(split) for split in ("train", "val", "test")] == [
        ("train",),
        ("dev",),
        ("test",),
    ]
