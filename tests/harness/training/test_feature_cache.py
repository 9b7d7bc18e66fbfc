import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from data.config import DataConfig
from data.preparation.prepare import Prepared, prepare
from harness.core.settings import Settings
from harness.maintenance import verify_cache
from harness.maintenance.verify_cache import check_store
from harness.training.feature_cache import SOURCE, build_log, feature_key, stored_features
from models.front_ends import config
from models.front_ends.config import LogMel, Mfcc

DATA = DataConfig.model_validate(
    {
        "corpus": "demo",
        "task": "pseudo",
        "variant": "seen",
        "train_windows": 24,
        "val_windows": 70,
        "test_windows": 12,
    }
)


@pytest.fixture(scope="module")
def prepared(demo_cache: Path) -> Prepared:
    return prepare(DATA, data_root=None, cache=demo_cache)


def test_features_are_made_once_and_counted(prepared: Prepared, tmp_path: Path) -> None:
    part = prepared.val
    first = stored_features(part, LogMel(), tmp_path)
    again = stored_features(part, LogMel(), tmp_path)
    assert first.shape == (len(part.manifest), LogMel().num_features, LogMel().num_frames())
    np.testing.assert_array_equal(first, again)
    stored_features(part, Mfcc(), tmp_path)
    assert [line["windows"] for line in build_log(tmp_path)] == [len(part.manifest)] * 2
    assert {line["key"] for line in build_log(tmp_path)} == {
        feature_key(part.manifest, one) for one in (LogMel(), Mfcc())
    }


def test_a_building_that_breaks_off_is_counted_as_far_as_it_came(prepared: Prepared, tmp_path: Path) -> None:
    asked = []

    def stop_at_the_second() -> None:
        asked.append(1)
        if len(asked) > 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stored_features(prepared.val, LogMel(), tmp_path, stop_at_the_second)
    assert [line["windows"] for line in build_log(tmp_path)] == [64]
    stored_features(prepared.val, LogMel(), tmp_path)
    assert [line["windows"] for line in build_log(tmp_path)] == [64, len(prepared.val.manifest)]


@pytest.mark.parametrize("change", ["implementation", "parameters", "windows"])
def test_whatever_changes_the_features_never_meets_the_old_ones(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    part, front_end = prepared.val, LogMel()
    stored_features(part, front_end, tmp_path)
    if change == "implementation":
        monkeypatch.setattr(config, "IMPLEMENTATION", config.IMPLEMENTATION + 1)
    elif change == "parameters":
        front_end = LogMel(n_mels=64)
    else:
        part = prepared.train
    stored_features(part, front_end, tmp_path)
    assert len({line["key"] for line in build_log(tmp_path)}) == 2


def test_a_sound_store_is_found_sound_and_a_changed_row_is_named(demo_cache: Path, tmp_path: Path) -> None:
    """The demo is copied, for windows are cut from it again."""
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "demo").symlink_to(demo_cache / "demo")
    again = prepare(DATA, data_root=None, cache=cache)
    stored_features(again.val, LogMel(), cache)
    checked = list(check_store(Settings(record=tmp_path, cache=cache), 8, 0))
    assert [one.state for one in checked] == ["ok"] * 5, [one.text for one in checked]
    assert any("24 windows made again" in one.text for one in checked)
    assert any(
        "log_mel of 64 windows made again" in one.text or "log_mel of 6 " in one.text for one in checked
    )
    folder = cache / "features" / feature_key(again.val.manifest, LogMel())
    resealed(folder, "features.npy")
    (wrong,) = [
        one for one in check_store(Settings(record=tmp_path, cache=cache), 70, 0) if one.state == "differs"
    ]
    assert wrong.folder == folder
    assert "window 3 differ" in wrong.text
    resealed(again.val.folder, "windows.npy")
    wrongs = [
        one for one in check_store(Settings(record=tmp_path, cache=cache), 70, 0) if one.state == "differs"
    ]
    assert any(
        one.folder == again.folder and "val window 3 differ from the corpus" in one.text for one in wrongs
    )


def test_a_flipped_byte_and_features_of_unknown_origin_are_told(prepared: Prepared, tmp_path: Path) -> None:
    stored_features(prepared.train, LogMel(), tmp_path)
    folder = tmp_path / "features" / feature_key(prepared.train.manifest, LogMel())
    where = Settings(record=tmp_path, cache=tmp_path)
    (one,) = check_store(where, 4, 0)
    assert (one.state, "its windows are not in" in one.text) == ("skipped", True)
    (folder / SOURCE).write_text(json.dumps({}))
    (one,) = check_store(where, 4, 0)
    assert one.state == "differs"
    assert SOURCE in one.text


@pytest.mark.parametrize("when", ["is_complete", "altered"])
def test_what_is_deleted_while_it_is_checked_is_no_error(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    stored_features(prepared.train, LogMel(), tmp_path)
    whole = getattr(verify_cache, when)

    def meanwhile(folder: Path) -> object:
        shutil.rmtree(folder)  # `gc`, or a sweep's quota
        return whole(folder) if when == "is_complete" else []

    monkeypatch.setattr(verify_cache, when, meanwhile)
    (one,) = check_store(Settings(record=tmp_path, cache=tmp_path), 4, 0)
    assert one.state == "skipped"


def resealed(folder: Path, name: str) -> None:
    """Change a sample of row 3, and the marker with it: as if it had been made wrongly."""
    from data.store import content_store

    stored = np.load(folder / name, mmap_mode="r+")
    stored[3].reshape(-1)[7] += 5
    stored.flush()
    del stored
    (folder / content_store.MARKER).unlink()
    content_store._read.clear()
    content_store._finish(folder)
