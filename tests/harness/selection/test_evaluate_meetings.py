"""`harness evaluate --meetings`, end to end: a folder in AMI's layout, a recorded run, the command line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from data.config import DataConfig
from data.preparation.prepare import prepare
from harness.cli.main import cli
from harness.config.sweep import Sweep
from harness.core.files import sha256_of
from harness.selection.meeting_corpus import training_speakers_of
from harness.study.storage.frozen_test_log import LEDGER
from harness.study.storage.record import Record
from harness.study.study import open_study
from harness.tracking.experiment import Tracking, connect
from harness.tracking.server.server import TrackingServer
from models.export.export import export_onnx
from models.front_ends.config import LogMel
from models.networks.cnn import FastDiarizationModel
from models.networks.config import CnnConfig
from tests.harness.places.evaluate_record import EvaluationRecord, complete_trial, specification, trained_on

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

DURATION_S = 40.0
# Meetings of the official partition: dev in two groups, test in one, each with its own speakers.
MEETINGS = {"ES2011a": "dev", "ES2011b": "dev", "IS1008a": "dev", "ES2004a": "test"}


def conversation(meeting: str) -> list[tuple[float, float, str]]:
    first, second = f"M{meeting[:2]}{meeting[3:6]}", f"F{meeting[:2]}{meeting[3:6]}"
    shift = {"a": 0.0, "b": 1.5}[meeting[-1]]
    return [
        (0.0, DURATION_S, first),  # somebody always speaks, so that loudness tells overlap
        (4.0 + shift, 9.0, second), (15.0, 16.0 + shift, second), (24.0, 33.0 - shift, second),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def ami(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sines a meeting, each as loud as the other: where both sound there is twice the power."""
    root = tmp_path_factory.mktemp("corpora") / "AMI"
    for meeting, part in MEETINGS.items():
        time = np.arange(round(DURATION_S * 16_000)) / 16_000
        samples, lines = np.zeros(len(time)), []
        for start, end, speaker in conversation(meeting):
            tone = 0.2 * np.sin(2 * np.pi * (440 if speaker[0] == "M" else 1_000) * time)
            samples += np.where((time >= start) & (time < end), tone, 0)
            lines.append(f"SPEAKER {meeting} 1 {start:.3f} {end - start:.3f} <NA> <NA> {speaker} <NA> <NA>")
        files = {
            root / "only_words" / "rttms" / part / f"{meeting}.rttm": "\n".join(lines) + "\n",
            root / "uems" / part / f"{meeting}.uem": f"{meeting} 1 0.000 {DURATION_S}\n",
        }
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        audio = root / "amicorpus" / meeting / "audio" / f"{meeting}.Mix-Headset.wav"
        audio.parent.mkdir(parents=True)
        soundfile.write(audio, samples, 16_000, subtype="PCM_16")
    return root.parent


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, ami: Path, new_record: Callable[[Path], Record]
) -> Iterator[EvaluationRecord]:
    folder = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch, TrackingServer(new_record(folder / "mlruns")) as server:
        client = connect(server.uri)
        patch.setenv("MLFLOW_TRACKING_URI", server.uri)  # the one server, for every command of this file
        yield EvaluationRecord(folder, ami, client, Tracking(client, "loud"))


@pytest.fixture(scope="module")
def loud(place: EvaluationRecord) -> str:
    return place.record_run()


def test_a_model_that_is_right_on_every_window_is_as_good_as_windows_can_be(
    place: EvaluationRecord, loud: str
) -> None:
    result = place.json(loud)
    assert result["f1"] == pytest.approx(result["ideal_f1"], abs=0.01)
    assert result["all_positive_f1"] < 0.6 < result["ideal_f1"] < 1
    assert result["scored_s"] == pytest.approx(3 * DURATION_S)
    assert result["reference_s"] == pytest.approx((5 + 1 + 9) + (3.5 + 2.5 + 7.5) + (5 + 1 + 9))
    assert result["detected_s"] == pytest.approx(result["hit_s"] + result["false_alarm_s"])
    assert [one["meeting"] for one in result["meetings"]] == ["ES2011a", "ES2011b", "IS1008a"]
    assert (result["clusters"], result["few_clusters"], result["low"]) == (2, True, None)
    assert "K = 2" in result["interval_note"]
    assert result["protocol"]["meetings"] == ["ES2011a", "ES2011b", "IS1008a"]
    assert any("only the clusters" in flag for flag in result["flags"])


