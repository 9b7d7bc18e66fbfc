"""Laws of ensembles: the mean of probabilities, in one file of the same signature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.export.ensemble import Ensemble, Member, export_ensemble
from models.export.export import ExportError, Pipeline
from models.export.specification import Specification
from models.front_ends.build import build_front_end
from models.front_ends.config import FrontEnd, LogMel, Mfcc, Waveform
from models.networks.cnn import FastDiarizationModel, build_network
from models.networks.config import CnnConfig
from models.onnx_io.session import open_session, parity
from models.window import WINDOW_SAMPLES

SMALL = CnnConfig(width=0.0625)
WIDER = CnnConfig(width=0.125)


def windows(count: int = 5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    level = 10 ** rng.uniform(-3, -0.5, (count, 1))
    out = (level * rng.standard_normal((count, WINDOW_SAMPLES))).astype(np.float32)
    out[0] = 0
    return out


def member(front_end: FrontEnd, seed: int, config: CnnConfig = SMALL) -> Member:
    """Make a network that is sure of itself: its logits differ from window to window."""
    torch.manual_seed(seed)
    cnn = build_network(config, front_end.num_features, num_frames=front_end.num_frames())
    cnn(build_front_end(front_end)(torch.from_numpy(windows(4, seed)))).sum().backward()
    with torch.no_grad():
        cnn.head[-1].weight *= 10
    return front_end, cnn.eval()


MEMBERS = [member(Mfcc(), 1), member(LogMel(), 2, WIDER), member(Mfcc(), 3)]


def logits_of(members: list[Member], batch: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = Ensemble(members).eval()(torch.from_numpy(batch))
    return found


def alone(one: Member, batch: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = Pipeline(build_front_end(one[0]), one[1]).eval()(torch.from_numpy(batch))
    return found


def specification(members: list[Member]) -> Specification:
    return Specification.model_validate(
        {
            "task": "pseudo", "variant": "seen", "label_meaning": {"0": "class 0", "1": "class 1"},
            "front_end": None, "architecture": None,
            "members": [
                {"run_id": f"{k:032d}", "fingerprint": f"{k:064d}", "front_end": front_end, "architecture": cnn.config}
                for k, (front_end, cnn) in enumerate(members)
            ],
            "label_map_digest": "a" * 64, "manifest_digests": {"val": "c" * 64}, "fingerprint": "d" * 64,
            "run_id": "e" * 32, "versions": {}, "created": "2025-01-31T12:00:00+00:00",
        }
    )  # fmt: skip


@pytest.mark.parametrize("copies", [1, 2, 5])
def test_copies_of_one_member_are_that_member(copies: int) -> None:
    one, batch = MEMBERS[1], windows()
    torch.testing.assert_close(
        logits_of([one] * copies, batch), alone(one, batch).log_softmax(dim=1), rtol=1e-5, atol=1e-5
    )


def test_what_is_averaged_is_probability() -> None:
    batch = windows()
    votes = torch.stack([alone(one, batch).softmax(dim=1) for one in MEMBERS])
    found = logits_of(MEMBERS, batch)
    torch.testing.assert_close(found.softmax(dim=1), votes.mean(dim=0), rtol=1e-5, atol=1e-6)
    assert votes.std(dim=0).max() > 0.05  # members that disagree, else this shows nothing


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0)])
def test_the_order_of_the_members_means_nothing(order: tuple[int, ...]) -> None:
    batch = windows(2)
    torch.testing.assert_close(
        logits_of([MEMBERS[k] for k in order], batch), logits_of(MEMBERS, batch), rtol=1e-5, atol=1e-5
    )


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_its_cross_entropy_is_never_above_the_mean_of_its_members(seed: int) -> None:
    class Answers(nn.Module):
        def __init__(self, logits: torch.Tensor) -> None:
            super().__init__()
            self.logits = logits

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return self.logits

    generator = torch.Generator().manual_seed(seed)
    logits = [20 * torch.randn(6, 2, generator=generator) for _ in range(3)]
    labels = torch.arange(6) % 2
    ensemble = Ensemble([(Waveform(), MEMBERS[0][1])] * 3)
    ensemble.networks = nn.ModuleList([Answers(one) for one in logits])
    found = nn.functional.cross_entropy(ensemble(torch.zeros(6, 10)), labels)
    mean = torch.stack([nn.functional.cross_entropy(one, labels) for one in logits]).mean()
    assert found <= mean + 1e-5
    assert found.isfinite()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MEMBERS in one file; nothing else lies beside it."""
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    modes = [cnn.training for _, cnn in MEMBERS]
    export_ensemble(MEMBERS, specification(MEMBERS), path)
    assert [cnn.training for _, cnn in MEMBERS] == modes
    assert [child.name for child in path.parent.iterdir()] == ["model.onnx"]
    return path


