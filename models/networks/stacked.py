"""Networks of one shape that are computed as one: their channels lie side by side, their convolutions are groups.

::

    member 0     (batch, C, 1, frame) --.                                       .-- logits of member 0
    member 1     (batch, C, 1, frame) --+-- (batch, K x C, 1, frame), K groups --+-- logits of member 1
    member K-1   (batch, C, 1, frame) --'                                       '-- logits of member K-1

A stack is a member whose layers were exchanged: its own `forward` runs over K times the channels. Every weight and
buffer has the member's name, and its shape with the member in front: (member, *shape). What is elementwise (an
optimizer, an average of the weights) works on it as it is. Nothing passes from one member to another.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from models.errors import ModelError
from models.networks.random_draws import Generators, using_generators

State = dict[str, torch.Tensor]


class StackError(ModelError):
    """Networks that cannot be computed as one: other shapes, other settings, or a layer that nobody stacks."""


class Stacked(nn.Module):
    """K networks as one, (member, batch, feature, frame) -> (member, batch, 2) logits; made by `stack`.

    Law: member k's logits and gradients are those of network k alone, up to rounding.
    """

    def __init__(self, network: nn.Module, members: int) -> None:
        super().__init__()
        self.network, self.members = network, members

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (member, batch, feature, frame), or (batch, feature, frame) for all, to (member, batch, 2) logits."""
        shared = features.ndim == 3
        each = features.expand(self.members, *features.shape) if shared else features
        logits: torch.Tensor = self.network(each.transpose(0, 1).flatten(1, 2))  # (B, K F, T) -> (B, K 2)
        return _members(logits, self.members)

    def member(self, index: int) -> State:
        """Give the state of one member, named and shaped as the network alone has it; views."""
        return {name: tensor[index] for name, tensor in self.network.state_dict().items()}

    def keep(self, indices: Sequence[int]) -> None:
        """Go on without the other members, in place; the parameters are new ones."""
        for module in self.network.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(stack_tensors([parameter.detach()[i] for i in indices])))
            for name, buffer in list(module.named_buffers(recurse=False)):
                setattr(module, name, stack_tensors([buffer[i] for i in indices]))
            if isinstance(module, StackedDropout):
                module.source_of = [module.source_of[i] for i in indices]
            if isinstance(module, _StackedLayer):
                module.members = len(indices)
        self.members = len(indices)

    def draw_from(self, sources: Sequence[Generators], source_of: Sequence[int]) -> None:
        """Have each member's dropout drawn from its source; members of one source have one mask in common.

        Parameters
        ----------
        sources : the generators that take the place of torch's own
        source_of : (member,) position in `sources`
        """
        for module in self.network.modules():
            if isinstance(module, StackedDropout):
                module.sources, module.source_of = list(sources), list(source_of)


def stack(members: Sequence[nn.Module]) -> Stacked:
    """Compute networks as one; their weights are copied.

    Raises
    ------
    StackError
        They differ in shape, or have a layer that nobody stacks.
    """
    made = [
        (repr(one), [(name, tensor.shape) for name, tensor in one.state_dict().items()]) for one in members
    ]
    if not members or any(one != made[0] for one in made):
        raise StackError(f"{len(members)} networks of different shapes or settings cannot be stacked")
    network = copy.deepcopy(members[0])
    for name, module in list(network.named_modules()):
        each: list[Any] = [one.get_submodule(name) for one in members]
        if type(module) in _LAYERS:
            network.set_submodule(name, _LAYERS[type(module)](each))
        elif any(True for _ in (*module.parameters(recurse=False), *module.buffers(recurse=False))):
            raise StackError(f"{type(module).__name__} ({name}) cannot be stacked")
    return Stacked(network, len(members)).train(members[0].training)


