"""Which steps are recorded as a CUDA graph, and that a recorded step is a launched one."""

import pytest
import torch

from harness.config.trial.training_config import TrainingConfig
from harness.training.cuda_graph import WARM_UP, CaptureError, GraphedStep, should_capture, states_match
from harness.training.failures import failure_kind, is_fatal_cuda_error
from harness.training.fit import Split, fit
from harness.training.learner import Learner
from models.networks.cnn import build_network
from models.networks.config import CnnConfig

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FEATURES, WAVEFORM = torch.zeros(1, 1, 301), torch.zeros(1, 1, 48_000)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


def test_only_short_inputs_on_a_gpu_are_worth_it() -> None:
    assert should_capture(CUDA, FEATURES)
    assert not should_capture(CUDA, WAVEFORM)
    assert not should_capture(CPU, FEATURES)


def states_of_two_steps() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """States of a real learner: at the start of a step, after it, after it and the next one."""
    torch.manual_seed(3)
    model = build_network(CnnConfig(width=0.0625), 8, num_frames=33)
    learner = Learner(model, TrainingConfig(epochs=2), 10, CPU)
    states = []
    for number in range(WARM_UP + 2):
        learner.step(torch.randn(4, 8, 33), torch.tensor([0, 1, 0, 1]), number)
        states.append({name: tensor.detach().clone() for name, tensor in learner._changing().items()})
    return states[-3], states[-2], states[-1]


def test_a_step_is_itself_and_neither_none_nor_two() -> None:
    before, after, later = states_of_two_steps()
    assert states_match(before, after, after)
    assert not states_match(before, after, before)
    assert not states_match(before, after, later)


def test_sums_in_another_order_are_the_same_step_and_other_weights_are_not() -> None:
    before, after, _ = states_of_two_steps()
    name = "encoder.blocks.0.first.conv.weight"
    assert states_match(before, after, {**after, name: after[name] * (1 + 1e-6)})
    assert not states_match(before, after, {**after, name: after[name] + 1.0})
    assert not states_match(before, after, {**after, name: torch.full_like(after[name], torch.nan)})


def test_everything_that_a_step_changes_is_compared() -> None:
    before, after, _ = states_of_two_steps()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    kept = {name.split("/")[-1] for name in before if name.startswith("optimizer/")}
    assert kept == {"step", "exp_avg", "exp_avg_sq"}


@pytest.mark.parametrize(
    "refusal",
    [
        RuntimeError("operation not permitted when stream is capturing"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"),
    ],
)
def test_a_worker_that_could_not_record_is_spent_and_its_trial_is_tried_again(refusal: RuntimeError) -> None:
    error = CaptureError(refusal)
    assert is_fatal_cuda_error(error)
    assert failure_kind(error) == "infrastructure"


def test_what_was_kept_without_a_scaler_goes_on_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep that began on a CPU, or a GPU with bf16, goes on on one that needs fp16."""

    def learner() -> Learner:
        torch.manual_seed(3)
        return Learner(
            build_network(CnnConfig(width=0.0625), 8, num_frames=33), TrainingConfig(epochs=2), 10, CPU
        )

    begun = learner()
    begun.step(torch.randn(4, 8, 33), torch.tensor([0, 1, 0, 1]), 0)
    kept = begun.state_dict()
    assert kept["scaler"] == {}
    monkeypatch.setattr("harness.training.learner.mixed_precision", lambda device, config: torch.float16)
    elsewhere = learner()
    elsewhere.load_state_dict(kept, 1)
    assert elsewhere.scaler.is_enabled()
    back = elsewhere.state_dict()
    assert back["scaler"]["scale"] > 1
    monkeypatch.undo()
    learner().load_state_dict(back, 1)


@needs_gpu
def test_a_recorded_training_is_the_launched_one(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    train, val = (
        Split(torch.randn(windows, 8, 33, generator=generator), torch.arange(windows) % 2, [""] * windows)
        for windows in (64, 32)
    )
    replayed = []
    replay = GraphedStep._replay
    monkeypatch.setattr(GraphedStep, "_replay", lambda *a: (replayed.append(1), replay(*a))[1])

    def trained() -> list[float]:
        torch.manual_seed(3)
        model = build_network(CnnConfig(width=0.0625), 8, num_frames=33)
        config = TrainingConfig(epochs=3, batch_size=8, train_score_windows=16)
        result = fit(model, train, val, config, seed=7, device=CUDA)
        return [report.metrics["train/running_loss"] for report in result.reports]

    recorded = trained()
    assert len(replayed) == 3 * 8 - WARM_UP
    monkeypatch.setattr("harness.training.learner.should_capture", lambda *_: False)
    assert recorded == pytest.approx(trained(), rel=1e-3)
