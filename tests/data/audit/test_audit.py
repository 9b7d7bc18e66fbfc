import dataclasses
import json
import os
import shutil

import pytest

from data.audit.audit import audit
from data.audit.label_checks import check_balance, check_digest
from data.labels import Speaker, build_label_map
from data.parts import SPLITS
from data.preparation.manifest import Manifest
from data.preparation.prepare import prepare

SPEAKERS = [Speaker(str(100 + i), "FM"[i % 2], "used") for i in range(12)]


def named(outcome, name):
    (check,) = [check for check in outcome.checks if check.name == name]
    return check


def with_split(prepared, split, change):
    data = prepared.splits[split]
    windows = tuple(change(i, w) for i, w in enumerate(data.manifest.windows))
    windows = tuple(window for window in windows if window is not None)
    changed = dataclasses.replace(data, manifest=Manifest(split, windows))
    return dataclasses.replace(prepared, splits={**prepared.splits, split: changed})


def test_a_sound_corpus_passes_and_the_outcome_is_json(prepared):
    outcome = audit(prepared)
    assert outcome.ok, [check.message for check in outcome.refusals]
    assert outcome.warnings == ()
    again = json.loads(json.dumps(outcome.to_json(), allow_nan=False))
    assert again["ok"] is True
    assert set(again["histograms"]) == set(SPLITS)
    assert all(
        set(check) == {"name", "ok", "measured", "bound", "message", "level"} for check in again["checks"]
    )
    assert all("\n" not in check["message"] for check in again["checks"])


# --- the two historic bugs --------------------------------------------------------------------------


def test_hash_labels_are_refused_and_the_message_names_70_30(
    make_corpus, configured, tmp_path, historic_bugs
):
    # 20 speakers; hash(int) is the number itself, so odd ids get class 1: rename six odd ones to even.
    root = make_corpus(speakers=20)
    part, table = root / "part-a", root / "SPEAKERS.TXT"
    for odd in range(101, 108, 2):
        (part / str(odd)).rename(part / str(odd + 899))
        table.write_text(table.read_text().replace(f"{odd} |", f"{odd + 899} |"))
    prepared = prepare(configured(labels="hash"), data_root=root, cache=tmp_path / "cache")
    outcome = audit(prepared)
    assert not outcome.ok
    (refusal,) = outcome.refusals
    assert refusal.name == "label map balance"
    assert refusal.measured == pytest.approx(0.3)
    assert "70/30" in refusal.message
    assert "'hash'" in refusal.message
    # Windows are balanced all the same: only the share of speakers gives the bug away.
    assert named(outcome, "label share train").ok


def test_a_rebuilt_map_is_refused_and_the_message_names_both_digests(
    make_corpus, configured, tmp_path, historic_bugs
):
    prepared = prepare(configured(labels="rebuilt"), data_root=make_corpus(), cache=tmp_path / "cache")
    (refusal,) = audit(prepared).refusals
    assert refusal.name == "label map digest"
    assert prepared.label_map.digest[:12] in refusal.message
    assert refusal.measured[:12] in refusal.message
    assert refusal.measured != prepared.label_map.digest
    assert "'rebuilt'" in refusal.message


def test_hashes_of_text_are_refused_because_another_process_deals_anew(historic_bugs):
    refusal = check_digest(build_label_map("hash_of_text", SPEAKERS))
    assert not refusal.ok
    assert "PYTHONHASHSEED" in refusal.message


def test_rank_is_the_same_in_any_process(historic_bugs):
    assert check_digest(build_label_map("rank", SPEAKERS)).ok


@pytest.mark.parametrize(
    ("ones", "total", "ok"),
    # Bound: .05 + groups / (2 total); one group of 12: .092, so 5 to 7 of 12; of 100: .055, so 45 to 55.
    [
        (6, 12, True),
        (7, 12, True),
        (8, 12, False),
        (45, 100, True),
        (44, 100, False),
        (3, 5, True),
        (4, 6, False),
    ],
)
def test_the_bound_of_an_even_deal(ones, total, ok):
    speakers = tuple(Speaker(str(i), "F", "used") for i in range(total))
    label_map = dataclasses.replace(
        build_label_map("rank", speakers), classes={s.id: int(i < ones) for i, s in enumerate(speakers)}
    )
    assert check_balance(label_map).ok is ok


# --- windows ------------------------------------------------------------------------------------------


def test_an_uneven_split_is_refused(prepared):
    def drop(i, w):
        return None if w.label == 1 and i < 24 else w

    outcome = audit(with_split(prepared, "val", drop))
    check = named(outcome, "label share val")
    assert not check.ok
    # 12 of the first 24 are class 1: 12 ones of 36 windows are left.
    assert check.measured == pytest.approx(1 / 3)


