"""What a card must not let its reader believe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.card_text import part
from harness.metrics.few_clusters import FEW_CLUSTERS

MIXTURES = ("overlap", "same_speaker", "speaker_change", "speaker_count")


def limits_of(evidence: Mapping[str, Any]) -> list[str]:
    """Every limit that follows from the evidence, each once."""
    known = (
        *_of_data(evidence), *evidence.get("flags", ()), *evidence.get("limits", ()),
        *(f"holds external weights: {one}" for one in evidence.get("external_weights", ())), *_of_test(evidence),
    )  # fmt: skip
    return list(dict.fromkeys(known))


def _of_data(evidence: Mapping[str, Any]) -> Iterator[str]:
    data = part(evidence, "data")
    corpus, task = str(data.get("corpus", "")), data.get("task")
    if corpus == "demo":
        yield "Generated voices: this shows that everything works, and says nothing about people."
    if task == "pseudo":
        yield (
            "The classes are dealt arbitrarily to speakers: a high score means that voices were told apart, not that a "
            "stranger's could be."
        )
        if data.get("variant") == "seen":
            yield "`seen`: it recognises the speakers that it was trained on, and nobody else."
    meetings = corpus.startswith("ami") or any(
        name.startswith("ami") for name in part(evidence, "test_by_subset")
    )
    if task in MIXTURES and corpus and not meetings:
        yield "Mixtures of read speech are no meetings: what it is worth there, a test on meetings has to say."


def _of_test(evidence: Mapping[str, Any]) -> Iterator[str]:
    if evidence.get("confirmed") is False:
        yield (
            "Unconfirmed: it was chosen by its validation score and not retrained on fresh seeds, so part of that "
            "score is luck."
        )
    clusters = part(evidence, "test").get("clusters", FEW_CLUSTERS)
    if clusters < FEW_CLUSTERS:
        yield (
            f"Fewer than {FEW_CLUSTERS} clusters in the test: it proves that every path works, and nothing about "
            "the model."
        )
    if evidence.get("test_openings", 1) > 1:
        yield "The study opened this test before: every further look makes its score more of a validation score."
