import pytest
import torch

from harness.training.trial import open_device


def test_a_gpu_computes_the_same_again_and_fp32_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "harness.training.trial.torch.zeros", lambda *_, **__: None
    )  # a GPU, or none: the switches are there
    cudnn = torch.backends.cudnn
    with cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True):
        assert open_device("cuda").type == "cuda"
        assert (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) == (False, True, False)
