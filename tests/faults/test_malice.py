"""Row 24: what somebody else may hand us, made to run a program or to write elsewhere when it is opened."""

import hashlib
import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from data.audio.decode import load_audio
from data.errors import AudioError
from harness.config.files.sweep_loader import load_sweep
from harness.config.files.yaml_file import SweepError
from harness.training.checkpoint import DamagedCheckpointError, read_checkpoint
from models.checkpoints import WeightsError, load_weights
from models.onnx_io.files import OnnxFileError
from models.onnx_io.session import open_session
from tests.harness.places.workplace import run_in_process

Refusals = list[str]


@dataclass(frozen=True)
class Payload:
    """Pickled, it makes the marker file when it is opened."""

    marker: str

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def refused_with(error: type[Exception], words: str, call: Callable[[], object]) -> int:
    """1 where the call is refused by this error, which says these words."""
    with pytest.raises(error, match=words):
        call()
    return 1


def model_folder(place: Path, marker: Path, sealed: Path, cache: Path) -> bool:
    """A bundle with MLflow's own loader in it, then with a pickle in the model's place."""
    loader = f"import os\nos.system('touch {marker}')\ndef _load_pyfunc(path): os.system('touch {marker}')\n"
    count = 0
    for name, files in {
        "with_loader": {"MLmodel": b"flavors: {python_function: {loader_module: evil, code: code}}\n", "code/evil.py": loader.encode()},
        "with_pickle": {"model.onnx": pickle.dumps(Payload(str(marker)))},
        "in_data": {"golden_waveform.npy": numpy_with_objects(marker)},
    }.items():  # fmt: skip
        bundle = place / name
        shutil.copytree(sealed, bundle)
        for file, content in files.items():
            path = bundle / file
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        seal(bundle, only=name == "in_data")
        told = json.loads(run_in_process(place, cache, "verify", name, "--json", code=3))
        count += not told["ok"]
    return count == 3


def numpy_with_objects(marker: Path) -> bytes:
    """An .npy file whose content is pickled."""
    header = repr({"descr": "|O", "fortran_order": False, "shape": (1,)}).encode().ljust(117) + b"\n"
    return (
        b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + pickle.dumps([Payload(str(marker))])
    )


def seal(bundle: Path, *, only: bool) -> None:
    """Where asked, give the altered files the digests that they have: whoever writes a bundle writes its list too."""
    if not only:
        return
    sums = bundle / "SHA256SUMS"
    names = [line.partition("  ")[2] for line in sums.read_text().splitlines()]
    digests = {name: hashlib.sha256((bundle / name).read_bytes()).hexdigest() for name in names}
    sums.write_text("".join(f"{digest}  {name}\n" for name, digest in digests.items()))


