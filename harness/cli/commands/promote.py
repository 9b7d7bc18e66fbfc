"""`harness promote STUDY`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.exits import EXIT_REFUSED, print_json
from harness.cli.options import (
    common_options,
    expand_home,
    program,
    settings,
    study_and_baseline,
    typed_options,
)
from harness.promotion.guards.guard import refuses

if TYPE_CHECKING:
    from harness.config.policy import Policy
    from harness.promotion.finish import Promotion
    from harness.promotion.guards.assessment import GuardRefusedError
    from harness.promotion.promote import Review
    from harness.study.confirmation.conclusion import Confirmation
    from harness.study.study import Study


@click.command()
@click.argument("study")
@click.option(
    "--run",
    metavar="RUN",
    help="Trial number (of a confirmed one its median seed), ensemble name, or MLflow run id (that very run).  "
    "[default: the confirmed winner, else the best trial by score]",
)
@click.option(
    "--policy",
    metavar="FILE|NAME",
    default="default",
    show_default=True,
    help="Bounds of the guards: default (quality warns), production (all refuse, confirmation required), or a file.",
)
@click.option(
    "--confirm",
    is_flag=True,
    help="First retrain the finalists on fresh seeds, as `harness confirm` does; prints trainings and hours.",
)
@click.option("--dry-run", is_flag=True, help="Show every guard, open no test, change nothing.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("promoted"),
    show_default=True,
    help="Folder of bundles; this one goes to OUTPUT/STUDY.",
)
@common_options("record", "data_root", "cache", "workers", "device", "json", "quiet")
def command(
    study: str,
    run: str | None,
    policy: str,
    confirm: bool,
    dry_run: bool,
    output: Path,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Check, export, test and register the best model of STUDY. Trains nothing without --confirm.

    STUDY is a study's name, or the sweep file that it runs. Integrity guards refuse (exit 3, nothing
    changed); quality guards warn, or refuse as well, as the policy says. The frozen test is opened
    once, for the candidate, its fp16 and int8 variants and the present champion. Who beats the
    champion (or is as good and 20 % cheaper) takes its alias; who does not is kept as `challenger`.

    \b
    --json prints: study, trial, policy, registered_name, version, alias, bundle, against (opponent,
    difference, cheaper, wins, verdict, text), stamp, test (value, low, high, windows, clusters),
    test_by_subset, variants, guards (name, level, ok, measured, bound, advice), latency, optimism,
    confirmation, test_openings, test_openings_by_all.
    With --dry-run: study, trial, policy, refused, guards. A refusal: error, exit_code, study, subject,
    policy, test_opened, guards.
    """
    from harness.config.files.policy_file import load_policy
    from harness.study.storage.record import Record
    from harness.study.study import load_study

    rules = load_policy(policy)
    where = settings(**options)
    record = Record(where.record).require()
    study, baseline = study_and_baseline(record, study)
    loaded = load_study(record, study)  # before torch: a wrong name is answered at once
    silent = quiet or as_json
    from harness.promotion.finish import Promotion, require_bundle_folders
    from harness.promotion.guards.assessment import GuardRefusedError
    from harness.promotion.promote import PromotionRequest, promote

    progress = (lambda text: None) if silent else (lambda text: click.echo(text, err=True))
    place, confirmation = expand_home(output), None
    if not dry_run:
        require_bundle_folders(place, study)
    try:
        if confirm:
            confirmation = _confirm(loaded, run, where, rules, baseline, dry_run=dry_run, silent=silent)
        request = PromotionRequest(rules, place, run, confirmation, dry_run)
        result = promote(study, request, where, progress)
    except GuardRefusedError as refusal:
        if not as_json:
            raise
        print_json(_refusal(refusal))
        sys.exit(EXIT_REFUSED)
    if isinstance(result, Promotion):
        print_json(_document(result)) if as_json else click.echo("\n".join(_lines(result)))
        return
    if as_json:
        print_json(_review_document(result))
    else:
        click.echo("\n".join(_review_lines(result, confirm=confirm)))
    if result.refused:
        sys.exit(EXIT_REFUSED)


def _confirm(
    study: Study, run: str | None, where: Any, rules: Policy, baseline: Any, *, dry_run: bool, silent: bool
) -> Confirmation | None:
    """Retrain finalists and baseline; in a dry run only say what that would cost."""
    from harness.cli.live_view import open_view
    from harness.promotion.guards.assessment import require_guards_pass, study_guards
    from harness.selection.confirm import ConfirmationRequest, confirm, make_plan
    from harness.study.storage.record import Record

    rule, view = rules.confirmation, open_view(quiet=silent)
    asked = ConfirmationRequest(run=run, finalists=rule.finalists, seeds=rule.seeds, baseline=baseline)
    plan = make_plan(study, Record(where.record), where, view, asked)
    # What no training can change is refused before any is paid for.
    known = study_guards(study, list(plan.prepared.values()), rules)
    if dry_run:
        lines, result = plan.lines(), None
    else:
        require_guards_pass(study.name, "the confirmation", known, rules)
        result = confirm(study.name, where, view, asked)
        lines = result.lines()
    if not silent:
        click.echo("\n".join(lines), err=True)
    return result


