"""The notebooks' network: five residual 1-D blocks, global average pooling and a small head.

::

    (batch, feature, frame)
       | block  in -> 64    frame / 2
       | block  64 -> 128   frame / 4
       | block 128 -> 256   frame / 8
       | block 256 -> 256   frame / 16
       | block 256 -> 512   frame / 32
    mean over frames  (batch, 512)
       | linear 512 -> 256, ReLU, dropout, linear 256 -> 2
    (batch, 2)

Speaker embeddings come in 7 frames or in one, which cannot be halved five times. Seven pass the same blocks
without pooling; one passes ``SingleFrameEncoder`` instead. ``encoder_for`` decides, the head is the same.
"""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import nn

from models.networks.config import CnnConfig, encoder_for


class NormalizedConvolution(nn.Module):
    """Convolution without bias, then BatchNorm, (batch, inputs, 1, frame) -> (batch, outputs, 1, frame).

    A 1-D convolution written as 2-D with one row: the same numbers, 1.3-1.9 times faster on a CPU in
    channels-last memory.
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int) -> None:
        super().__init__()
        padding = (0, kernel_size // 2)
        self.conv = nn.Conv2d(inputs, outputs, (1, kernel_size), padding=padding, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, inputs, 1, frame) to (batch, outputs, 1, frame); odd kernels, so that no frame is lost."""
        y: torch.Tensor = self.norm(self.conv(x))
        return y

    def fuse(self) -> None:
        """Fold the BatchNorm into the convolution, in place; only for inference, and only once (then RuntimeError)."""
        weight, bias = self.fused_weights()
        self.conv.weight = nn.Parameter(weight, requires_grad=False)
        self.conv.bias = nn.Parameter(bias, requires_grad=False)
        self.norm = nn.Identity()

    def fused_weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the weight and bias of the one convolution that does the same in evaluation mode.

        With ``s = gamma / sqrt(variance + eps)``: ``s w`` (outputs, inputs, 1, kernel), ``beta - s mean`` (outputs,).

        Raises
        ------
        RuntimeError
            The BatchNorm was folded in before.
        """
        norm = self.norm
        if not isinstance(norm, nn.BatchNorm2d):
            raise RuntimeError("the BatchNorm was folded into the convolution before")
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
        shift = norm.bias.detach() - norm.running_mean * scale
        return self.conv.weight.detach() * scale.view(-1, 1, 1, 1), shift


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, then pooling by two.

    ::

        x --+-- conv k, BN -- ReLU -- conv k, BN --+-- add -- ReLU -- max pool 2
            +------------ conv 1, BN --------------+
              (left out where the channels stay)

    Convolutions carry no bias, their BatchNorm has one. Of the usual choices (biases, BatchNorms, an
    always projected shortcut) this is the standard block that gives the published parameter counts.
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int, *, pooling: bool = True) -> None:
        super().__init__()
        self.first = NormalizedConvolution(inputs, outputs, kernel_size)
        self.second = NormalizedConvolution(outputs, outputs, kernel_size)
        self.shortcut = nn.Identity() if inputs == outputs else NormalizedConvolution(inputs, outputs, 1)
        self.pool = nn.MaxPool2d((1, 2)) if pooling else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, inputs, 1, frame) to (batch, outputs, 1, frame // 2); without pooling frames stay."""
        y = self.second(torch.relu(self.first(x)))
        pooled: torch.Tensor = self.pool(torch.relu(y + self.shortcut(x)))
        return pooled