def stack_tensors(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Copy tensors of one shape into one, (member, *shape); kernels so that all of them are channels-last as one."""
    if tensors[0].ndim == 4:
        together = torch.cat(list(tensors)).contiguous(memory_format=torch.channels_last)
        return together.view(len(tensors), *tensors[0].shape)
    return torch.stack(list(tensors))


class _StackedLayer(nn.Module):
    members: int


class StackedConvolution(_StackedLayer):
    """K convolutions as the groups of one, (batch, K inputs, 1, frame) -> (batch, K outputs, 1, frame)."""

    def __init__(self, layers: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        first, self.members = layers[0], len(layers)
        self.stride, self.padding = first.stride, first.padding
        self.dilation, self.groups = first.dilation, first.groups
        self.weight = nn.Parameter(stack_tensors([one.weight.detach() for one in layers]))
        biases = [one.bias.detach() for one in layers if one.bias is not None]
        self.bias = nn.Parameter(stack_tensors(biases)) if biases else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve every member's channels with its own kernels, at its own place among the outputs."""
        bias = None if self.bias is None else self.bias.view(-1)
        groups = self.groups * self.members
        return F.conv2d(x, self.weight.flatten(0, 1), bias, self.stride, self.padding, self.dilation, groups)


class StackedBatchNorm(_StackedLayer):
    """K BatchNorms, whose statistics are a channel's own anyway, (batch, K channels, 1, frame)."""

    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor

    def __init__(self, layers: Sequence[nn.BatchNorm2d]) -> None:
        super().__init__()
        assert layers[0].momentum is not None, "a cumulative average divides by the number of batches"
        self.momentum, self.eps, self.members = layers[0].momentum, layers[0].eps, len(layers)
        self.weight = nn.Parameter(stack_tensors([one.weight.detach() for one in layers]))
        self.bias = nn.Parameter(stack_tensors([one.bias.detach() for one in layers]))
        for name, _ in layers[0].named_buffers():
            self.register_buffer(name, stack_tensors([getattr(one, name) for one in layers]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise every channel by the batch's mean and variance in training, by the running ones in evaluation."""
        if self.training:
            self.num_batches_tracked.add_(1)
        mean, variance = (
            self.running_mean.view(-1),
            self.running_var.view(-1),
        )  # views: they are updated in place
        weight, bias = self.weight.view(-1), self.bias.view(-1)
        return F.batch_norm(x, mean, variance, weight, bias, self.training, self.momentum, self.eps)


class StackedLinear(_StackedLayer):
    """K linear layers as one batched product, (batch, K inputs) -> (batch, K outputs)."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.members = len(layers)
        self.weight = nn.Parameter(stack_tensors([one.weight.detach() for one in layers]))
        self.bias = nn.Parameter(stack_tensors([one.bias.detach() for one in layers]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map every member's values by its own weights, (batch, K inputs) -> (batch, K outputs)."""
        y = torch.baddbmm(self.bias.unsqueeze(1), _members(x, self.members), self.weight.transpose(1, 2))
        return y.transpose(0, 1).flatten(1)


class StackedLayerNorm(_StackedLayer):
    """K LayerNorms over the last axis, (batch, K values) -> (batch, K values)."""

    def __init__(self, layers: Sequence[nn.LayerNorm]) -> None:
        super().__init__()
        self.members, self.eps = len(layers), layers[0].eps
        self.weight = nn.Parameter(stack_tensors([one.weight.detach() for one in layers]))
        self.bias = nn.Parameter(stack_tensors([one.bias.detach() for one in layers]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise every member's values by themselves."""
        each = x.view(len(x), self.members, -1)
        return (F.layer_norm(each, each.shape[2:], eps=self.eps) * self.weight + self.bias).flatten(1)


class StackedDropout(_StackedLayer):
    """Dropout that draws for every member the mask that it draws alone, (batch, K values)."""

    def __init__(self, layers: Sequence[nn.Dropout]) -> None:
        super().__init__()
        self.p, self.members = layers[0].p, len(layers)
        self.sources: list[Generators] = [()] * self.members  # (): torch's own, one member after the other
        self.source_of = list(range(self.members))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop in training, (batch, K values) -> (batch, K values); in evaluation, or with p = 0, nothing is drawn."""
        if not self.training or self.p == 0:
            return x
        ones = torch.ones_like(_members(x, self.members)[0], memory_format=torch.contiguous_format)
        masks = []
        for source in self.sources:
            with using_generators(source):
                masks.append(F.dropout(ones, self.p))
        return x * torch.stack([masks[source] for source in self.source_of], dim=1).flatten(1)


_LAYERS: dict[type[nn.Module], Any] = {
    nn.Conv2d: StackedConvolution,
    nn.BatchNorm2d: StackedBatchNorm,
    nn.Linear: StackedLinear,
    nn.LayerNorm: StackedLayerNorm,
    nn.Dropout: StackedDropout,
}


def _members(x: torch.Tensor, members: int) -> torch.Tensor:
    """(batch, K values) -> (member, batch, values)."""
    return x.view(len(x), members, -1).transpose(0, 1)
