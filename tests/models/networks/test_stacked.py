"""Laws of the stack: forward, backward, buffers and draws are the members' own; members come and go unchanged."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from models.networks.cnn import FastDiarizationModel, build_network
from models.networks.config import CnnConfig
from models.networks.random_draws import using_generators
from models.networks.stacked import Stacked, StackError, stack

BATCH = 6
# Grouped kernels add in another order; of numbers of size 1 that moves the last two digits of float32.
CLOSE = {"rtol": 1e-4, "atol": 2e-5}
CLOSER = {"rtol": 1e-9, "atol": 1e-11}  # the same of float64


def networks(count: int, config: CnnConfig, num_features: int, num_frames: int) -> list[FastDiarizationModel]:
    with torch.random.fork_rng():
        torch.manual_seed(count)
        return [build_network(config, num_features, num_frames=num_frames) for _ in range(count)]


def batch(count: int, num_features: int, num_frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(count, BATCH, num_features, num_frames, generator=generator)
    return features, torch.randint(2, (count, BATCH), generator=generator)


def sources(count: int) -> list[list[torch.Generator]]:
    return [[torch.Generator().manual_seed(seed)] for seed in range(count)]


def losses(together: Stacked, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    logits = together(features)
    each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return each.view(len(labels), -1).mean(dim=1)


def same_state(left: dict[str, torch.Tensor], right: nn.Module) -> None:
    wanted = right.state_dict()
    assert list(left) == list(wanted)
    for name, tensor in left.items():
        assert tensor.shape == wanted[name].shape
        assert tensor.dtype == wanted[name].dtype
        torch.testing.assert_close(tensor, wanted[name], **CLOSE, msg=name)


@given(
    count=st.integers(1, 4),
    width=st.sampled_from([0.0625, 0.2]),
    kernel_size=st.sampled_from([1, 3, 5]),
    dropout=st.sampled_from([0.0, 0.5]),
    num_features=st.integers(1, 9),
    num_frames=st.sampled_from([1, 2, 7, 31, 32, 45]),  # of every encoder
)
@settings(max_examples=12, deadline=None)
def test_forward_backward_and_buffers_are_the_members_own(
    count: int, width: float, kernel_size: int, dropout: float, num_features: int, num_frames: int
) -> None:
    # In double precision, and closer: where a ReLU's input is all but 0, float32's rounding decides its gradient.
    config = CnnConfig(width=width, kernel_size=kernel_size, dropout=dropout)
    alone = [one.double() for one in networks(count, config, num_features, num_frames)]
    together = stack(alone)
    together.draw_from(sources(count), range(count))
    features, labels = batch(count, num_features, num_frames)
    features = features.double()
    found = losses(together, features, labels)
    found.sum().backward()
    for index, (one, source) in enumerate(zip(alone, sources(count), strict=True)):
        with using_generators(source):
            loss = F.cross_entropy(one(features[index]), labels[index])
        loss.backward()
        torch.testing.assert_close(found[index], loss, **CLOSER)
        gradients = {name: parameter.grad for name, parameter in one.named_parameters()}
        for name, parameter in together.network.named_parameters():
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad[index], gradients[name], **CLOSER, msg=name)
        same_state(together.member(index), one)  # the running statistics moved
    together.eval()
    shared = together(features[0])  # one batch for all
    for index, one in enumerate(alone):
        torch.testing.assert_close(shared[index], one.eval()(features[0]), **CLOSER)


def test_members_come_back_bit_for_bit() -> None:
    alone = networks(3, CnnConfig(width=0.0625), 4, 32)
    together = stack(alone)
    for index, one in enumerate(alone):
        state = together.member(index)
        again = FastDiarizationModel(4, CnnConfig(width=0.0625), num_frames=32)
        again.load_state_dict(state)
        assert list(state) == list(one.state_dict())
        assert all(torch.equal(tensor, state[name]) for name, tensor in one.state_dict().items())


@pytest.mark.parametrize("kept", [[0], [2, 0], [0, 1, 3]])
def test_a_smaller_stack_goes_on_as_if_the_others_had_never_been(kept: list[int]) -> None:
    config = CnnConfig(width=0.0625)
    alone = networks(4, config, 4, 40)
    features, labels = batch(4, 4, 40)
    together, wanted = stack(alone), stack([alone[index] for index in kept])
    together.draw_from(sources(4), range(4))
    together.keep(kept)
    wanted.draw_from([sources(4)[index] for index in kept], range(len(kept)))
    # the dropped members' draws may go on unheard
    for one in (together, wanted):
        losses(one, features[kept], labels[kept]).sum().backward()
    for (name, left), right in zip(
        together.network.named_parameters(), wanted.network.parameters(), strict=True
    ):
        assert left.shape == right.shape
        assert left.stride() == right.stride()  # channels-last still
        assert left.grad is not None
        torch.testing.assert_close(left.grad, right.grad, msg=name)
    assert together(features[0]).shape == (len(kept), BATCH, 2)


def test_members_of_one_source_share_a_mask_and_torchs_own_generator_is_left_alone() -> None:
    alone = networks(3, CnnConfig(width=0.0625, dropout=0.5), 4, 8)
    twins = [alone[0], copy.deepcopy(alone[0]), copy.deepcopy(alone[0])]
    together = stack(twins)
    together.draw_from(sources(2), [0, 1, 0])
    before = torch.get_rng_state()
    logits = together(batch(1, 4, 8)[0][0])
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(logits[0], logits[2])
    assert not torch.allclose(logits[0], logits[1])


def test_what_is_not_finite_stays_where_it_is() -> None:
    alone = networks(3, CnnConfig(width=0.0625, dropout=0.0), 4, 40)
    features, labels = batch(3, 4, 40)
    together, healthy = stack(alone), stack(alone)
    with torch.no_grad():
        next(together.network.parameters())[1].fill_(float("nan"))
    for one in (together, healthy):
        losses(one, features, labels).sum().backward()
    for (name, left), right in zip(
        together.network.named_parameters(), healthy.network.parameters(), strict=True
    ):
        for index in (0, 2):
            assert left.grad is not None
            assert right.grad is not None
            torch.testing.assert_close(left.grad[index], right.grad[index], msg=name)
    assert all(tensor.isfinite().all() for index in (0, 2) for tensor in together.member(index).values())


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


def _different() -> Sequence[Sequence[nn.Module]]:
    small, wide = CnnConfig(width=0.0625), CnnConfig(width=0.2)
    dropped = CnnConfig(width=0.0625, dropout=0.1)
    return [
        [],
        [build_network(small, 4), build_network(wide, 4)],
        [build_network(small, 4), build_network(dropped, 4)],
        [Odd(), Odd()],
    ]


@pytest.mark.parametrize("members", _different())
def test_what_does_not_fit_is_refused(members: Sequence[nn.Module]) -> None:
    with pytest.raises(StackError):
        stack(members)
