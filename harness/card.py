"""card.md: a promoted model for people. What evidence.json does not hold is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.few import FEW_CLUSTERS, few_clusters_note

INTENDED = (
    "To classify windows like those it was tested on: the same task, language, microphones and cutting.",
    "Not to identify a person, nor to decide anything about one.",
    "Not as a diarization system: accuracy on windows is neither a DER nor a frame-level F1, and does not compare "
    "with published ones.",
    "Not on other corpora, languages, rooms or channels before it was tested there.",
)


def card_of(evidence: Mapping[str, Any]) -> str:
    """Markdown; every part of `evidence` may be missing."""
    evidence = {key: value for key, value in evidence.items() if value is not None}
    parts = {
        "": _head(evidence),
        "Test": _test(evidence),
        "How it was chosen": _choice(evidence),
        "Files and latency": _variants(evidence),
        "Data and protocol": _data(evidence),
        "Guards": _guards(evidence),
        "Limits": [f"- {limit}" for limit in _limits(evidence)],
        "Intended use": [f"- {line}" for line in INTENDED],
    }
    lines: list[str] = []
    for title, part in parts.items():
        if part:
            lines += [*([f"## {title}", ""] if title else []), *part, ""]
    return "\n".join(lines)


def luck_line(luck: float | None, trials: int) -> str:
    """How far the validation score may be trusted."""
    if luck is None:
        return f"best of {trials} trials: every window alike, so how much of it is luck cannot be said"
    return f"best of {trials} trials: about {luck:.3f} of it may be luck"


def _head(evidence: Mapping[str, Any]) -> list[str]:
    names = [str(evidence.get("registered_name", "model"))]
    names += [f"from study {evidence['study']}"] if "study" in evidence else []
    names += [str(evidence["subject"])] if "subject" in evidence else []
    labels = _part(_part(evidence, "specification"), "label_meaning")
    what = (
        "One 3.0 s window of mono speech at 16 kHz in (`waveform`, batch x 48000 float32 in [-1, 1]: int16 samples "
        "divided by 32768), two logits out (softmax gives probabilities)."
    )
    classes = [f"Class {label}: {meaning}." for label, meaning in sorted(labels.items())]
    stamp = [f"**{evidence['stamp']}**", ""] if "stamp" in evidence else []
    lines = [f"# {', '.join(names)}", "", *stamp, " ".join([what, *classes])]
    facts = {"configuration": "Configuration", "promoted": "Promoted", "run_id": "MLflow run"}
    told = [f"- {title}: {evidence[key]}" for key, title in facts.items() if key in evidence]
    return [*lines, "", *told] if told else lines


def _test(evidence: Mapping[str, Any]) -> list[str]:
    lines = []
    test = _part(evidence, "test")
    if test:
        lines.append(f"- balanced accuracy {_interval(test, 'value')}")
    subsets = _part(evidence, "test_by_subset")
    if len(subsets) > 1:
        lines += [f"- on {name}: {_interval(of, 'balanced_accuracy')}" for name, of in subsets.items()]
    lines += _spread(_part(evidence, "test_by_cluster"))
    if "test_openings" in evidence:
        lines.append(
            f"- opening {evidence['test_openings']} of these test windows by this study, "
            f"{evidence.get('test_openings_by_all', '?')} in all"
        )
    contest = _part(evidence, "champion")
    if contest:
        lines.append(f"- against {contest.get('opponent', 'the champion')}: {contest.get('verdict', '')}")
        lines += [f"  ({contest['text']})"] if contest.get("text") else []
    return lines


def _spread(clusters: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Worst, quartiles and best: a good mean may hide speakers that the model fails."""
    if len(clusters) < 2:
        return []
    ranked = sorted((float(of["accuracy"]), name) for name, of in clusters.items())
    at = [ranked[round(share * (len(ranked) - 1))][0] for share in (0.25, 0.5, 0.75)]
    few = min(3, len(ranked) // 2)
    worst, best = (
        ", ".join(f"{name} {value:.2f}" for value, name in part)
        for part in (ranked[:few], ranked[: -few - 1 : -1])
    )
    return [
        f"- by cluster ({len(ranked)}; a cluster is a speaker, a group of speakers that were mixed, or a meeting): "
        f"quartiles {at[0]:.2f}, {at[1]:.2f}, {at[2]:.2f}",
        f"- worst clusters: {worst}",
        f"- best clusters: {best}",
    ]


def _choice(evidence: Mapping[str, Any]) -> list[str]:
    confirmation = _part(evidence, "confirmation")
    if confirmation:
        return _confirmation(confirmation)
    score = _part(evidence, "trial").get("score")
    if score is None:
        return []
    luck = luck_line(evidence.get("optimism"), int(evidence.get("trials_compared", 0)))
    return [
        f"- validation score ({evidence.get('score_is', 'as the sweep ranks')}) {score:.3f}, {luck}",
        "- it was not retrained on fresh seeds: the validation score flatters it, read the test's interval",
    ]


def _confirmation(confirmation: Mapping[str, Any]) -> list[str]:
    """Every finalist, how far it fell from its sweep score, and how far it was expected to."""
    head = ["finalist", "mean", "sd", "lower bound", "in the sweep", "shrank by", "expected of luck"]
    keys = ["mean", "sd", "low", "sweep_score", "shrink", "predicted_optimism"]
    rows = [
        [str(one.get("name") or one.get("label")), *(_number(one.get(key)) for key in keys)]
        for one in confirmation.get("finalists", ())
    ]
    conclusion = confirmation.get("conclusion")
    seeds = confirmation.get("seeds", "several")
    return [
        f"Every finalist was retrained on {seeds} fresh seeds, and scored on validation:",
        "",
        *_table(head, rows),
        *(["", str(conclusion)] if conclusion else []),
    ]


def _variants(evidence: Mapping[str, Any]) -> list[str]:
    rows, left_out = [], []
    for one in evidence.get("variants", ()):
        if not one.get("included", True):
            left_out.append(f"- {one.get('name')} was left out: {one.get('reason')}")
            continue
        latency, accuracy = one.get("latency") or {}, one.get("accuracy") or {}
        size = one.get("bytes")
        rows.append([
            f"`{one.get('file')}`", str(one.get("device")), "" if size is None else f"{size / 1e6:.2f} MB",
            _number(accuracy.get("value")), _number(one.get("accuracy_loss")),
            _number(latency.get("p50_ms"), 1), _number(latency.get("p99_ms"), 1),
            _number(latency.get("windows_per_s"), 0),
            str(latency.get("provider") or one.get("latency_note") or ""),
        ])  # fmt: skip
    head = [
        "file", "for", "size", "test", "lost", "P50 ms", "P99 ms", "windows/s at batch 32", "measured on"
    ]  # fmt: skip
    lines = _table(head, rows) if rows else _one_latency(_part(evidence, "latency"))
    return [*lines, *([""] if lines and left_out else []), *left_out]


def _one_latency(latency: Mapping[str, Any]) -> list[str]:
    if not latency:
        return []
    return [
        f"- batch 1, one thread: P50 {_number(latency.get('p50_ms'), 1)} ms, "
        f"P99 {_number(latency.get('p99_ms'), 1)} ms, {latency.get('provider', '')}"
    ]


def _data(evidence: Mapping[str, Any]) -> list[str]:
    data, windows = _part(evidence, "data"), _part(evidence, "windows")
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
    lines += [f"- manifest {name}: `{digest}`" for name, digest in _part(evidence, "manifests").items()]
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
    policy = _part(evidence, "policy").get("name")
    under = f" under the policy {policy}" if policy else ""
    return [*failed, *([f"- passed{under}: {', '.join(passed)}"] if passed else [])]


def _limits(evidence: Mapping[str, Any]) -> Iterator[str]:
    yield from dict.fromkeys([*evidence.get("flags", ()), *evidence.get("limits", ())])
    clusters = _part(evidence, "test").get("clusters", FEW_CLUSTERS)
    if clusters < FEW_CLUSTERS:
        yield (
            f"Fewer than {FEW_CLUSTERS} clusters in the test: it proves that every path works, and nothing about "
            "the model."
        )
    if evidence.get("test_openings", 1) > 1:
        yield "The study opened this test before: every further look makes its score more of a validation score."


def _part(evidence: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = evidence.get(key)
    return value if isinstance(value, Mapping) else {}


def _interval(of: Mapping[str, Any], key: str) -> str:
    clusters = int(of.get("clusters", 0))
    return (
        f"{_number(of.get(key))} [{_number(of.get('low'))}, {_number(of.get('high'))}] "
        f"({of.get('windows', '?')} windows, K = {clusters}{few_clusters_note(clusters)})"
    )


def _number(value: Any, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(one.replace("|", "\\|") for one in row) + " |" for row in cells]