def checkpoint(place: Path, marker: Path) -> bool:
    """A pickle as it is, and in torch's own file; the checkpoint's digest is right."""
    plain = place / "weights.pt"
    plain.write_bytes(pickle.dumps(Payload(str(marker))))
    in_torch = place / "in_torch.pt"
    torch.save({"weight": Payload(str(marker))}, in_torch)
    count = sum(
        refused_with(WeightsError, "weights", lambda p=path: load_weights(p)) for path in (plain, in_torch)
    )
    for path in (plain, in_torch):
        body = path.read_bytes()
        last = place / "last.pt"
        last.write_bytes(b"harness checkpoint 3\n" + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        count += refused_with(
            DamagedCheckpointError, "holds no checkpoint", lambda p=last: read_checkpoint(p)
        )
    return count == 4


def dvc_manifest(place: Path, marker: Path, cache: Path) -> bool:
    """A manifest with every digest right that leads out of the record; DVC itself would follow it."""
    project = place / "project"
    objects = project / ".dvc" / "cache" / "files" / "md5"
    (project / ".dvc").mkdir(parents=True)
    (project / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")

    def keep(content: bytes, ending: str = "") -> str:
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        path = objects / digest[:2] / (digest[2:] + ending)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return digest + ending

    planted = keep(b"planted")
    out = os.path.relpath(marker, project / "mlruns")
    told = []
    for name in (out, str(marker), f"artifacts/../{out}"):
        manifest = keep(json.dumps([{"md5": planted, "relpath": name}]).encode(), ".dir")
        (project / "mlruns.dvc").write_text(f"outs:\n- md5: {manifest}\n  hash: md5\n  path: mlruns\n")
        told.append(json.loads(run_in_process(project, cache, "restore", "--json", code=2))["error"])
    (project / "mlruns.dvc").write_text(
        f"cmd: touch {marker}\nouts:\n- md5: {manifest}\n  hash: md5\n  path: mlruns\n"
    )
    told.append(json.loads(run_in_process(project, cache, "restore", "--json", code=2))["error"])
    return len(told) == 4 and not (project / "mlruns").exists()


def sweep_file(place: Path, marker: Path) -> bool:
    """Tags of YAML that build objects in other loaders, a merge from elsewhere, code to import."""
    lines = (
        f"description: !!python/object/apply:os.system ['touch {marker}']",
        f"name: !!python/object/new:os.system ['touch {marker}']",
        "data: !include /etc/passwd",
        "plugins: [evil]",
        f"description: &x [*x, 'touch {marker}']",
    )
    path, count = place / "evil.yaml", 0
    for line in lines:
        path.write_text(f"{line}\nparameters: {{feature: mfcc}}\n")
        count += refused_with(SweepError, "line|plugins", lambda: load_sweep(path))
    return count == len(lines)


def audio_path(place: Path, marker: Path) -> bool:
    """Names that a shell would run, playlists that name other files, sound that is a pickle."""
    (place / "list.wav").write_text(f"ffconcat version 1.0\nfile {__file__}\n")
    (place / "list.flac").write_text(f"#EXTM3U\n{__file__}\n")
    (place / "pickle.wav").write_bytes(pickle.dumps(Payload(str(marker))))
    paths = [
        f"|touch {marker}",
        f"touch {marker} |",
        f"$(touch {marker})",
        "list.wav",
        "list.flac",
        "pickle.wav",
    ]
    return sum(
        refused_with(AudioError, "file|audio|format|read", lambda p=path: load_audio(place / p))
        for path in paths
    ) == len(paths)


def onnx_file(place: Path, marker: Path) -> bool:
    """Weights in a file elsewhere, in the graph and in a node of it: onnxruntime would read them."""
    marker.with_name("secret.bin").write_bytes(np.ones(4, np.float32).tobytes())
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", os.path.relpath(marker.with_name("secret.bin"), place)
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    kept = helper.make_node("Identity", ["w"], ["y"])
    inner = helper.make_node("Constant", [], ["y"], value=tensor)
    count = 0
    for number, graph in enumerate(
        (helper.make_graph([kept], "g", [], [value], [tensor]), helper.make_graph([inner], "g", [], [value]))
    ):
        path = place / f"{number}.onnx"
        path.write_bytes(
            helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]).SerializeToString()
        )
        count += refused_with(OnnxFileError, "in other files", lambda p=path: open_session(p))
    return count == 2


@pytest.mark.slow
@pytest.mark.row(24)
def test_what_others_made_runs_nothing(
    tmp_path: Path, sealed: Path, demo_cache: Path, measured: Callable[..., None]
) -> None:
    marker = tmp_path / "marker"
    os.system(f"touch {marker}")
    assert marker.exists(), "the payload would work"
    marker.unlink()
    refused = {}
    for case in (model_folder, checkpoint, dvc_manifest, sweep_file, audio_path, onnx_file):
        place = tmp_path / case.__name__
        place.mkdir()
        more = {model_folder: (sealed, demo_cache), dvc_manifest: (demo_cache,)}.get(case, ())
        refused[case.__name__] = case(place, marker, *more)
        assert not marker.exists(), f"{case.__name__} ran or wrote"
    pickle.loads(pickle.dumps(Payload(str(marker))))
    assert marker.exists(), "the pickle does what it is made for"
    count = sum(refused.values())
    measured(f"{count} of {len(refused)} refused, marker file absent", holds=count == len(refused))
