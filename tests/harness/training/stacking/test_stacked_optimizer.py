"""Laws of a stack's steps: AdamW and loss scaling are torch's for every member, whoever is beside it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.amp.grad_scaler import GradScaler

from harness.training.stacking.stacked_adamw import StackedAdamW
from harness.training.stacking.stacked_scaler import StackedScaler
from models.networks.stacked import stack_tensors

CPU = torch.device("cpu")
SHAPES = ((3, 2, 1, 3), (3,), (2, 3))


def parameters(seed: int) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in SHAPES]


def gradients(seed: int, step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1000 * seed + step)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]


def optimizers(hyper: list[tuple[float, float]]) -> list[torch.optim.AdamW]:
    return [
        torch.optim.AdamW(parameters(seed), lr=rate, weight_decay=decay, fused=True)
        for seed, (rate, decay) in enumerate(hyper)
    ]


def alone(optimizer: torch.optim.AdamW, seed: int, steps: range, rate: float) -> None:
    for step in steps:
        optimizer.param_groups[0]["lr"] = rate / (1 + step)
        own: list[nn.Parameter] = optimizer.param_groups[0]["params"]
        for parameter, gradient in zip(own, gradients(seed, step), strict=True):
            parameter.grad = gradient
        optimizer.step()


def together(stacked: StackedAdamW, seeds: list[int], steps: range, rates: list[float]) -> None:
    for step in steps:
        each = [
            stack_tensors(list(one)) for one in zip(*(gradients(seed, step) for seed in seeds), strict=True)
        ]
        stacked.step(each, torch.tensor(rates, dtype=torch.float64) / (1 + step))


def stacked_of(members: list[torch.optim.AdamW]) -> StackedAdamW:
    columns = zip(*(one.param_groups[0]["params"] for one in members), strict=True)
    return StackedAdamW([stack_tensors([each.detach() for each in column]) for column in columns], members)


def states(optimizer: torch.optim.AdamW) -> list[dict[str, torch.Tensor]]:
    return [optimizer.state[parameter] for parameter in optimizer.param_groups[0]["params"]]


@given(
    hyper=st.lists(
        st.tuples(st.floats(1e-5, 0.5), st.sampled_from([0.0, 0.01, 0.9])), min_size=1, max_size=4
    ),
    before=st.integers(0, 3),
    steps=st.integers(1, 5),
)
@settings(max_examples=20, deadline=None)
def test_every_member_takes_the_steps_of_torchs_adamw(
    hyper: list[tuple[float, float]], before: int, steps: int
) -> None:
    wanted, members = optimizers(hyper), optimizers(hyper)
    for seed, (rate, _) in enumerate(hyper):
        alone(members[seed], seed, range(before), rate)  # the stack goes on from there
        alone(wanted[seed], seed, range(before + steps), rate)
    stacked = stacked_of(members)
    together(stacked, list(range(len(hyper))), range(before, before + steps), [rate for rate, _ in hyper])
    for index, (one, right) in enumerate(zip(members, wanted, strict=True)):
        stacked.unstack_member(index, one, right.param_groups[0]["lr"])
        for found, parameter in zip(stacked.parameters, right.param_groups[0]["params"], strict=True):
            torch.testing.assert_close(found[index], parameter.detach(), rtol=1e-9, atol=1e-12)
        for left, state in zip(states(one), states(right), strict=True):
            assert left.keys() == state.keys()
            for name, tensor in state.items():
                assert left[name].dtype == tensor.dtype
                torch.testing.assert_close(left[name], tensor, rtol=1e-9, atol=1e-12)
        assert one.state_dict()["param_groups"] == right.state_dict()["param_groups"]
        one.load_state_dict(one.state_dict())


def test_who_stays_steps_on_and_who_is_not_finite_does_not_step() -> None:
    hyper = [(0.1, 0.1), (0.2, 0.0), (0.3, 0.5)]
    members, wanted = optimizers(hyper), optimizers(hyper)
    stacked = stacked_of(members)
    together(stacked, [0, 1, 2], range(2), [0.1, 0.2, 0.3])
    stacked.keep([2, 0], [one[[2, 0]] for one in stacked.parameters])
    bad = [stack_tensors(list(one)) for one in zip(gradients(2, 2), gradients(0, 2), strict=True)]
    bad[1][1] = float("inf")
    rates = torch.tensor([0.3, 0.1], dtype=torch.float64) / 3
    stacked.step(bad, rates, torch.tensor([True, False]))
    alone(wanted[2], 2, range(3), 0.3)
    alone(wanted[0], 0, range(2), 0.1)
    for index, right in enumerate((wanted[2], wanted[0])):
        for found, parameter in zip(stacked.parameters, right.param_groups[0]["params"], strict=True):
            torch.testing.assert_close(found[index], parameter.detach(), rtol=1e-9, atol=1e-12)
    assert stacked.steps.tolist() == [3, 2]


@pytest.mark.parametrize("enabled", [True, False])
def test_every_member_has_the_scale_that_torchs_scaler_has(enabled: bool) -> None:
    patterns = ["....", "x.x.", "...x", "xxxx"]  # x: a gradient that is not finite
    settings_ = {"init_scale": 8.0, "growth_interval": 2, "enabled": enabled}
    scalers = [GradScaler("cpu", **settings_) for _ in patterns]  # type: ignore[arg-type]
    wanted = [GradScaler("cpu", **settings_) for _ in patterns]  # type: ignore[arg-type]
    stacked = StackedScaler(scalers, CPU)
    assert stacked.enabled == enabled
    if not enabled:
        assert stacked.unscale([]) is None
        assert stacked.scaled(torch.ones(4)).tolist() == [1.0] * 4
        return
    for step in range(4):
        grad = torch.stack([torch.full((2, 3), torch.inf if one[step] == "x" else 1.0) for one in patterns])
        each = [grad.clone(), stacked.scaled(torch.ones(4)).view(4, 1)]
        finite = stacked.unscale(each)
        assert finite is not None
        assert finite.tolist() == [one[step] != "x" for one in patterns]
        assert each[1].flatten().tolist() == [1.0] * 4
        stacked.update(finite)
        for index, scaler in enumerate(wanted):
            parameter = nn.Parameter(torch.zeros(2, 3))
            optimizer = torch.optim.SGD([parameter], lr=0.1)
            scaler.scale(torch.ones(()))  # type: ignore[no-untyped-call]
            parameter.grad = grad[index].clone()
            scaler.step(optimizer)
            scaler.update()
    for index, (own, scaler) in enumerate(zip(scalers, wanted, strict=True)):
        stacked.unstack_member(index, own)
        assert own.state_dict() == scaler.state_dict()
    again = StackedScaler(scalers, CPU)
    again.keep([3, 0])
    assert again.scale.tolist() == [scaler.get_scale() for scaler in (wanted[3], wanted[0])]
