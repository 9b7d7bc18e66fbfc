"""Windows that stay on a GPU from one trial of a worker to the next."""

import pytest
import torch

from harness.training.window_split import Split, TensorCache, cache_on_gpu, gpu_cache

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
KB = 256  # float32


def test_a_tensor_is_made_once_while_it_is_kept_and_what_was_used_longest_ago_goes_first() -> None:
    kept, made = TensorCache(), []

    def get(key: str, kilobytes: int = 1) -> torch.Tensor:
        def make() -> torch.Tensor:
            made.append(key)
            return torch.full((kilobytes * KB,), float(ord(key)))

        return kept.get(key, make, 3 * 1024)

    for key in "abcab":
        assert get(key)[0] == ord(key)
    assert made == ["a", "b", "c"]
    get("d")  # c was used longest ago
    assert ("c" in kept, kept.num_bytes) == (False, 3 * 1024)
    get("c")
    assert made == ["a", "b", "c", "d", "c"]
    assert get("e", 4)[-1] == ord("e")  # too large to be kept, and given all the same
    assert kept.num_bytes == 0
    get("a")
    kept.forget()
    assert "a" not in kept


@needs_gpu
def test_the_next_trial_finds_its_windows_on_the_gpu() -> None:
    gpu_cache.forget()
    features, device = torch.randn(8, 4, 33), torch.device("cuda")
    splits = [Split(features.clone(), torch.arange(8) % 2, [""] * 8, key) for key in ("a", "a", "b", "")]
    first, again, other, unnamed = (cache_on_gpu(split, device).features for split in splits)
    assert first.data_ptr() == again.data_ptr()
    assert len({first.data_ptr(), other.data_ptr(), unnamed.data_ptr()}) == 3
