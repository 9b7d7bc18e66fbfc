"""Drawing windows: exactly half of each class, speakers used evenly, by sha256 rank."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

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
    queues = [sorted(by_speaker[s], key=lambda w: rank(seed, *w.key)) for s in speakers]
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
    """Return at most ``most`` windows, an equal share from each subset, at most 50 a speaker.

    Each subset is balanced by itself; one that has fewer windows than its share gives what it has.
    No seed enters: the evaluation of a study does not depend on a number somebody may search over.
    """
    return pool_subsets(
        {
            subset: [evenly(_of_class(windows, label), 0, cap_of(by_subset)) for label in (0, 1)]
            for subset, windows in by_subset.items()
        },
        most,
    )


def at_most_each(zeros: Windows, ones: Windows, cap: int) -> tuple[list[PlannedWindow], list[PlannedWindow]]:
    """Take windows of the two classes in turn, none in which anybody was heard ``cap`` times already."""
    heard: Counter[str] = Counter()
    kept: tuple[list[PlannedWindow], list[PlannedWindow]] = ([], [])
    queues = [list(reversed(zeros)), list(reversed(ones))]
    while all(queues):
        for queue, taken in zip(queues, kept, strict=True):
            while queue:
                window = queue.pop()
                if all(heard[speaker] < cap for speaker in window.speakers):
                    heard.update(window.speakers)
                    taken.append(window)
                    break
    return kept


def cap_of(subsets: Collection[str]) -> int:
    """Return how many windows a speaker may give to each of ``subsets``, which may share speakers."""
    return MAX_PER_SPEAKER // len(subsets)


def share_of(most: int, subsets: Collection[str]) -> int:
    """Return how many windows of one class each of ``subsets`` may give."""
    return most // (2 * len(subsets))


def pool_subsets(
    by_subset: Mapping[str, Sequence[Sequence[PlannedWindow]]], most: int
) -> tuple[PlannedWindow, ...]:
    """Pool subset -> (windows of class 0, of class 1), in turn, so that any prefix is nearly balanced."""
    each = share_of(most, by_subset)
    shares = [alternate(zeros[:each], ones[:each]) for _, (zeros, ones) in sorted(by_subset.items())]
    pairs = [share[i : i + 2] for i in range(0, 2 * each, 2) for share in shares]
    return tuple(window for pair in pairs for window in pair)
