"""Pointers and manifests are strangers' words: read, or refused with what is wrong."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.maintenance.snapshot.dvc_pointer import (
    POINTER,
    AlteredError,
    Pointer,
    PointerError,
    object_path,
    printable,
    read_manifest,
    read_pointer,
    require_message,
)
from tests.harness.places.small_record import MD5, stored_manifest

DIGEST = "0123456789abcdef0123456789abcdef.dir"
GOOD = Pointer(DIGEST, 7, 1, None, "a: 'message'")


def test_a_pointer_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_pointer(GOOD.write(tmp_path)) == GOOD
    assert read_pointer(Pointer(DIGEST, remote="mine").write(tmp_path)).remote == "mine"


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("path: mlruns", "path: ../elsewhere", "../elsewhere"),
        ("path: mlruns", "path: /etc", "/etc"),
        ("path: mlruns", "path: mlruns/../..", "mlruns/../.."),
        (DIGEST, "../../../../tmp/x.dir", "../../../../tmp/x.dir"),
        (DIGEST, DIGEST.removesuffix(".dir"), "32 hexadecimal"),
        (DIGEST, DIGEST.upper(), "32 hexadecimal"),
        ("hash: md5", "hash: sha256", "32 hexadecimal"),
        ("path: mlruns", "path: mlruns\n  remote: --config", "--config"),
        ("outs:", "wdir: /\nouts:", "wdir"),
        ("outs:", "cmd: touch /tmp/x\nouts:", "cmd"),
        ("outs:", "deps:\n- path: /etc/passwd\nouts:", "deps"),
        ("outs:", "outs: &a\n- *a\nothers:", "not what DVC writes"),
    ],
)
def test_a_pointer_to_anything_else_is_refused_with_the_value(
    tmp_path: Path, before: str, after: str, named: str
) -> None:
    path = tmp_path / POINTER
    text = GOOD.text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(PointerError, match=re.escape(named)):
        read_pointer(path)
    assert list(tmp_path.iterdir()) == [path]


@given(st.text() | st.text(alphabet="outs:- \nmd5pathmlruns[]{}&*!'\"0123456789.dir"))
def test_whatever_a_pointer_says_it_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / POINTER
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(PointerError):
        read_pointer(path)


HOSTILE = (
    "../x", "/etc/passwd", "artifacts/../../x", "artifacts/./x", "artifacts//x", "artifacts\\..\\x", "", ".", "..",
    "locks/record.lock", ".ssh/authorized_keys", "mlflow.db/x", "artifacts", "artifacts/.dvc/config", "artifacts/a\nb", "server.log",
    "artifacts/a\x9b2Jb", "artifacts/a\u202eb", "artifacts/\ud800", f"artifacts/{'a' * 256}", f"artifacts/{'ü' * 128}",
    "artifacts" + "/ü" * 400, "artifacts" + "/a" * 100,
)  # fmt: skip


@pytest.mark.parametrize("file", HOSTILE)
def test_a_manifest_that_names_what_no_record_holds_is_refused(tmp_path: Path, file: str) -> None:
    entries = [{"md5": MD5, "relpath": "mlflow.db"}, {"md5": MD5, "relpath": file}]
    with pytest.raises(PointerError, match="no record holds") as refused:
        read_manifest(tmp_path, stored_manifest(tmp_path, entries))
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400 + len(str(tmp_path))


def test_a_manifest_without_a_database_is_refused_by_the_snapshots_name(tmp_path: Path) -> None:
    digest = stored_manifest(tmp_path, [{"md5": MD5, "relpath": "VERSION"}])
    with pytest.raises(PointerError, match=rf"^the snapshot {digest} holds no mlflow\.db"):
        read_manifest(tmp_path, digest)
    longest = ["mlflow.db", f"artifacts/{'ü' * 127}", "artifacts" + "/a" * 99]
    digest = stored_manifest(tmp_path, [{"md5": MD5, "relpath": file} for file in longest])
    assert sorted(read_manifest(tmp_path, digest)) == sorted(longest)


def test_a_message_is_of_a_length_and_cannot_steer_a_terminal(tmp_path: Path) -> None:
    require_message("ä\n" * 1000)
    for message in ("x" * 2001, "\udcff"):
        with pytest.raises(PointerError, match=r"2001 characters, 2000 at most|is not UTF-8"):
            require_message(message)
    hostile = Pointer(DIGEST, message="a\nb\x1b[2J\x9b2J\u202ec").write(tmp_path)
    assert printable(read_pointer(hostile).message) == "a b[2J2Jc"


@pytest.mark.parametrize(
    "entries",
    [
        [{"md5": "../../../../tmp/x", "relpath": "artifacts/x"}],
        [{"md5": MD5 + ".dir", "relpath": "artifacts/x"}],
        [{"md5": 7, "relpath": "artifacts/x"}],
        [{"relpath": "artifacts/x"}],
        [{"md5": MD5, "relpath": ["artifacts"]}],
        [{"md5": MD5, "relpath": "artifacts/x"}] * 2,
        [{"md5": MD5, "relpath": "artifacts/x"}, {"md5": MD5, "relpath": "artifacts/x/y"}],
        "artifacts", {"a": 1}, [1], 7, None,
    ],
)  # fmt: skip
def test_a_manifest_of_another_form_is_refused(tmp_path: Path, entries: object) -> None:
    with pytest.raises(PointerError):
        read_manifest(tmp_path, stored_manifest(tmp_path, entries))


@given(
    st.lists(
        st.text()
        | st.lists(st.sampled_from(["artifacts", "spool", "..", ".", "", "a", "mlflow.db"])).map("/".join)
    )
)
def test_what_a_manifest_may_name_lies_in_the_record(
    tmp_path_factory: pytest.TempPathFactory, files: list[str]
) -> None:
    root = tmp_path_factory.getbasetemp()
    try:
        manifest = read_manifest(
            root, stored_manifest(root, [{"md5": MD5, "relpath": file} for file in ("mlflow.db", *files)])
        )
    except PointerError:
        return
    assert all(
        Path(os.path.normpath(root / file)).is_relative_to(root) and root / file != root for file in manifest
    )


def test_a_manifest_that_was_altered_is_refused(tmp_path: Path) -> None:
    digest = stored_manifest(tmp_path, [{"md5": MD5, "relpath": "mlflow.db"}])
    path = object_path(tmp_path, digest)
    path.write_bytes(path.read_bytes().replace(b"mlflow.db", b"artifacts"))
    with pytest.raises(AlteredError, match="altered"):
        read_manifest(tmp_path, digest)