def test_a_shared_front_end_is_computed_once(exported: Path) -> None:
    assert Ensemble(MEMBERS).front_end_of == [0, 1, 0]
    assert len(Ensemble(MEMBERS).front_ends) == 2
    nodes = onnx.load(exported).graph.node
    # of the decibels; the exporter may merge what two front ends have in common
    assert 1 <= sum(node.op_type == "Log" and "front_ends" in node.name for node in nodes) <= 2


def test_one_file_repeats_torch_at_any_batch(exported: Path) -> None:
    session = open_session(exported)
    (given_in,), (result,) = session.get_inputs(), session.get_outputs()
    assert (given_in.name, given_in.type, given_in.shape) == (
        "waveform",
        "tensor(float)",
        ["batch", WINDOW_SAMPLES],
    )
    assert (result.name, result.type, result.shape) == ("logits", "tensor(float)", ["batch", 2])
    expected = logits_of(MEMBERS, windows()).numpy()
    for count in (1, 2, 5):
        assert parity(session, expected[:count], windows()[:count]).ok


def test_raw_and_spectral_members_go_together(tmp_path: Path) -> None:
    members = [MEMBERS[0], member(Waveform(), 4)]
    export_ensemble(members, specification(members), tmp_path / "m.onnx")  # holds it against torch by itself


def test_the_file_names_its_members(exported: Path) -> None:
    found = Specification.from_onnx(exported)
    assert found == specification(MEMBERS)
    assert [one.fingerprint[-1] for one in found.members] == ["0", "1", "2"]
    assert found.members[1].front_end["kind"] == "log_mel"
    assert found.front_end is None


def test_members_that_are_not_the_stated_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="members: the ensemble has"):
        export_ensemble(MEMBERS[:2], specification(MEMBERS), tmp_path / "m.onnx")
    with pytest.raises(ExportError, match="members: the ensemble has"):
        export_ensemble(MEMBERS[::-1], specification([MEMBERS[1], *MEMBERS[:2]]), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_specification_is_of_one_network_or_of_members() -> None:
    fields = specification(MEMBERS).model_dump(mode="json")
    with pytest.raises(ValueError, match="not both"):
        Specification.model_validate({**fields, "front_end": Mfcc(), "architecture": SMALL})
    with pytest.raises(ValueError, match="not both"):
        Specification.model_validate({**fields, "members": []})
    with pytest.raises(ValueError, match="not both"):
        Specification.model_validate({**fields, "members": [], "front_end": Mfcc()})
    single = {**fields, "members": [], "front_end": Mfcc(), "architecture": SMALL}
    metadata = Specification.model_validate(single).to_metadata()
    del metadata["members"]  # a file from before there were ensembles
    assert Specification.from_metadata(metadata) == Specification.model_validate(single)


def test_an_ensemble_of_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one member"):
        Ensemble([])


def test_the_ensembles_networks_are_the_callers() -> None:
    assert isinstance(Ensemble(MEMBERS).networks[0], FastDiarizationModel)
    assert Ensemble(MEMBERS).networks[0] is MEMBERS[0][1]
