import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import DataError
from data.preparation.manifest import Manifest, Source, Window

text = st.text(max_size=5)
sources = st.builds(
    Source,
    recording_id=text,
    part=text,
    speaker=text,
    chapter=text,
    group=text,
    audio_sha256=st.text("0123456789abcdef", min_size=4, max_size=4),
    variant=text,
    start_sample=st.integers(0, 10**7),
    num_samples=st.integers(1, 48_000),
    at_sample=st.integers(0, 47_999),
    gain_db=st.floats(-60, 60),
)
windows = st.builds(
    Window,
    sources=st.lists(sources, min_size=1, max_size=3).map(tuple),
    label=st.sampled_from([0, 1]),
    subset=text,
    speaker=text,
    speakers=st.lists(text, max_size=3).map(tuple),
    sex=st.sampled_from(["F", "M"]),
    cluster=text,
    level_dbfs=st.none() | st.floats(-60, 0),
)
manifests = st.builds(
    Manifest, st.sampled_from(["train", "val", "test"]), st.lists(windows, max_size=8).map(tuple)
)


SOURCE = Source("1-2-3", "p", "1", "2", "", "ab", "", 0, 48_000, 0, 0.0)


def window(**fields):
    own = {name: fields.pop(name) for name in list(fields) if name in Source.__slots__ and name != "speaker"}
    given = {
        "sources": (dataclasses.replace(SOURCE, **own),),
        "label": 0,
        "subset": "clean",
        "speaker": "1",
        "speakers": (fields.get("speaker", "1"),),
        "sex": "F",
        "cluster": "1",
    }
    return Window(**{**given, **fields})


@given(manifests)
@settings(max_examples=30)
def test_a_manifest_survives_its_file(tmp_path_factory, manifest):
    path = tmp_path_factory.mktemp("manifest") / "manifest.json"
    manifest.save(path)
    assert Manifest.load(path) == manifest


def test_the_digest_covers_content_in_order_and_nothing_else():
    base = Manifest("val", (window(), window(start_sample=48_000, label=1)))
    others = [
        Manifest("val", base.windows[::-1]),
        Manifest("val", base.windows[:1]),
        *(
            Manifest("val", (window(**{name: value}), base.windows[1]))
            for name, value in [
                ("audio_sha256", "cd"),
                ("start_sample", 1),
                ("variant", "p+1.0r1.00"),
                ("num_samples", 9),
                ("at_sample", 1),
                ("gain_db", 1.0),
                ("level_dbfs", -20.0),
                ("label", 1),
                ("speaker", "2"),
            ]
        ),
    ]
    assert len({base.digest, *(other.digest for other in others)}) == len(others) + 1
    renamed = Manifest("val", (window(recording_id="x", part="q", chapter="z"), base.windows[1]))
    assert renamed.digest == base.digest


def test_a_changed_file_is_refused(tmp_path):
    path = tmp_path / "manifest.json"
    Manifest("val", (window(),)).save(path)
    path.write_text(path.read_text().replace('0.0]], 0, "clean"', '0.0]], 1, "clean"'))
    with pytest.raises(DataError, match="was changed"):
        Manifest.load(path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "columns": ["a"]}))
    with pytest.raises(DataError, match="columns"):
        Manifest.load(path)


def test_columns():
    manifest = Manifest("val", (window(), window(label=1, cluster="9"), window(label=1)))
    assert manifest.labels().tolist() == [0, 1, 1]
    assert manifest.labels().dtype == np.int64
    assert manifest.clusters() == ["1", "9", "1"]
    assert manifest.subsets() == ["clean"] * 3
    assert manifest.share_1 == pytest.approx(2 / 3)
    assert np.isnan(Manifest("val", ()).share_1)


def test_the_histogram_counts_windows_and_speakers_by_sex():
    rows = (window(), window(), window(speaker="2", sex="M"), window(speaker="3", label=1))
    assert Manifest("val", rows).label_histogram == {
        "0": {
            "windows": 3,
            "speakers": 2,
            "sexes": {"F": {"windows": 2, "speakers": 1}, "M": {"windows": 1, "speakers": 1}},
        },
        "1": {"windows": 1, "speakers": 1, "sexes": {"F": {"windows": 1, "speakers": 1}}},
    }
