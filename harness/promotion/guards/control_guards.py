"""Guards of what a study could prove at all: the clusters of its test, and its negative controls."""

from __future__ import annotations

from collections.abc import Iterator

from harness.promotion.guards.facts import StudyFacts
from harness.promotion.guards.rule import Finding, guard
from harness.study.controls import controls_of


@guard(
    StudyFacts,
    "clusters in the test",
    "quality",
    bounds=["quality.min_clusters"],
    advice="Few clusters: this proves that the path works, not that the model does. Take parts with more speakers.",
)
def clusters(seen: StudyFacts) -> Iterator[Finding]:
    """Whether the test has clusters enough to claim anything; counted before it is opened."""
    bound, found = seen.policy.quality.min_clusters, len(set(seen.prepared[0].test.manifest.clusters()))
    yield Finding(found >= bound, f"K = {found}", f">= {bound}")


@guard(
    StudyFacts,
    "negative control",
    "quality",
    advice="Something leaks: nothing can be learned there. Trust no score of this study.",
)
def negative_controls(seen: StudyFacts) -> Iterator[Finding]:
    """What each of the study's own negative controls scored, which is named; none where it has none."""
    for control in controls_of(seen.study):
        shown = control.judgement.numbers if control.judgement else control.reason
        yield Finding(
            control.verdict != "broken",
            f"{control.verdict}, {shown}",
            "lower bound <= .5",
            name=f"negative control {control.name}",
        )
