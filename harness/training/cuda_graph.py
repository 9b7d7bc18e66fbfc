"""A training's steps as one CUDA graph: the kernels of a short network take less time than launching them does.

::

    steps 1..3   launched one by one, on a stream of their own (libraries choose and allocate)
    step 4       taken twice from the same state: launched, then as the recorded graph
                     the same state after both -> the graph takes the steps from here on
                     another state             -> steps are launched, as ever; the log says why
                     an error                  -> this process can use its GPU no more: `CaptureError`
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping

import torch

WARM_UP = 3
# Longer inputs (waveforms) keep a GPU busy with each kernel.
SHORT_FRAMES = 2_000
# How far a recorded step may end from a launched one, in lengths of that step: sums may have another order.
TOLERANCE = 0.05

State = Mapping[str, torch.Tensor]
_log = logging.getLogger(__name__)


class CaptureError(RuntimeError):
    """A step could not be recorded, and torch in this process is left in the middle of doing so.

    Its text has what `is_fatal_cuda_error` looks for: another worker tries the trial again, and launches its steps.
    """

    def __init__(self, error: RuntimeError) -> None:
        super().__init__(f"CUDA error: no graph could be recorded of a step ({type(error).__name__})")


def should_capture(device: torch.device, features: torch.Tensor) -> bool:
    """Whether steps over such a batch (window, feature, frame) are bound by their launches."""
    return device.type == "cuda" and features.shape[-1] <= SHORT_FRAMES


class GraphedStep:
    """Takes steps of one shape; call it as the step that it was given. It may raise CaptureError.

    Parameters
    ----------
    step : takes a step in place, from (features, labels) on the device, and returns its loss; waits for nothing
    state : gives every tensor that a step changes, by name; the same tensors each time, once a step was taken
    """

    def __init__(
        self,
        step: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        state: Callable[[], State],
        device: torch.device,
    ) -> None:
        self._launch, self._state, self._device = step, state, device
        self._taken = 0
        self._refused = False
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[torch.Tensor, torch.Tensor] | None = None
        self._loss: torch.Tensor | None = None

    def __call__(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Take the next step; its mean loss (), on the device, which nobody has waited for.

        A batch of another shape than the recorded one is launched.
        """
        if self._refused:
            return self._launch(features, labels)
        if self._graph is not None and self._fits(features, labels):
            return self._replay(features, labels)
        self._taken += 1
        if self._taken <= WARM_UP or self._graph is not None:
            return self._aside(features, labels)
        return self._record(features, labels)

    def _fits(self, features: torch.Tensor, labels: torch.Tensor) -> bool:
        assert self._inputs is not None
        return all(a.shape == b.shape for a, b in zip(self._inputs, (features, labels), strict=True))

    def _aside(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Launch a step on the stream on which it will be recorded."""
        here = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            loss = self._launch(features, labels)
        here.wait_stream(self._stream)
        loss.record_stream(here)
        return loss

    def _replay(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        assert self._graph is not None
        assert self._inputs is not None
        assert self._loss is not None
        for kept, given in zip(self._inputs, (features, labels), strict=True):
            kept.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._loss.clone()

    def _record(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Take a step both ways; keep the graph where it comes to the same."""
        before, draws = self._kept(), torch.cuda.get_rng_state(self._device)
        loss = self._aside(features, labels)
        after, draws_after = self._kept(), torch.cuda.get_rng_state(self._device)
        self._put(before, draws)
        try:
            self._inputs = (features.clone(), labels.clone())
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self._stream):
                self._loss = self._launch(*self._inputs)
            self._graph = graph
            self._replay(features, labels)
        except RuntimeError as error:  # also for want of memory: launched, the same step had enough
            raise CaptureError(error) from error
        if not states_match(before, after, self._kept()):
            _log.warning(
                "no CUDA graph for this training (it does not come to what the same step comes to without it): "
                "its steps are launched one by one"
            )
            self._refused, self._graph, self._inputs, self._loss = True, None, None, None
            self._put(after, draws_after)
        return loss

    def _kept(self) -> dict[str, torch.Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self._state().items()}

    def _put(self, kept: State, draws: torch.Tensor) -> None:
        torch.cuda.set_rng_state(draws, self._device)
        with torch.no_grad():
            for name, tensor in self._state().items():
                tensor.copy_(kept[name])


def states_match(before: State, launched: State, recorded: State) -> bool:
    """Whether two states that one step led to, launched and recorded, are the same.

    Tensors of one element (counters, scales) must be equal; all others together, as one vector, obey
    ``|recorded - launched| <= TOLERANCE |launched - before|``: a graph's kernels may sum in another order.
    """
    step, apart = 0.0, 0.0
    for name, start in before.items():
        if start.numel() == 1:
            if not torch.equal(launched[name], recorded[name]):
                return False
        else:
            step += float((launched[name].double() - start.double()).square().sum())
            apart += float((launched[name].double() - recorded[name].double()).square().sum())
    return math.sqrt(apart) <= TOLERANCE * math.sqrt(step)
