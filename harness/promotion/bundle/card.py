"""card.md: a promoted model for people. What evidence.json does not hold is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

from harness.metrics.few_clusters import FEW_CLUSTERS
from harness.promotion.bundle.card_files import files_of
from harness.promotion.bundle.card_text import interval, number, part, table

MIXTURES = ("overlap", "same_speaker", "speaker_change", "speaker_count")

INTENDED = (
    "To classify windows like those it was tested on: the same task, language, microphones and cutting.",
    "Not to identify a person, nor to decide anything about one.",
    "Not as a diarization system: accuracy on windows is neither a DER nor a frame-level F1, and does not compare "
    "with published ones.",
    "Not on other corpora, languages, rooms or channels before it was tested there.",
)
ENOUGH_WINDOWS = 5  # of a cluster: with fewer its accuracy is a coin's


def card_of(evidence: Mapping[str, Any]) -> str:
    """The card of a bundle as Markdown.

    Parameters
    ----------
    evidence : content of evidence.json; every part may be missing or null (bundles of earlier versions), and a
        section of which nothing is known is left out
    """
    evidence = {key: value for key, value in evidence.items() if value is not None}
    parts = {
        "": _head(evidence),
        "Test": _test(evidence),
        "How it was chosen": _choice(evidence),
        "Files and latency": files_of(evidence),
        "Data and protocol": _data(evidence),
        "Guards": _guards(evidence),
        "Limits": [f"- {limit}" for limit in limits_of(evidence)],
        "Intended use": [f"- {line}" for line in INTENDED],
    }
    lines: list[str] = []
    for title, content in parts.items():
        if content:
            lines += [*([f"## {title}", ""] if title else []), *content, ""]
    return "\n".join(lines)


def optimism_line(luck: float | None, trials: int, rank: int = 1) -> str:
    """How far the validation score may be trusted: the best of many is partly the luckiest.

    Parameters
    ----------
    luck : expected optimism at this rank, in units of the score (accuracy, 0 to 1); None where it cannot be estimated
    trials : comparable trials, itself included
    """
    place = f"best of {trials} trials" if rank == 1 else f"rank {rank} of {trials} trials"
    if luck is None:
        return f"{place}: every window alike, so how much of it is luck cannot be said"
    return f"{place}: about {luck:.3f} of it may be luck"


def _head(evidence: Mapping[str, Any]) -> list[str]:
    names = [str(evidence.get("registered_name", "model"))]
    names += [f"from study {evidence['study']}"] if "study" in evidence else []
    names += [str(evidence["subject"])] if "subject" in evidence else []
    labels = part(part(evidence, "specification"), "label_meaning")
    what = (
        "One 3.0 s window of mono speech at 16 kHz in (`waveform`, batch x 48000 float32 in [-1, 1]: int16 samples "
        "divided by 32768; a batch of one or more), two logits out (softmax gives probabilities)."
    )
    classes = [f"Class {label}: {meaning}." for label, meaning in sorted(labels.items())]
    verdict = " ".join(_verdict(evidence))
    lines = [f"# {', '.join(names)}", "", *([verdict, ""] if verdict else []), " ".join([what, *classes])]
    facts = {"configuration": "Configuration", "promoted": "Promoted", "run_id": "MLflow run"}
    told = [f"- {title}: {evidence[key]}" for key, title in facts.items() if key in evidence]
    return [*lines, "", *told] if told else lines


def _verdict(evidence: Mapping[str, Any]) -> Iterator[str]:
    """What somebody who has to decide must know, in sentences."""
    alias, test = evidence.get("alias"), part(evidence, "test")
    if alias:
        yield f"**`{evidence.get('registered_name', 'model')}`, {alias}{_lost(evidence)}.**"
    if "stamp" in evidence:
        stamp = str(evidence["stamp"])
        yield f"{stamp[:1].upper()}{stamp[1:]}."
    if test:
        yield (
            f"Test balanced accuracy {number(test.get('value'))}, 95 % interval {number(test.get('low'))} to "
            f"{number(test.get('high'))}, where chance is 0.5; {test.get('windows', '?')} windows of "
            f"K = {test.get('clusters', '?')} clusters (speakers, groups of them, or meetings: windows of one cluster "
            "are no independent evidence)."
        )
        if test.get("low") is not None and test["low"] <= 0.5:
            yield "**Nothing shows that it beats chance.**"
        if test.get("clusters", FEW_CLUSTERS) < FEW_CLUSTERS:
            yield "**Few clusters: no evidence.**"
    failed = [
        one["name"] for one in evidence.get("guards", ()) if not one["ok"] and one["level"] == "quality"
    ]
    if failed:
        guards = "quality guard" if len(failed) == 1 else "quality guards"
        yield f"**{len(failed)} {guards} failed**: {'; '.join(failed)}."


def _lost(evidence: Mapping[str, Any]) -> str:
    contest = part(evidence, "champion")
    if evidence.get("alias") != "challenger" or not contest:
        return ""
    verdict = f": {contest['verdict']}" if contest.get("verdict") else ""
    return f": it lost against {contest.get('opponent', 'the champion')}, which stays champion{verdict}"


def _test(evidence: Mapping[str, Any]) -> list[str]:
    lines = []
    test = part(evidence, "test")
    if test:
        lines.append(f"- balanced accuracy {interval(test, 'value')}")
    subsets = part(evidence, "test_by_subset")
    if len(subsets) > 1:
        lines += [f"- on {name}: {interval(of, 'balanced_accuracy')}" for name, of in subsets.items()]
    lines += _spread(part(evidence, "test_by_cluster"))
    if evidence.get("ece") is not None:
        lines.append(f"- calibration error (ECE) {evidence['ece']:.3f}: how far its probabilities are off")
    if "test_openings" in evidence:
        lines.append(
            f"- opening {evidence['test_openings']} of these test windows by this study, "
            f"{evidence.get('test_openings_by_all', '?')} in all"
        )
    contest = part(evidence, "champion")
    if contest:
        lines.append(f"- against {contest.get('opponent', 'the champion')}: {contest.get('verdict', '')}")
        lines += [f"  ({contest['text']})"] if contest.get("text") else []
    return lines


def _spread(clusters: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Worst, quartiles and best: a good mean may hide speakers that the model fails."""
    if len(clusters) < 2:
        return []
    sizes = [int(of["windows"]) for of in clusters.values()]
    if median(sizes) < ENOUGH_WINDOWS:
        few = f"median {median(sizes):g}, wanted {ENOUGH_WINDOWS} or more"
        return [f"- by cluster: too few windows of each to say how they differ ({few})"]
    ranked = sorted((float(of["accuracy"]), name) for name, of in clusters.items())
    at = [ranked[round(share * (len(ranked) - 1))][0] for share in (0.25, 0.5, 0.75)]
    shown = min(3, len(ranked) // 2)
    worst, best = (
        ", ".join(f"{name} {value:.2f} ({clusters[name]['windows']})" for value, name in some)
        for some in (ranked[:shown], ranked[: -shown - 1 : -1])
    )
    return [
        f"- by cluster ({len(ranked)} of {min(sizes)} to {max(sizes)} windows; a cluster is a speaker, a group of "
        f"speakers that were mixed, or a meeting): quartiles {at[0]:.2f}, {at[1]:.2f}, {at[2]:.2f}",
        f"- worst clusters, with their windows: {worst}",
        f"- best clusters: {best}",
    ]


def _choice(evidence: Mapping[str, Any]) -> list[str]:
    confirmation = part(evidence, "confirmation")
    if confirmation:
        return _confirmation(confirmation)
    score = part(evidence, "trial").get("score")
    if score is None:
        return []
    luck = optimism_line(
        evidence.get("optimism"), int(evidence.get("trials_compared", 0)), int(evidence.get("rank", 1))
    )
    return [
        f"- validation score ({evidence.get('score_is', 'as the sweep ranks')}) {score:.3f}, {luck}",
        "- it was not retrained on fresh seeds: the validation score flatters it, read the test's interval",
    ]


def _confirmation(confirmation: Mapping[str, Any]) -> list[str]:
    """Every finalist, how far it fell from its sweep score, and how far it was expected to."""
    head = [
        "finalist",
        "mean",
        "sd",
        "lower bound",
        "in the sweep",
        "shrank by",
        "predicted optimism at its rank",
    ]
    keys = ["mean", "sd", "low", "sweep_score", "shrink", "predicted_optimism"]
    rows = [
        [str(one.get("name") or one.get("label")), *(number(one.get(key)) for key in keys)]
        for one in confirmation.get("finalists", ())
    ]
    conclusion = confirmation.get("conclusion")
    seeds = confirmation.get("seeds", "several")
    return [
        f"Every finalist was retrained on {seeds} fresh seeds, and scored on validation:",
        "",
        *table(head, rows),
        *(["", str(conclusion)] if conclusion else []),
    ]


def _data(evidence: Mapping[str, Any]) -> list[str]:
    data, windows = part(evidence, "data"), part(evidence, "windows")
    lines = []
    if data:
        lines.append(
            f"- task {data.get('task')} / {data.get('variant')}, {evidence.get('split_rule', '')}".rstrip(
                ", "
            )
        )
        lines.append(f"- {data.get('corpus')} {data.get('subset', '')}".rstrip())
    if windows:
        lines.append("- windows: " + ", ".join(f"{split} {count}" for split, count in windows.items()))
    lines += [f"- manifest {name}: `{digest}`" for name, digest in part(evidence, "manifests").items()]
    if evidence.get("label_map_digest"):
        lines.append(f"- label map: `{evidence['label_map_digest']}`")
    return lines


def _guards(evidence: Mapping[str, Any]) -> list[str]:
    """Failed ones first, the others by name alone: their numbers stand in evidence.json."""
    guards = evidence.get("guards", ())
    failed = [
        f"- **{one['level']}** {one['name']}: {one['measured']}, wanted {one['bound']}. {one['advice']}"
        for one in guards
        if not one["ok"]
    ]
    passed = [one["name"] for one in guards if one["ok"]]
    policy = part(evidence, "policy").get("name")
    under = f" under the policy {policy}" if policy else ""
    return [*failed, *([f"- passed{under}: {', '.join(passed)}"] if passed else [])]


def limits_of(evidence: Mapping[str, Any]) -> list[str]:
    """What must not be concluded from this model, a sentence each: every limit that follows from the evidence, once."""
    known = (
        *_of_data(evidence),
        *evidence.get("flags", ()),
        *evidence.get("limits", ()),
        *(f"holds external weights: {one}" for one in evidence.get("external_weights", ())),
        *_of_test(evidence),
    )
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
