"""What a device can do, and from it the shortest time that a training could take there (the roofline's floor)."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from harness.config.trial.training_config import TrainingConfig

ADAMW_BYTES = (
    7 * 4
)  # of a weight, a step: weight, gradient and two moments read, all but the gradient written


@dataclass(frozen=True)
class Ceilings:
    """Measured bests.

    tflops : of matrix products, by precision; bandwidth_gb_s : of a copy, what it reads and writes together
    launch_us : from one small kernel to the next
    """

    tflops: dict[str, float]
    bandwidth_gb_s: float
    launch_us: float


def ceilings(device: torch.device, *, tiny: bool) -> Ceilings:
    """Measure them; some 10 s on a GPU."""
    side, block_s = (64, 0.001) if tiny else (8192, 0.3)
    tflops = {}
    for name, dtype, tf32 in _precisions(device):
        with _tf32(tf32):
            left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
            tflops[name] = 2 * side**3 / _best_s(_product(left, right), device, block_s) / 1e12
    source = torch.empty(2**16 if tiny else 2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    one = torch.zeros(1, device=device)
    bandwidth = 2 * source.nbytes / _best_s(lambda: target.copy_(source), device, block_s) / 1e9
    return Ceilings(tflops, bandwidth, 1e6 * _best_s(lambda: one.add_(1), device, block_s))


def _product(left: torch.Tensor, right: torch.Tensor) -> Callable[[], object]:
    out = left @ right
    return lambda: torch.mm(left, right, out=out)


def _precisions(device: torch.device) -> Iterator[tuple[str, torch.dtype, bool]]:
    yield "fp32", torch.float32, False
    if device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False):
        yield "bf16", torch.bfloat16, False
    if device.type == "cuda":
        yield "tf32", torch.float32, True
        yield "fp16", torch.float16, False


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def synchronise(device: torch.device) -> None:
    """Wait for what was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _best_s(call: Callable[[], object], device: torch.device, block_s: float) -> float:
    """Seconds of a call, at best of three blocks of so many that they take `block_s`."""
    calls, taken = 1, 0.0
    while taken < block_s:  # warms up, too
        calls *= 2
        taken = _block_s(call, device, calls)
    return min(taken, *(_block_s(call, device, calls) for _ in range(2))) / calls


def _block_s(call: Callable[[], object], device: torch.device, calls: int) -> float:
    synchronise(device)
    start = time.perf_counter()
    for _ in range(calls):
        call()
    synchronise(device)
    return time.perf_counter() - start


@dataclass(frozen=True)
class Layer:
    """What one layer does for one window: operations and values in, out and in its weights."""

    macs: int
    inputs: int
    outputs: int
    weights: int
    needs_input_gradient: bool

    def forward_s(self, batch: int, peak: float, bandwidth: float, size: int) -> float:
        """Longer of arithmetic and traffic; `peak` in operations/s, `bandwidth` in bytes/s, `size` of a value."""
        values = batch * (self.inputs + self.outputs) + self.weights
        return max(2 * self.macs * batch / peak, size * values / bandwidth)

    def backward_s(self, batch: int, peak: float, bandwidth: float, size: int) -> float:
        """As `forward_s`: the weights' gradient, and the input's where one is needed."""
        sides = 1 + self.needs_input_gradient
        values = batch * (sides * self.inputs + 2 * self.outputs) + 2 * self.weights
        return max(sides * 2 * self.macs * batch / peak, size * values / bandwidth)


def layers_of(model: nn.Module, rows: int, frames: int) -> list[Layer]:
    """Convolutions and linear layers of a network, from one window's shapes; nothing is computed."""
    found: list[Layer] = []

    def hear(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        macs = weight[0].numel() * output.numel()
        found.append(Layer(macs, inputs[0].numel(), output.numel(), weight.numel(), inputs[0].requires_grad))

    twin = copy.deepcopy(model).to("meta").eval()
    for module in twin.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(hear)
    twin(torch.empty(1, rows, frames, device="meta"))
    return found


@dataclass(frozen=True)
class Amount:
    """Windows of a training, and those that are scored after each epoch."""

    windows: int
    scored: int


def floor_s(
    model: nn.Module, shape: tuple[int, int], amount: Amount, config: TrainingConfig, known: Ceilings
) -> float:
    """Seconds that a training of a network takes at the ceilings of the precision that it trains in.

    shape : rows and frames of a window
    """
    name = _precision(model, config)
    peak, bandwidth = known.tflops[name] * 1e12, known.bandwidth_gb_s * 1e9
    size = 4 if name == "fp32" else 2
    batch = min(config.batch_size, amount.windows)
    layers = layers_of(model, *shape)
    forward = sum(one.forward_s(batch, peak, bandwidth, size) for one in layers)
    backward = sum(one.backward_s(batch, peak, bandwidth, size) for one in layers)
    update = ADAMW_BYTES * sum(weight.numel() for weight in model.parameters()) / bandwidth
    steps = amount.windows // batch
    return config.epochs * (steps * (forward + backward + update) + forward * amount.scored / batch)


def _precision(model: nn.Module, config: TrainingConfig) -> str:
    from harness.training.fit import mixed_precision

    dtype = mixed_precision(next(model.parameters()).device, config)
    return {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
