"""Laws of files: weights come back bit for bit, code never does, half a file is never seen."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from models.checkpoints import WeightsError, load_weights, save_weights
from models.files import write_atomic
from models.networks.cnn import build_network
from models.networks.config import CnnConfig


def test_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    model = build_network(CnnConfig(width=0.0625), 40)
    path = tmp_path / "deep" / "weights.pt"
    save_weights(model, path)
    loaded = load_weights(path)
    assert list(loaded) == list(model.state_dict())
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())
    build_network(CnnConfig(width=0.0625), 40).load_state_dict(loaded)
    save_weights(loaded, path)
    assert [child.name for child in path.parent.iterdir()] == ["weights.pt"]


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("code of a weights file ran",))


def test_files_with_code_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"weight": Bomb()}, path)
    with pytest.raises(WeightsError, match="not a weights-only state dict"):
        load_weights(path)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(WeightsError, match="not a weights-only state dict"):
        load_weights(path)


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 broken"])
def test_damaged_files_are_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not a weights-only state dict"):
        load_weights(path)
    with pytest.raises(WeightsError, match="no weights at"):
        load_weights(tmp_path / "absent.pt")


def test_other_things_than_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"epoch": 3}, path)
    with pytest.raises(WeightsError, match="other than tensors"):
        load_weights(path)


def test_a_failed_write_leaves_the_old_file_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def refuse(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [child.name for child in tmp_path.iterdir()] == ["file"]


def test_parts_are_written_one_after_the_other(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", b"head\n", b"", b"body")
    assert (tmp_path / "file").read_bytes() == b"head\nbody"
