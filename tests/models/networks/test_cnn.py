"""Laws of the network: published sizes, counted work, folding, scaling."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.front_ends.config import FRONT_ENDS
from models.networks.cnn import (
    FastDiarizationModel,
    LightweightCNNEncoder,
    NormalizedConvolution,
    ResidualBlock,
    build_network,
    macs,
)
from models.networks.config import POOLING, CnnConfig, encoder_for

SMALL = CnnConfig(width=0.125)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# A block in -> out with k = 3: 3 in out + 3 out^2 weights and 4 out of two BatchNorms; where the channels
# change, in out + 2 out of the projected shortcut. For one row:
#   1 -> 64: 192 + 12288 + 256 + 64 + 128 = 12928        64 -> 128: 24576 + 49152 + 512 + 8192 + 256 = 82688
#   128 -> 256: 98304 + 196608 + 1024 + 32768 + 512 = 329216    256 -> 256: 393216 + 1024 = 394240
#   256 -> 512: 393216 + 786432 + 2048 + 131072 + 1024 = 1313792
# Head: 512 * 256 + 256 + 256 * 2 + 2 = 131842.  Sum 2264706. With 80 rows 79 * (192 + 64) = 20224 more.
@pytest.mark.parametrize(("num_features", "parameters"), [(1, 2_264_706), (80, 2_284_930), (40, 2_274_690)])
def test_the_published_parameter_counts(num_features: int, parameters: int) -> None:
    assert count(FastDiarizationModel(num_features)) == parameters
    assert CnnConfig().num_parameters(num_features) == parameters


def test_the_published_work() -> None:
    # 602 M + 1966 M + 3932 M + 2359 M + 3932 M, see the block above times 48000, 24000, ... 3000 frames.
    assert CnnConfig().macs(1, 48_000) == 12_791_939_584
    assert CnnConfig().macs(80, 301) == 85_000_704


def counted_macs(model: FastDiarizationModel, num_frames: int) -> int:
    total = 0

    def add(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += module.weight.numel()

    for module in model.modules():
        module.register_forward_hook(add)
    model(torch.zeros(1, model.num_features, num_frames))
    return total


@given(
    width=st.floats(0.0625, 0.5),
    kernel_size=st.sampled_from([1, 3, 5]),
    num_features=st.integers(1, 80),
    num_frames=st.integers(1, 400),
)
@settings(max_examples=15, deadline=None)
def test_size_and_work_are_predicted(
    width: float, kernel_size: int, num_features: int, num_frames: int
) -> None:
    config = CnnConfig(width=width, kernel_size=kernel_size)
    model = build_network(config, num_features, num_frames=num_frames).eval()
    assert count(model) == config.num_parameters(num_features, num_frames=num_frames)
    assert counted_macs(model, num_frames) == macs(model, num_frames) == config.macs(num_features, num_frames)


@given(width=st.floats(0.0625, 4))
def test_channels_come_in_eights_near_the_scaled_width(width: float) -> None:
    for channels, base in zip(CnnConfig(width=width).channels(), (64, 128, 256, 256, 512), strict=True):
        assert channels % 8 == 0
        assert channels >= 8
        assert abs(channels - base * width) <= 4 or channels == 8


def test_pooling_is_32_and_the_embedding_512() -> None:
    encoder = LightweightCNNEncoder(80, CnnConfig()).eval()
    blocks = encoder.blocks(torch.zeros(1, 80, 1, 301))
    assert blocks.shape == (1, 512, 1, 301 // POOLING)
    assert encoder(torch.zeros(2, 80, 301)).shape == (2, 512)


def test_the_front_ends_leave_a_frame_after_pooling_or_are_not_pooled() -> None:
    built_in = [front_end() for front_end in FRONT_ENDS.values() if not front_end.external]
    assert all(front_end.num_frames() >= POOLING for front_end in built_in)
    assert FRONT_ENDS["mfcc"](n_fft=2048, win_length=2048, hop_length=1024).num_frames() >= POOLING


def test_few_frames_are_kept_and_a_single_one_meets_no_convolution() -> None:
    assert [encoder_for(frames) for frames in (None, 301, 32, 31, 7, 1)] == [
        "pooling", "pooling", "pooling", "pooling-free", "pooling-free", "single",
    ]  # fmt: skip
    sliding = build_network(CnnConfig(), 192, num_frames=7).eval()
    assert isinstance(sliding.encoder, LightweightCNNEncoder)
    assert sliding.encoder.blocks(torch.zeros(1, 192, 1, 7)).shape == (1, 512, 1, 7)
    whole = build_network(CnnConfig(width=0.5, dropout=0.1), 192, num_frames=1)
    assert whole(torch.zeros(3, 192, 1)).shape == (3, 2)
    # SCIENCE.md 4: (D,) -> LayerNorm -> 512-256-2, here at half its width
    sizes = [
        (layer.in_features, layer.out_features) for layer in whole.modules() if isinstance(layer, nn.Linear)
    ]
    assert sizes == [(192, 256), (256, 128), (128, 2)]
    assert [layer.p for layer in whole.modules() if isinstance(layer, nn.Dropout)] == [0.1]


@pytest.mark.parametrize("num_frames", [1, 7])
def test_few_frames_are_fused_for_inference_as_many_are(num_frames: int) -> None:
    model = build_network(CnnConfig(width=0.125), 12, num_frames=num_frames)
    for _ in range(3):
        model(torch.randn(8, 12, num_frames))
    model.eval()
    features = torch.randn(5, 12, num_frames)
    fused = model.fused()
    torch.testing.assert_close(fused(features), model(features), rtol=1e-4, atol=1e-5)
    state, expected = model.fused_state(), fused.state_dict()
    assert set(state) == set(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def trained(config: CnnConfig = SMALL, num_features: int = 40) -> FastDiarizationModel:
    """Make a network whose BatchNorms have seen data and lost their initial values."""
    torch.manual_seed(0)
    model = build_network(config, num_features)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    for _ in range(3):
        model(torch.randn(8, num_features, 301))
    return model


def test_folding_keeps_the_logits_and_the_original() -> None:
    model = trained()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fused = model.fused()
    features = torch.randn(4, 40, 301)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with torch.inference_mode():
        torch.testing.assert_close(fused(features), model.eval()(features), rtol=1e-5, atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())


def test_folded_state_is_the_folded_networks() -> None:
    model = trained()
    state, expected = model.fused_state(), model.fused().state_dict()
    assert sorted(state) == sorted(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_folding_twice_is_an_error() -> None:
    convolution = NormalizedConvolution(8, 8, 3)
    convolution.fuse()
    with pytest.raises(RuntimeError, match="before"):
        convolution.fuse()


def test_same_seed_same_network_and_it_learns() -> None:
    features, labels = torch.randn(16, 40, 64), torch.arange(16) % 2

    def run() -> tuple[list[float], dict[str, torch.Tensor]]:
        torch.manual_seed(1)
        model = build_network(CnnConfig(width=0.0625, dropout=0), 40)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        losses = []
        for _ in range(15):
            loss = nn.functional.cross_entropy(model(features), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses, model.state_dict()

    (losses, state), (again, state_again) = run(), run()
    assert losses == again
    assert all(torch.equal(state[name], state_again[name]) for name in state)
    assert losses[-1] < 0.5 * losses[0]


class Plain(nn.Module):
    """A block of the network as the notebooks wrote it, with 1-D convolutions, from the weights of one of ours."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.first, self.second = self._convolution(block.first), self._convolution(block.second)
        plain = isinstance(block.shortcut, nn.Identity)
        self.shortcut = nn.Identity() if plain else self._convolution(block.shortcut)
        self.pool = nn.MaxPool1d(2)

    @staticmethod
    def _convolution(ours: Any) -> nn.Module:
        outputs, inputs, _, size = ours.conv.weight.shape
        convolution = nn.Conv1d(inputs, outputs, size, padding=size // 2, bias=False)
        convolution.weight.data = ours.conv.weight.data[:, :, 0].clone()
        norm = nn.BatchNorm1d(outputs)
        norm.load_state_dict(ours.norm.state_dict())
        return nn.Sequential(convolution, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.pool(torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x)))
        return y


@pytest.mark.parametrize("training", [True, False])
def test_one_row_of_two_dimensions_is_one_dimension(training: bool) -> None:
    """Logits and gradients are those of the same network with Conv1d, in training and evaluation mode."""
    torch.manual_seed(0)
    ours = FastDiarizationModel(8, CnnConfig(width=0.125, dropout=0.0)).double().train(training)
    blocks = nn.Sequential(*(Plain(block) for block in ours.encoder.blocks)).double().train(training)
    head = copy.deepcopy(ours.head)
    features, labels = torch.randn(6, 8, 64, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 1, 0])
    left, right = ours(features), head(blocks(features).mean(dim=2))
    torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)
    for logits in (left, right):
        nn.functional.cross_entropy(logits, labels).backward()
    mine, theirs = ours.encoder.blocks[0].first.conv.weight.grad, blocks[0].first[0].weight.grad
    torch.testing.assert_close(mine[:, :, 0], theirs, rtol=1e-8, atol=1e-10)
