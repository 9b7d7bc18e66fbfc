"""Five failures in a row for one reason stop a loop of trainings; what ends well, or is the training's own, does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.execution.executors.protocol import WorkersFailedError
from harness.execution.stopping import MAX_REPEATED_FAILURES, RepeatedFailures
from harness.training.job import FailureKind

OWN: tuple[FailureKind, ...] = ("diverged", "out_of_memory")
ENDED = None
EVENTS = st.lists(
    st.sampled_from([ENDED, ("configuration", "a"), ("infrastructure", "a"), ("configuration", "b"), *((kind, "a") for kind in OWN)])
    | st.just(("configuration", "a")),
    max_size=30,
)  # fmt: skip


@given(EVENTS)
def test_only_failures_alike_with_nothing_between_them_stop(
    events: list[tuple[FailureKind, str] | None],
) -> None:
    alike = RepeatedFailures()
    for seen, event in enumerate(events, 1):
        counted = [one for one in events[:seen] if one is ENDED or one[0] not in OWN]
        last = [one and one[1] for one in counted[-MAX_REPEATED_FAILURES:]]
        due = (
            event in counted[-1:]
            and len(last) == MAX_REPEATED_FAILURES
            and len(set(last)) == 1
            and last[0] is not None
        )
        if event is ENDED:
            alike.clear()
        elif due and event[0] not in OWN:
            with pytest.raises(WorkersFailedError, match="5 trainings in a row failed the same way"):
                alike.add(*event)
            return
        else:
            alike.add(*event)
