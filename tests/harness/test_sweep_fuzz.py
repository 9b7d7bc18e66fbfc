from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.parameters import places
from harness.sweep import Sweep, load_sweep, sweep_from
from harness.sweep_file import SweepError, SweepFile

WORDS = st.sampled_from([
    "name", "data", "parameters", "sampler", "pruner", "budget", "seed", "type", "tpe", "grid", "none", "feature", "mfcc",
    "log_mel", "mfcc.n_mfcc", "mfcc.n_mels", "log_mel.n_fft", "width", "kernel_size", "epochs", "learning_rate", "subset",
    "train_windows", "corpus", "demo", "clean", "other", "parts", "evaluate_on", "value", "choice", "int", "float", "step",
    "log", "when", "trials", "hours", "workers", "speakers",
])  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 300)
    | st.integers()
    | st.floats()
    | WORDS
    | st.text(max_size=4)
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
FORMS = st.one_of(
    ANYTHING,
    st.fixed_dictionaries(
        {},
        optional={
            "int": st.lists(st.integers(-2, 100), min_size=2, max_size=2),
            "float": st.lists(st.floats(0, 1), min_size=2, max_size=2),
            "choice": st.lists(SCALARS, max_size=3),
            "step": SCALARS,
            "log": st.booleans(),
            "when": st.dictionaries(st.sampled_from(["feature", "width", "subset"]), SCALARS, max_size=2),
        },
    ),
)
NEARLY = st.fixed_dictionaries(
    {"name": st.just("x")},
    optional={
        "parameters": st.dictionaries(st.sampled_from(sorted(places())), FORMS, max_size=4),
        "data": st.dictionaries(WORDS, ANYTHING, max_size=3),
        "sampler": ANYTHING,
        "budget": ANYTHING,
    },
)


def is_sweep_or_refusal(read: Callable[[], Sweep]) -> None:
    try:
        found: Sweep | SweepError = read()
    except SweepError as error:
        found = error
    if isinstance(found, SweepError):
        assert found.problems
        assert all("\n" not in problem.message for problem in found.problems)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(WORDS | st.text(max_size=4), ANYTHING, max_size=5) | NEARLY)
def test_any_plain_values_give_a_sweep_or_a_sweep_error(values: dict[str, Any]) -> None:
    is_sweep_or_refusal(lambda: sweep_from(SweepFile("s.yaml", values)))


LINES = st.lists(
    st.tuples(
        st.integers(0, 3),
        WORDS,
        st.sampled_from(["", " 1", " 1e-3", " [mfcc, 2]", " {int: [1, 4]}", " *a", " x"]),
    ),
    max_size=8,
)


@settings(deadline=None)
@given(
    LINES.map(lambda lines: "".join(f"{'  ' * depth}{key}:{rest}\n" for depth, key, rest in lines))
    | st.text(max_size=50)
)
def test_any_text_gives_a_sweep_or_a_sweep_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("text") / "s.yaml"
    path.write_text(text, "utf-8")
    is_sweep_or_refusal(lambda: load_sweep(path))