class LightweightCNNEncoder(nn.Module):
    """Features to one embedding a window, (batch, feature, frame) -> (batch, 512 at width 1)."""

    def __init__(self, num_features: int, config: CnnConfig, *, pooling: bool = True) -> None:
        super().__init__()
        self.num_features = num_features
        self.embedding_size = config.channels()[-1]
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(i, o, config.kernel_size, pooling=pooling)
                for i, o in config.block_channels(num_features)
            )
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Embed windows, (batch, feature, frame) -> (batch, embedding_size); at least 32 frames where it pools."""
        x = features.unsqueeze(2).contiguous(memory_format=torch.channels_last)  # (B, F, 1, T)
        encoded: torch.Tensor = self.blocks(x)
        return encoded.mean(dim=(2, 3))


class SingleFrameEncoder(nn.Module):
    """One frame to one embedding, (batch, feature, 1) -> (batch, 512 at width 1): LayerNorm, linear, ReLU."""

    def __init__(self, num_features: int, config: CnnConfig) -> None:
        super().__init__()
        self.num_features = num_features
        self.embedding_size = config.channels()[-1]
        self.norm = nn.LayerNorm(num_features)
        self.linear = nn.Linear(num_features, self.embedding_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Embed windows, (batch, feature, 1) -> (batch, embedding_size), 0 or above."""
        return torch.relu(self.linear(self.norm(features.squeeze(2))))


class FastDiarizationModel(nn.Module):
    """Encoder and head, (batch, feature, frame) float32 -> (batch, num_classes) logits.

    Parameters
    ----------
    num_features : rows of the front end
    config : width, dropout and kernel; None is the notebooks' network
    num_frames : frames of the front end, which decide the encoder (`encoder_for`); None is any number from 32 on
    """

    def __init__(
        self,
        num_features: int,
        config: CnnConfig | None = None,
        num_classes: int = 2,
        num_frames: int | None = None,
    ) -> None:
        super().__init__()
        self.config = config or CnnConfig()
        self.num_features = num_features
        self.num_classes = num_classes
        self.num_frames = num_frames
        kind = encoder_for(num_frames)
        self.encoder: LightweightCNNEncoder | SingleFrameEncoder
        if kind == "single":
            self.encoder = SingleFrameEncoder(num_features, self.config)
        else:
            self.encoder = LightweightCNNEncoder(num_features, self.config, pooling=kind == "pooling")
        self.head = nn.Sequential(
            nn.Linear(self.encoder.embedding_size, self.config.hidden),
            nn.ReLU(),
            nn.Dropout(self.config.dropout),
            nn.Linear(self.config.hidden, num_classes),
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # in no stub

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Classify windows, (batch, feature, frame) -> (batch, num_classes) logits."""
        logits: torch.Tensor = self.head(self.encoder(features))
        return logits

    def fused(self) -> Self:
        """Copy the network for inference: evaluation mode, CPU, float32, BatchNorms folded, nothing to train."""
        twin = copy.deepcopy(self).to("cpu", torch.float32).eval().requires_grad_(False)
        for module in twin.modules():
            if isinstance(module, NormalizedConvolution):
                module.fuse()
        return twin

    def fused_state(self) -> dict[str, torch.Tensor]:
        """Give ``fused().state_dict()`` without the cost of copying the network."""
        state = dict(self.state_dict())
        for name, module in self.named_modules():
            if isinstance(module, NormalizedConvolution):
                for inner in module.state_dict():
                    del state[f"{name}.{inner}"]
                weight, bias = module.fused_weights()
                state[f"{name}.conv.weight"], state[f"{name}.conv.bias"] = weight, bias
        return {name: tensor.to("cpu", torch.float32) for name, tensor in state.items()}


def build_network(
    config: CnnConfig, num_features: int, num_classes: int = 2, num_frames: int | None = None
) -> FastDiarizationModel:
    """Make the network with random weights, (batch, num_features, frame) -> (batch, num_classes) logits.

    Weights are drawn from torch's own CPU generator: seed that first. ``num_frames`` decides the encoder
    (``encoder_for``); of a front end, give ``front_end.num_frames()``.
    """
    return FastDiarizationModel(num_features, config, num_classes, num_frames)


def macs(model: FastDiarizationModel, num_frames: int) -> int:
    """Count the multiply-accumulates of one window of ``num_frames`` frames, as `CnnConfig.macs`."""
    return model.config.macs(model.num_features, num_frames, model.num_classes)
