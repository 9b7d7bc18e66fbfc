"""Whether a bundle is what was promoted, and does here what it did there.

    files, digests    SHA256SUMS lists every file, no other lies there, none is a link, each has its digest
    documents         specification.json and evidence.json say what is asked of them below
    VARIANT           provider, names and shapes, golden outputs, batch 1 against batch n
    latency           P99 of model.onnx on the policy's device; it binds where the policy refuses for quality

It needs the standard library, numpy and onnxruntime. A model is opened from the bytes that were digested, and
only if no tensor of it lies in another file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from harness.core.errors import InputError, RefusedError
from harness.promotion.bundle.files import (
    EVIDENCE,
    MODEL,
    SPECIFICATION,
    SUMS,
    WAVEFORM,
    NoBundleError,
    bundle_digest,
    read_bundle,
    require_bundle,
)
from harness.promotion.bundle.verify_model import Bundle, included_variants, open_variant, run_variant

DESCRIPTION = "Check a bundle: digests, golden outputs and latency. Needs only onnxruntime and numpy."
NOT_A_SIGNATURE = (
    f"{SUMS} is not a signature: whoever can change the files can change it too. Compare its digest with the one "
    "that came another way, the tag harness.bundle_sha256 of the registered version: --digest HEX."
)


class MissingRuntimeError(InputError):
    """onnxruntime or numpy is not installed: without them no model can be run, so nothing is verified."""


class Check(NamedTuple):
    """One question about a bundle and its answer.

    Attributes
    ----------
    name : `files`, `digests`, `digest`, `documents`, a variant's name, or `latency`
    ok : False refuses the bundle
    text : what was found, for people
    """

    name: str
    ok: bool
    text: str


@dataclass(frozen=True)
class Verification:
    """What was asked of a bundle, and the answers.

    Attributes
    ----------
    digest : sha256 of SHA256SUMS, hex; "" where there is no such file
    notes : what refuses nothing: a device that is absent here, latencies without a bound
    latency : variant -> fields of Latency (ms, windows/s), of those that were timed
    """

    bundle: Path
    digest: str
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()
    latency: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every check passed; notes count for nothing."""
        return all(check.ok for check in self.checks)

    def lines(self, *, quiet: bool = False) -> list[str]:
        """For a terminal: what passed, notes, what was refused, the verdict; with `quiet` only what was refused."""
        refused = [f"REFUSED {check.name}: {check.text}" for check in self.checks if not check.ok]
        if quiet:
            return refused
        return [
            *(f"ok      {check.name}: {check.text}" for check in self.checks if check.ok),
            *(f"note    {note}" for note in self.notes),
            *refused,
            f"{self.bundle}: {'verified' if self.ok else 'REFUSED'}, digest {self.digest}",
        ]

    def as_json(self) -> dict[str, Any]:
        """The document that `harness verify --json` prints."""
        return {
            "bundle": str(self.bundle),
            "ok": self.ok,
            "digest": self.digest,
            "checks": [check._asdict() for check in self.checks],
            "notes": list(self.notes),
            "latency": self.latency,
        }


def verify(folder: Path, digest: str | None = None, *, latency: bool = True) -> Verification:
    """Ask everything of the bundle in a folder; models are opened only where every digest is right.

    Parameters
    ----------
    digest : sha256 of SHA256SUMS, hex, as it came another way
    latency : whether to measure it, which takes some seconds a variant

    Raises
    ------
    NoBundleError
        If there is none.
    MissingRuntimeError
        If onnxruntime or numpy is not installed.
    """
    require_bundle(folder)
    _require_runtime()
    files, wrong, altered = read_bundle(folder)
    known = [*wrong, *altered]
    for name in (MODEL, SPECIFICATION, EVIDENCE, WAVEFORM):
        if name not in files and not any(one.startswith(name) for one in known):
            wrong.append(f"{name} is missing")
    checks = [
        Check("files", not wrong, "; ".join(wrong) or f"{len(files)} files, all listed in {SUMS}"),
        Check("digests", not altered, "; ".join(altered) or "every file has its sha256"),
    ]
    actual = bundle_digest(folder) if (folder / SUMS).is_file() else ""
    if digest is not None:
        same = actual == digest.strip().lower()
        told = "the one given" if same else f"of {SUMS} is {actual or 'absent'}, given was {digest}"
        checks.append(Check("digest", same, told))
    if not all(check.ok for check in checks):
        return Verification(folder, actual, tuple(checks))
    return _run(Bundle(folder, actual, files), checks, latency)


