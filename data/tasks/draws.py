"""Drawing windows: exactly half of each class, speakers used evenly, by sha256 rank."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from data.digests import rank
from data.tasks.base import PlannedWindow

MAX_PER_SPEAKER = 50
Windows = Sequence[PlannedWindow]


def evenly(windows: Windows, seed: int, cap: int | None = None) -> list[PlannedWindow]:
    """Order ``windows`` so that any prefix uses the speakers as evenly as they allow.

    ::

        a: 3 windows, b: 1, c: 2   ->   a b c  a c  a

    Speakers and each one's windows follow sha256(seed, id); ``cap`` limits windows a speaker.
    """
    by_speaker: dict[str, list[PlannedWindow]] = defaultdict(list)
    for window in windows:
        by_speaker[window.speaker].append(window)
    speakers = sorted(by_speaker, key=lambda speaker: rank(seed, speaker))
    queues = [
        sorted(by_speaker[s], key=lambda w: rank(seed, w.recording.id, w.start_sample)) for s in speakers
    ]
    queues = [queue[:cap] for queue in queues]
    longest = max(map(len, queues), default=0)
    return [queue[i] for i in range(longest) for queue in queues if i < len(queue)]


def alternate(zeros: Windows, ones: Windows) -> list[PlannedWindow]:
    """Return windows of the two classes in turn, as many of each as the scarcer has."""
    return [window for pair in zip(zeros, ones, strict=False) for window in pair]


def _of_class(windows: Windows, label: int) -> list[PlannedWindow]:
    return [window for window in windows if window.label == label]


def draw_training(windows: Windows, most: int, seed: int) -> tuple[PlannedWindow, ...]:
    """Return at most ``most`` windows, half of each class, in an order any prefix of which is balanced."""
    zeros, ones = (evenly(_of_class(windows, label), seed)[: most // 2] for label in (0, 1))
    return tuple(alternate(zeros, ones))


def draw_evaluation(by_subset: Mapping[str, Windows], most: int) -> tuple[PlannedWindow, ...]:
    """Return at most ``most`` windows: as many of each class from each subset, at most 50 a speaker.

    No seed enters: the evaluation of a study does not depend on a number somebody may search over.
    """
    cap = MAX_PER_SPEAKER // len(by_subset)
    pools = {
        (subset, label): evenly(_of_class(windows, label), 0, cap)
        for subset, windows in sorted(by_subset.items())
        for label in (0, 1)
    }
    each = min(most // len(pools), *map(len, pools.values()))
    zeros, ones = (
        [pools[subset, label][i] for i in range(each) for subset in sorted(by_subset)] for label in (0, 1)
    )
    return tuple(alternate(zeros, ones))
