"""What a failure is, which decides whether it is tried again."""

from __future__ import annotations

from harness.training.job import FailureKind

# How memory that cannot be had is told where the error's class does not say so; CUDA's errors say its name.
_NO_MEMORY = ("allocate memory", "bad_alloc", "ALLOC_FAILED", "CUDA error: out of memory")
_CUDA = "CUDA error"


def failure_kind(error: BaseException) -> FailureKind:
    """Class of a failure: infrastructure (files, CUDA) is tried again, out_of_memory with a smaller batch.

    diverged and configuration would fail again; a full disk (out_of_space) ends the launch. torch tells a CPU's lack
    of memory, and what a GPU's libraries could not allocate, by a plain RuntimeError.
    """
    from harness.core.disk_space import is_disk_full_error
    from harness.training.fit import DivergedError

    if is_disk_full_error(error):
        return "out_of_space"
    if isinstance(error, DivergedError):
        return "diverged"
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(words in str(error) for words in _NO_MEMORY)
    ):
        return "out_of_memory"
    if isinstance(error, OSError) or _CUDA in str(error):
        return "infrastructure"
    return "configuration"


def is_fatal_cuda_error(error: BaseException) -> bool:
    """Whether this process can use its GPU no more: an error of CUDA comes again with every later call."""
    return _CUDA in str(error) and failure_kind(error) == "infrastructure"