def test_a_split_without_windows_is_refused_with_the_reason(make_corpus, configured, tmp_path):
    root = make_corpus(chapters=1, utterances=1)
    outcome = audit(prepare(configured(), data_root=root, cache=tmp_path / "cache"))
    assert not outcome.ok
    message = named(outcome, "label share train").message
    assert "no windows at all" in message
    assert "lack 3 utterances" in message
    assert "data.variant" in message


def test_classes_of_one_training_speaker_are_refused(prepared):
    keep = {0: None, 1: None}

    def one_each(i, w):
        keep[w.label] = keep[w.label] or w.speaker
        return w if w.speaker == keep[w.label] else None

    outcome = audit(with_split(prepared, "train", one_each))
    assert named(outcome, "class sizes train").measured["0"]["speakers"] == 1
    assert not named(outcome, "class sizes train").ok


def test_few_clusters_are_a_warning(make_corpus, configured, tmp_path):
    root = make_corpus(speakers=4)
    outcome = audit(prepare(configured(), data_root=root, cache=tmp_path / "cache"))
    assert outcome.ok
    assert {check.name for check in outcome.warnings} == {"clusters val", "clusters test"}
    assert "K = 4" in outcome.warnings[0].message


# --- leakage ------------------------------------------------------------------------------------------


def test_a_copy_of_a_recording_in_another_split_is_found_by_its_audio(make_corpus, configured, tmp_path):
    root = make_corpus()
    longest, shortest = (root / "part-a" / "100" / f"100{c}" / f"100-100{c}-0000.wav" for c in (0, 1))
    shutil.copyfile(longest, shortest)
    # Chapter 1 is now longer than chapter 2, still shorter than chapter 0, and so evaluated.
    outcome = audit(prepare(configured(), data_root=root, cache=tmp_path / "cache"))
    (refusal,) = outcome.refusals
    assert refusal.name == "leakage audio"
    assert "100-100" in refusal.message
    assert refusal.measured == 1


@pytest.mark.parametrize(
    ("unit", "fields", "rule"),
    [
        ("chapter", ("speakers", "sources"), "chapter-disjoint"),
        ("utterance", ("sources",), "utterance-disjoint"),
        ("speaker", ("speakers",), "speaker-disjoint"),
    ],
)
def test_what_the_rule_forbids_is_found(make_corpus, configured, tmp_path, unit, fields, rule):
    variant = "unseen" if unit == "speaker" else "seen"
    chapters = 1 if unit == "utterance" else 3
    root = make_corpus(chapters=chapters, utterances=5 if chapters == 1 else 2, speakers=24)
    prepared = prepare(configured(variant=variant), data_root=root, cache=tmp_path / "cache")
    assert prepared.split_rule == rule
    assert audit(prepared).ok, audit(prepared).refusals
    stolen = prepared.val.manifest.windows[0]

    def leak(i, w):
        return dataclasses.replace(w, **{name: getattr(stolen, name) for name in fields}) if i == 0 else w

    outcome = audit(with_split(prepared, "train", leak))
    check = named(outcome, f"leakage {unit}")
    assert not check.ok
    assert check.measured == 1
    assert "train and val" in check.message
    source = stolen.sources[0]
    named_as = {"speaker": source.speaker, "chapter": source.chapter, "utterance": source.recording_id}
    assert named_as[unit] in check.message


def test_evaluating_seen_speakers_who_were_never_trained_on_is_refused(make_corpus, configured, tmp_path):
    root = make_corpus()
    make_corpus(part="part-b", first_id=300, root=root)
    config = configured(parts={"a": ["part-a"], "b": ["part-b"]}, subset="a", evaluate_on=["b"])
    outcome = audit(prepare(config, data_root=root, cache=tmp_path / "cache"))
    check = named(outcome, "seen speakers")
    assert not check.ok
    assert check.measured == 12
    assert "300, 301" in check.message
    assert "data.evaluate_on" in check.message
    assert "data.variant: unseen" in check.message


def test_lost_recordings_and_flags_are_warnings(make_corpus, configured, tmp_path):
    root = make_corpus(chapters=1, utterances=5)
    sorted(root.rglob("*.wav"))[0].write_bytes(b"")
    outcome = audit(prepare(configured(), data_root=root, cache=tmp_path / "cache"))
    assert outcome.ok
    warned = {check.name: check.message for check in outcome.warnings}
    assert "utterance-disjoint fallback" in warned["flags"]
    assert "100-1000-0000.wav: empty: 0 bytes" in warned["recordings set aside"]


def test_the_audit_leaves_the_environment_alone(prepared):
    before = dict(os.environ)
    audit(prepared)
    assert dict(os.environ) == before
