import subprocess
import sys

import pytest
from pydantic import ValidationError

from data.config import DataConfig
from data.corpora import CORPORA
from data.errors import nearest
from data.tasks import TASKS


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"corpus": "librispech"}, "unknown corpus 'librispech'; did you mean 'librispeech'?"),
        ({"subset": "claen"}, "unknown subset of corpus demo 'claen'; did you mean 'clean'?"),
        ({"evaluate_on": ["othr"]}, "did you mean 'other'?"),
        ({"evaluate_on": ["other", "other"]}, "names a subset twice"),
        ({"task": "psuedo"}, "did you mean 'pseudo'?"),
        ({"variant": "sen"}, "unknown variant of task pseudo 'sen'; did you mean 'seen'?"),
        ({"labels": "rnak"}, "did you mean 'rank'?"),
        ({"val_windows": 2001}, "more than 2000"),
        ({"parts": {"clean": ["../etc"]}}, "not the name of a part"),
        ({"parts": {"clean": []}}, "at least one part"),
        ({"parts": {"clean": ["a", "a"]}}, "named twice"),
        ({"train_window": 5}, "Extra inputs"),
    ],
)
def test_a_mistake_is_named_with_its_value_and_the_nearest_right_name(fields, message):
    with pytest.raises(ValidationError) as caught:
        DataConfig(**fields)
    assert message in str(caught.value)


def test_a_list_alone_means_the_same_parts_for_all_splits():
    config = DataConfig(corpus="librispeech", subset="mine", parts={"mine": ["test-other"]})
    parts = config.parts_of("mine")
    assert parts.train == parts.val == parts.test == ("test-other",)
    assert parts.roles("test-other") == ("train", "val", "test")


def test_the_digest_changes_with_every_field_and_with_nothing_else():
    changed = {
        "corpus": "librispeech",
        "subset": "other",
        "evaluate_on": ("clean", "other"),
        "parts": {"clean": ["clean"]},
        "variant": "unseen",
        "speakers": 20,
        "train_windows": 9,
        "val_windows": 9,
        "test_windows": 9,
        "seed": 1,
        "voice_variants": 2,
        "pitch_semitones": 1.0,
        "stretch": 0.2,
        "partition": "lists",
        "revision": "abc",
        "max_download_gb": 1.0,
        "max_lost_share": 0.5,
    }
    digests = {DataConfig(**{name: value}).digest() for name, value in changed.items()}
    assert len(digests | {DataConfig().digest()}) == len(changed) + 1
    assert DataConfig().digest() == DataConfig(corpus="demo").digest()
    assert set(changed) | {"task", "labels"} == set(DataConfig.model_fields)


def test_every_field_is_described():
    assert all(field.description for field in DataConfig.model_fields.values())


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
def test_a_task_describes_itself(task):
    assert set(task.label_meaning) == {"0", "1"}
    for variant in task.variants:
        assert task.roles(variant)
        assert task.split_rule(variant)


def test_every_corpus_is_described_and_can_be_opened():
    for corpus in CORPORA.values():
        assert corpus.description
        assert corpus.subsets
        assert corpus.reader()


def test_registries_and_configuration_import_no_numpy():
    modules = "data.config, data.tasks, data.corpora, data.labels, data.preparation.prepared"
    code = f"import sys, {modules}; heavy = {{'numpy', 'scipy', 'soundfile', 'soxr', 'torch'}} & set(sys.modules); assert not heavy, heavy"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_plugin_that_cannot_be_imported_is_named(monkeypatch):
    monkeypatch.setenv("HARNESS_PLUGINS", "no_such_plugin")
    with pytest.raises(ValidationError, match="HARNESS_PLUGINS names 'no_such_plugin'"):
        DataConfig()


def test_a_plugin_adds_a_label_rule(historic_bugs):
    assert DataConfig(labels="hash").labels == "hash"


def test_nearest_is_silent_about_what_resembles_nothing():
    assert nearest("zzz", ["clean", "other"]) is None
    assert nearest("CLEAN", ["clean", "other"]) == "clean"
