import unicodedata

import numpy as np
import pytest
import soundfile

from data.corpora.base import Request
from data.corpora.librispeech.disk import LibriSpeechReader, read_speakers
from data.errors import DataError

READER = LibriSpeechReader()


def locate(root, *parts):
    return READER.locate(Request(tuple(parts), root, root, print))


def scan(root, *parts):
    return READER.scan(root, READER.listing(root, parts))


def write(root, path, seconds=4.0):
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).normal(0, 0.1, int(16_000 * seconds))
    soundfile.write(target, noise, 16_000, format="FLAC" if target.suffix.lower() == ".flac" else "WAV")


def test_the_table_of_speakers(tmp_path):
    table = tmp_path / "SPEAKERS.TXT"
    table.write_text(
        ";ID  |SEX| SUBSET           |MINUTES| NAME\n"
        "; a remark | F |\n"
        "14   | F | train-clean-360  | 25.03 | Kristin | of | Bars\n"
        "16   | m | x | 1 | Lower\n"
        "17   | ? | x | 1 | Unknown\n"
        "no bars at all\n",
        encoding="utf-8-sig",
    )
    assert read_speakers(table) == {"14": "F", "16": "M"}
    assert read_speakers(tmp_path / "none") == {}


def test_recordings_know_speaker_chapter_sex_and_length(make_corpus):
    found = scan(make_corpus(speakers=2, chapters=1, utterances=1), "part-a").recordings["part-a"]
    assert [(r.id, r.speaker, r.chapter, r.sex) for r in found] == [
        ("100-1000-0000", "100", "1000", {"100": "F"}),
        ("101-1010-0000", "101", "1010", {"101": "M"}),
    ]
    assert found[0].num_samples == int(12.4 * 16_000)
    assert found[0].duration_s == pytest.approx(12.4)
    assert found[0].key == "part-a/100-1000-0000"


def test_the_root_may_be_the_corpus_or_the_folder_that_holds_it(make_corpus):
    root = make_corpus(speakers=1)
    assert locate(root, "part-a") == root
    assert locate(root.parent, "part-a") == root


def test_a_missing_part_is_named_with_what_is_there(make_corpus):
    root = make_corpus(speakers=1)
    with pytest.raises(DataError) as caught:
        locate(root, "part-b")
    for words in (
        "has no part part-b",
        "it holds: part-a",
        "did you mean 'part-a'",
        "--data-root DIR",
        "HARNESS_DATA",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize("root", [None, "nowhere"])
def test_a_missing_root_says_what_to_pass(tmp_path, root):
    with pytest.raises(DataError, match="--data-root DIR"):
        READER.locate(Request(("part-a",), tmp_path / root if root else None, tmp_path, print))


def test_decomposed_names_give_the_same_ids(tmp_path):
    for form in ("NFC", "NFD"):
        write(tmp_path / form, unicodedata.normalize(form, "p/José/1/José-1-0.flac"))
    ids = [[(r.id, r.speaker) for r in scan(tmp_path / form, "p").recordings["p"]] for form in ("NFC", "NFD")]
    assert ids[0] == ids[1] == [("José-1-0", "José")]


def test_a_file_name_that_does_not_tell_its_speaker_is_completed(tmp_path):
    write(tmp_path, "p/1/2/0000.wav")
    write(tmp_path, "p/3/2/0000.wav")
    assert [r.id for r in scan(tmp_path, "p").recordings["p"]] == ["1-2-0000", "3-2-0000"]


def test_what_is_no_recording_is_passed_over_and_what_is_misplaced_is_lost(tmp_path):
    for name in ("p/1/2/1-2-0.flac", "p/1/2/1-2-0.wav", "p/1/loose.flac", "p/1/2/._1-2-3.flac"):
        write(tmp_path, name)
    (tmp_path / "p/1/2/1-2.trans.txt").write_text("words")
    (tmp_path / "p/1/2/1-2-9.FLAC").write_bytes(b"")
    found = scan(tmp_path, "p")
    assert [r.id for r in found.recordings["p"]] == ["1-2-0"]
    reasons = {lost.path: lost.reason for lost in found.lost}
    assert set(reasons) == {"p/1/2/1-2-0.wav", "p/1/loose.flac", "p/1/2/1-2-9.FLAC"}
    assert "same id" in reasons["p/1/2/1-2-0.wav"]
    assert "misplaced" in reasons["p/1/loose.flac"]
    assert "empty" in reasons["p/1/2/1-2-9.FLAC"]


def test_a_name_that_is_not_utf8_is_lost(tmp_path):
    write(tmp_path, "p/1/2/1-2-0.flac")
    (tmp_path / "p/1/2/1-2-0.flac").rename(tmp_path / "p/1/2/1-2-\udcff.flac")
    (lost,) = scan(tmp_path, "p").lost
    assert "not UTF-8" in lost.reason
    assert lost.path.encode() == b"p/1/2/1-2-\\udcff.flac"


def test_unknown_sexes_are_remarked(tmp_path):
    write(tmp_path, "p/1/2/1-2-0.flac")
    found = scan(tmp_path, "p")
    assert found.recordings["p"][0].sex == {"1": "unknown"}
    assert found.remarks[0].startswith("sex unknown for 1 of 1 speakers (1)")