def _require_runtime() -> None:
    try:
        import numpy  # noqa: F401
        import onnxruntime  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingRuntimeError(
            f"verification needs {error.name}, which is not installed: pip install onnxruntime numpy"
        ) from None


@dataclass
class _Answers:
    """What is collected while the models of a bundle are run."""

    checks: list[Check]
    notes: list[str] = field(default_factory=list)
    latency: dict[str, dict[str, Any]] = field(default_factory=dict)


def _run(bundle: Bundle, checks: list[Check], measure_latency: bool) -> Verification:
    """Read the documents, then open every variant."""
    found = _Answers(checks)
    try:
        specification, evidence = bundle.document(SPECIFICATION), bundle.document(EVIDENCE)
        variants = included_variants(bundle, specification, evidence)
        checks.append(Check("documents", True, f"{', '.join(one['name'] for one in variants)}"))
    except (ValueError, KeyError, TypeError) as error:
        checks.append(Check("documents", False, _told(error)))
        variants = []
    for variant in variants:
        if _answers(bundle, specification, variant, found) and measure_latency:
            _latency(bundle, evidence, variant, found)
    return Verification(bundle.folder, bundle.digest, tuple(checks), tuple(found.notes), found.latency)


def _answers(bundle: Bundle, specification: dict[str, Any], variant: dict[str, Any], found: _Answers) -> bool:
    """Run one variant; False where it did not, which is a note where only its device is absent here."""
    from models.onnx_io.runtime import ProviderError

    name = str(variant["name"])
    try:
        found.checks.append(Check(name, True, run_variant(bundle, specification, variant)))
    except ProviderError as error:
        if variant["device"] == "cpu":
            found.checks.append(Check(name, False, str(error)))
        else:
            found.notes.append(f"{name} was not run: {error}")
        return False
    except Exception as error:  # onnxruntime has a dozen types under Exception
        found.checks.append(Check(name, False, _told(error)))
        return False
    return True


def _told(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())[:500]


def _latency(bundle: Bundle, evidence: dict[str, Any], variant: dict[str, Any], found: _Answers) -> None:
    """Measure one variant; model.onnx where the policy wants to serve it, as promotion does."""
    from harness.promotion.bundle.latency import benchmark_latency
    from models.onnx_io.runtime import ProviderError

    policy = evidence.get("policy") or {}
    bound = policy.get("latency") or {}
    canonical = variant["file"] == MODEL
    device = bound.get("device", variant["device"]) if canonical else variant["device"]
    name = variant["name"]
    try:
        times = benchmark_latency(lambda: open_variant(bundle, variant["file"], device))
    except ProviderError as error:
        found.notes.append(f"latency of {name} was not measured on {device}: {error}")
        return
    found.latency[name] = asdict(times)
    text = (
        f"{name}: P50 {times.p50_ms:.1f} ms, P99 {times.p99_ms:.1f} ms, first answer "
        f"{times.cold_ms:.0f} ms ({times.provider})"
    )
    if not canonical or "max_p99_ms" not in bound:
        found.notes.append(f"latency of {text}")
        return
    fast = times.within(float(bound["max_p99_ms"]))
    text += f", wanted P99 < {bound['max_p99_ms']:g} ms on {device}"
    if fast or (policy.get("quality") or {}).get("on_failure") == "refuse":
        found.checks.append(Check("latency", fast, text))
    else:
        found.notes.append(f"latency of {text}: too slow here, which the policy only warns of")


def main(words: Sequence[str] | None = None) -> int:
    """`harness verify` where click is not installed: the same options, checks, output and exit code.

    Parameters
    ----------
    words : the command line after `harness verify`; None for this process's own
    """
    parser = argparse.ArgumentParser(
        prog="harness verify",
        description=DESCRIPTION,
        epilog=f"{NOT_A_SIGNATURE} Exit codes: 0 verified, 2 no bundle there, 3 refused.",
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--digest", metavar="HEX", help=f"sha256 of {SUMS} that came another way.")
    parser.add_argument("--json", action="store_true", help="Print one JSON document and nothing else.")
    parser.add_argument("-q", "--quiet", action="store_true", help="Print only what is refused.")
    options = parser.parse_args(words)
    try:
        result = verify(options.bundle, options.digest)
    except (NoBundleError, MissingRuntimeError) as error:
        if options.json:
            print(json.dumps({"error": str(error), "exit_code": error.exit_code}, indent=2))
        else:
            print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    lines = [json.dumps(result.as_json(), indent=2)] if options.json else result.lines(quiet=options.quiet)
    for line in lines:
        print(line)
    return 0 if result.ok else RefusedError.exit_code
