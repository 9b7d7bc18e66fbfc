"""The part of a card on the files: what each is for, what it changes, what it costs, and where that was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.promotion.bundle.card_text import interval, number, part, points, table

HEAD = (
    "file", "for", "size", "test balanced accuracy", "change in accuracy, points", "largest logit difference",
    "same class", "cold start ms", "P50 ms", "P99 ms", "windows/s at batch 32", "latency measured on",
)  # fmt: skip
VERSIONS = ("diarization-harness", "torch", "onnxruntime", "onnxruntime-gpu")


def files_of(evidence: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown: a table of the files that ship, then remarks, one of each file that was left out.

    Every part of `evidence` may be missing; where no variant is recorded, one line tells the latency of model.onnx.
    """
    variants = evidence.get("variants", ())
    rows = [_row(one) for one in variants if one.get("included", True)]
    lines = table(HEAD, rows) if rows else _one_latency(part(evidence, "latency"))
    notes = [*(note for one in variants for note in _notes(one)), *_machine(evidence), *_size(evidence)]
    return [*lines, *([""] if rows and notes else []), *notes]


def _row(one: Mapping[str, Any]) -> list[str]:
    latency, accuracy = part(one, "latency"), part(one, "accuracy")
    size, same = one.get("bytes"), one.get("agreement")
    return [
        f"`{one.get('file')}`", str(one.get("device")), "" if size is None else f"{size / 1e6:.2f} MB",
        interval(accuracy, "value") if accuracy else "", _change(one),
        "" if one.get("max_logit_difference") is None else f"{one['max_logit_difference']:.2g}",
        "" if same is None else f"{100 * same:.1f} %",
        number(latency.get("cold_ms"), 0), number(latency.get("p50_ms"), 1), number(latency.get("p99_ms"), 1),
        number(latency.get("windows_per_s"), 0), str(latency.get("provider") or one.get("latency_note") or ""),
    ]  # fmt: skip


def _change(one: Mapping[str, Any]) -> str:
    change, loss = part(one, "accuracy_change"), one.get("accuracy_loss")
    if one.get("name") == "fp32":
        return ""
    if not change:
        return "" if loss is None else points(-loss)
    return f"{points(change.get('value'))} [{points(change.get('low'))}, {points(change.get('high'))}]"


def _notes(one: Mapping[str, Any]) -> Iterator[str]:
    if not one.get("included", True):
        yield f"- {one.get('name')} was left out: {one.get('reason')}"
        return
    if one.get("warning"):
        yield f"- `{one.get('file')}` {one['warning']}"
    provider = one.get("accuracy_provider")
    if one.get("device") == "cuda" and provider and not provider.startswith("CUDA"):
        yield (
            f"- `{one.get('file')}` is for a GPU, and its accuracy was computed on the CPU ({provider}): measure it "
            "where it will serve"
        )


def _one_latency(latency: Mapping[str, Any]) -> list[str]:
    if not latency:
        return []
    return [
        f"- batch 1, one thread: P50 {number(latency.get('p50_ms'), 1)} ms, "
        f"P99 {number(latency.get('p99_ms'), 1)} ms, {latency.get('provider', '')}"
    ]


def _machine(evidence: Mapping[str, Any]) -> Iterator[str]:
    machine = part(evidence, "machine")
    if machine:
        load = machine.get("load")
        busy = "" if load is None else f", load average {load:.1f} when it began"
        yield (
            f"- latency on {machine.get('cpu')}, {machine.get('cores')} cores, {machine.get('threads')} thread used"
            f"{busy}; P50 and P99 of the best of three rounds"
        )


def _size(evidence: Mapping[str, Any]) -> Iterator[str]:
    told = []
    if evidence.get("macs") is not None:
        told.append(f"{evidence['macs'] / 1e6:.3g} M multiply-accumulates a window in the network")
    if evidence.get("parameters") is not None:
        told.append(f"{evidence['parameters']:,} parameters")
    versions = part(part(evidence, "specification"), "versions")
    told += [f"{name} {versions[name]}" for name in VERSIONS if name in versions]
    if told:
        yield f"- {', '.join(told)}"