def _refusal(refusal: GuardRefusedError) -> dict[str, Any]:
    guards = [guard.as_json() for guard in refusal.guards]
    return {
        "error": str(refusal),
        "exit_code": EXIT_REFUSED,
        "study": refusal.study,
        "subject": refusal.subject,
        "policy": refusal.policy.name,
        "test_opened": refusal.opened,
        "guards": guards,
    }


def _document(result: Promotion) -> dict[str, Any]:
    evidence = result.evidence
    measured = (
        "stamp", "test", "test_by_subset", "variants", "guards", "latency", "optimism", "confirmation",
        "test_openings", "test_openings_by_all",
    )  # fmt: skip
    return {
        "study": result.study,
        "trial": evidence["trial"],
        "policy": evidence["policy"]["name"],
        "registered_name": result.registered_name,
        "version": result.version,
        "alias": result.alias,
        "bundle": str(result.bundle),
        "against": evidence["champion"],
        **{key: evidence[key] for key in measured},
    }


def _review_document(result: Review) -> dict[str, Any]:
    return {
        "study": result.study,
        "trial": result.subject.as_json(),
        "policy": result.policy.name,
        "refused": result.refused,
        "guards": [guard.as_json() for guard in result.guards],
    }


def _review_lines(result: Review, *, confirm: bool) -> list[str]:
    """The guards one by one, what binds and what does not."""
    lines = [f"dry run: {result.subject.label} of {result.study} under policy {result.policy.name}"]
    for guard in result.guards:
        warns = "note   " if guard.level == "advice" else "warns  "
        mark = "ok     " if guard.ok else "REFUSES" if refuses(result.policy, guard) else warns
        lines.append(f"  {mark} {guard}")
    lines.append("  closed  the guards of the frozen test are asked when it is opened, by promotion itself")
    if confirm:
        lines.append(f"this is {result.subject.label} as it stands; a confirmation may choose another")
    if result.refused:
        return [*lines, "it would be refused; nothing was changed"]
    words = typed_options("run", "policy", "confirm", "output", "record", "data_root", "cache")
    again = shlex.join([program(), "promote", result.study, *words])
    warnings = sum(not guard.ok for guard in result.guards)
    shown = (
        f"{warnings} warnings" if warnings > 1 else "1 warning" if warnings else "nothing speaks against it"
    )
    return [*lines, f"{shown}, nothing refuses so far; nothing was changed. To go on: {again}"]


def _lines(result: Promotion) -> list[str]:
    from harness.metrics.by_subset import subset_lines
    from harness.metrics.intervals import ClusteredInterval
    from harness.promotion.bundle.card import optimism_line
    from harness.promotion.guards.guard import Guard

    evidence = result.evidence
    guards = [Guard(**one) for one in evidence["guards"]]
    passed, policy = sum(guard.ok for guard in guards), evidence["policy"]["name"]
    lines = [f"guards: {passed} of {len(guards)} pass under policy {policy}"]
    lines += [
        f"  {'note' if guard.level == 'advice' else 'warning'}: {guard}" for guard in guards if not guard.ok
    ]
    if evidence["champion"] is not None and evidence["champion"]["wins"]:  # else a guard says so
        lines.append(evidence["champion"]["text"])
    stays = "" if result.alias == "champion" else "; the champion stays"
    lines += [
        f"promoted {evidence['subject']} ({evidence['configuration']}) as {result.registered_name} version "
        f"{result.version}, alias {result.alias}{stays}",
        f"test: {ClusteredInterval(**evidence['test'])}, opening {evidence['test_openings']} of this test by this "
        f"study, {evidence['test_openings_by_all']} in all",
        *(f"  on {line}" for line in subset_lines(evidence["test_by_subset"])),
    ]
    if evidence["confirmation"] is None:
        luck = optimism_line(evidence["optimism"], evidence["trials_compared"], evidence["rank"])
        lines.append(f"validation score {evidence['trial']['score'] or 0:.3f}, {luck}")
    return [
        *lines,
        *map(_variant_line, evidence["variants"]),
        evidence["stamp"],
        f"bundle: {result.bundle}/ (model.onnx, card.md, evidence.json, golden/); check it with "
        f"{program()} verify {shlex.quote(str(result.bundle))}",
    ]


def _variant_line(variant: Mapping[str, Any]) -> str:
    """What a file takes and what it loses, or why it is left out."""
    if not variant["included"]:
        return f"{variant['file']}: left out: {variant['reason']}"
    latency = variant["latency"]
    shown = f"latency not measured: {variant['latency_note']}"
    if latency is not None:
        shown = (
            f"P50 {latency['p50_ms']:.1f} ms, P99 {latency['p99_ms']:.1f} ms, {latency['windows_per_s']:.0f} "
            f"windows/s at batch 32 ({latency['provider']})"
        )
    loss = (
        f"{round(-100 * variant['accuracy_loss'], 1) + 0.0:+.1f} points of test accuracy, "
        if variant["name"] != "fp32"
        else ""
    )
    line = f"{variant['file']}: {variant['bytes'] / 1e6:.2f} MB, {loss}{shown}"
    return f"{line}; {variant['warning']}" if variant["warning"] else line