def test_the_result_is_in_the_run_under_its_protocol_and_protocols_never_share_a_column(
    place: EvaluationRecord, tmp_path: Path
) -> None:
    run = place.record_run()
    first, again, collar = place.json(run), place.json(run), place.json(run, "--collar", "0.5")
    assert first == again
    assert first["protocol_digest"] != collar["protocol_digest"]
    assert first["protocol"] == {**collar["protocol"], "collar_s": 0.0}
    data = place.client.get_run(run).data
    assert data.metrics.keys() == {
        f"evaluate/{one['protocol_digest'][:8]}/{name}"
        for one in (first, collar)
        for name in (
            "f1",
            "precision",
            "recall",
            "detection_error_rate",
            "ideal_f1",
            "all_positive_f1",
            "clusters",
        )
    }
    for one in (first, collar):
        digest = one["protocol_digest"]
        assert data.metrics[f"evaluate/{digest[:8]}/f1"] == one["f1"]
        assert data.tags[f"evaluate/{digest[:8]}/digest"] == digest
        assert "windows every 0.5 s" in data.tags[f"evaluate/{digest[:8]}/protocol"]
        assert data.tags[f"evaluate/{digest[:8]}/flags"] == "; ".join(one["flags"])
        stored = Path(place.client.download_artifacts(run, one["artifact"], str(tmp_path)))
        assert json.loads(stored.read_text("utf-8")) == one
        canonical = json.dumps(one["protocol"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert hashlib.sha256(canonical.encode()).hexdigest() == digest


def test_the_table_stands_under_its_protocol_and_says_its_limits(place: EvaluationRecord, loud: str) -> None:
    shown = place.run(loud, "--quiet")
    head = shown.splitlines()[0]
    assert head.startswith("protocol ")
    assert "overlap on ami dev (full-corpus-asr, 3 meetings), windows every 0.5 s" in head
    for words in ("detection error", "K = 2", "few clusters", "every window right", "limit: "):
        assert words in shown
    assert "1/3 ES2011a: F1" in place.run(loud)


def test_each_look_at_the_test_is_in_the_ledger_whatever_the_collar(
    place: EvaluationRecord, loud: str
) -> None:
    ledger = place.folder / "mlruns" / LEDGER
    place.json(loud)
    assert not ledger.exists()  # dev is no test
    assert place.json(loud, "--part", "test")["test_openings"] == 1
    second = place.json(place.record_run(), "--part", "test", "--collar", "0.25")
    assert (second["test_openings"], second["test_openings_by_all"]) == (2, 2)
    (row, _) = map(json.loads, ledger.read_text("utf-8").splitlines())
    assert row["manifest"] == second["protocol"]["reference"]


def test_meetings_that_were_trained_on_are_refused(place: EvaluationRecord) -> None:
    ledger = place.folder / "mlruns" / LEDGER
    before = ledger.read_text("utf-8") if ledger.exists() else ""
    heard = place.record_run(train="ES2011")
    shown = place.run(heard, code=3)
    assert "trained on ES2011a, ES2011b or on their speakers" in shown
    assert place.client.get_run(heard).data.metrics == {}
    by_speaker = place.record_run(train="MES004")  # of ES2004a
    assert "ES2004a" in place.run(by_speaker, "--part", "test", code=3)
    assert (ledger.read_text("utf-8") if ledger.exists() else "") == before  # and the test stayed closed
    chosen = place.json(place.record_run(val="IS1008"))
    assert any("chosen on windows of these meetings" in flag for flag in chosen["flags"])
    stored = place.client.get_run(chosen["run"]).data.tags[f"evaluate/{chosen['protocol_digest'][:8]}/flags"]
    assert "chosen on windows of these meetings" in stored


def test_whom_a_model_heard_is_read_from_the_manifests_of_its_digests(demo_cache: Path) -> None:
    config = DataConfig(train_windows=40, val_windows=40, test_windows=40)
    prepared = prepare(config, data_root=None, cache=demo_cache)
    params = {f"digest.{split}": digest for split, digest in prepared.digests.items()}
    heard = training_speakers_of(demo_cache, params)
    assert heard is not None
    assert heard.whole
    assert heard.train >= {window.speaker for window in prepared.train.manifest.windows}
    assert heard.val >= set(prepared.val.manifest.clusters())
    assert training_speakers_of(demo_cache, {**params, "digest.train": "0" * 64}) is None
    assert training_speakers_of(demo_cache, {}) is None
    other = prepare(config.model_copy(update={"train_windows": 48}), data_root=None, cache=demo_cache)
    assert other.digests["train"] != prepared.digests["train"]
    assert other.digests["val"] == prepared.digests["val"]
    both = training_speakers_of(demo_cache, {**params, "digest.train.1": other.digests["train"]})
    second = training_speakers_of(demo_cache, {**params, "digest.train": other.digests["train"]})
    assert both is not None
    assert second is not None
    assert (both.train, both.whole) == (heard.train | second.train, True)
    part = training_speakers_of(demo_cache, {**params, "digest.train.1": "0" * 64})
    assert part is not None
    assert (part.train, part.whole) == (heard.train, False)


def test_an_ensemble_goes_by_its_name_and_no_member_hides_what_it_heard(
    place: EvaluationRecord, demo_cache: Path
) -> None:
    prepared = prepare(
        DataConfig(train_windows=40, val_windows=40, test_windows=40), data_root=None, cache=demo_cache
    )
    study = open_study(Record(place.folder / "mlruns"), Sweep.model_validate({"name": "together"}))
    study.release()
    complete_trial(study)
    complete_trial(study)
    sound = place.record_ensemble(study, "0+1", [prepared, trained_on(prepared, "lbs-7", "lbs-7")])
    result = place.json("together/0+1")
    assert (result["run"], result["study"], result["trial"]) == (sound.run_id, "together", "0+1")
    assert result["flags"] == []
    # ES2011 is the group of two meetings, MES001 a speaker of theirs.
    for name, speaker, cluster in (("group", "?", "ES2011"), ("speaker", "MES011", "?")):
        heard = place.record_ensemble(study, name, [prepared, trained_on(prepared, speaker, cluster)])
        for word in (f"together/{name}", heard.run_id):
            assert "trained on ES2011a, ES2011b or on their speakers" in place.run(word, code=3)
    says = "study together has no trial or ensemble '0+9'; it has trials 0 to 1 and the ensembles 0+1, group, speaker"
    assert says in place.run("together/0+9", code=2)


def test_a_study_that_is_being_run_is_left_alone(place: EvaluationRecord) -> None:
    study = open_study(Record(place.folder / "mlruns"), Sweep.model_validate({"name": "busy"}))
    complete_trial(study)
    tracking = Tracking(place.client, study.name, identity=study.identity)
    run = place.record_run(tracking=tracking, number=0)
    for word in (run, "busy/0"):
        assert "study busy is being run by process" in place.run(word, code=2)
    assert place.client.get_run(run).data.metrics == {}
    study.release()
    assert "(trial, unknown) has no model" in place.run("busy/0", code=2)  # its worker told of none


def test_a_trial_of_a_study_goes_by_its_number_and_by_the_digests_its_worker_told(
    place: EvaluationRecord,
) -> None:
    study = open_study(Record(place.folder / "mlruns"), Sweep.model_validate({"name": "told"}))
    study.release()
    tracking = Tracking(place.client, study.name, identity=study.identity)
    trial = study.optuna_study.ask()
    folder = place.folder / f"{place.runs:05d}" / "outputs" / "artifacts"
    run = place.record_run(tracking=tracking, number=trial.number, digest="0" * 64)  # the tag alone is wrong
    names = ("model/model.onnx", "predictions.npz")
    trial.set_user_attr("outcome", {"sha256": {name: sha256_of(folder / name) for name in names}})
    study.optuna_study.tell(trial, 0.5)
    assert place.json("told/0")["run"] == place.json(run)["run"] == run
    assert "told is a study: name one of its runs, such as told/0" in place.run("told", code=2)
    says = "study told has no trial or ensemble '1'; it has trial 0 and no ensemble"
    assert says in place.run("told/1", code=2)


@pytest.mark.parametrize("task", ["pseudo", "same_speaker", "speaker_count"])
def test_a_task_without_moments_is_refused(place: EvaluationRecord, task: str) -> None:
    shown = place.run(place.record_run(task), code=2)
    assert f"a {task} model cannot slide" in shown
    assert "tasks that can: overlap, speaker_change" in shown


def test_what_cannot_be_evaluated_is_said_at_once(place: EvaluationRecord, loud: str, tmp_path: Path) -> None:
    assert "has no run 'nonsense'" in place.run("nonsense", code=2)
    assert "has no run" in place.run("0" * 32, code=2)
    assert "has no run" in place.run("0" * 32, code=2, root=tmp_path)  # the meetings come second
    assert "no study is called 'absent'" in place.run("absent/0", code=2)
    assert "was altered: sha256" in place.run(place.record_run(digest="0" * 64), code=1)
    launch = place.tracking.run("loud/launch/1", "launch", {"harness.kind": "launch"})
    assert "(launch, unknown) has no model of its own" in place.run(launch, code=2)
    promotion = place.tracking.run("p", "promote", {"harness.kind": "promotion", "harness.source_run": loud})
    assert f"it was made from run {loud}: evaluate that" in place.run(promotion, code=2)
    assert "a step of 0.123 s is no multiple" in place.run(loud, "--step", "0.123", code=2)
    assert "--data-root" in place.run(loud, code=2, root=tmp_path)
    without = CliRunner().invoke(cli, ["evaluate", loud, "--record", str(place.folder / "mlruns")])
    assert without.exit_code == 2
    assert "--meetings" in without.output


def test_a_speaker_change_model_slides_too(place: EvaluationRecord) -> None:
    result = place.json(place.record_run("speaker_change"))
    assert result["protocol"]["task"] == "speaker_change"
    assert result["reference_s"] == 0.0  # A is never silent here: nobody else is ever alone


@pytest.mark.needs_corpora
def test_real_meetings_run_through_an_exported_network(
    place: EvaluationRecord, corpora: Path, tmp_path: Path
) -> None:
    front_end, architecture = LogMel(), CnnConfig(width=0.125)
    torch.manual_seed(0)
    cnn = FastDiarizationModel(front_end.num_features, architecture).eval()
    contract = specification("overlap", front_end=front_end, architecture=architecture.model_dump())
    export_onnx(front_end, cnn, contract, tmp_path / "model.onnx")
    run = place.record_run(model=tmp_path / "model.onnx")
    result = place.json(run, "--partition", "lists", root=corpora)
    assert [one["meeting"] for one in result["meetings"]] == ["ES2003a", "ES2003b"]
    assert (result["clusters"], result["interval_note"][:11]) == (1, "no interval")
    assert result["scored_s"] == pytest.approx(60.0, abs=0.01)
    assert 0 <= result["f1"] <= 1
    tags = place.client.get_run(run).data.tags
    assert "not comparable with the official" in tags[f"evaluate/{result['protocol_digest'][:8]}/flags"]
    assert "does not follow AMI's official partition" in place.run(run, code=2, root=corpora)
