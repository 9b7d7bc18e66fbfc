"""`harness data prepare | audit | gc | verify`."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.exits import EXIT_REFUSED, print_json
from harness.cli.options import common_options, settings

if TYPE_CHECKING:
    from data.store.eviction import StoredFolder
    from harness.execution.data_gate import DataInspection


@click.group()
def command() -> None:
    """Prepare or audit the data of a sweep file, without training; look after the store of prepared data."""


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one field of the file."
)
@common_options("data_root", "cache", "json", "quiet")
def prepare(file: Path, overrides: tuple[str, ...], as_json: bool, quiet: bool, **options: Any) -> None:
    """Decode, cut and store the windows of every data configuration of FILE.

    --json prints data: for each configuration config, split_rule, flags, dropped, examined, lost,
    label_map_digest, manifests and checks.
    """
    inspections = _inspect(file, overrides, options, quiet=quiet or as_json)
    if as_json:
        print_json({"data": [inspection.as_json() for inspection in inspections]})
        return
    for inspection in inspections:
        prepared = inspection.prepared
        click.echo(f"{inspection.name}")
        for split, part in prepared.splits.items():
            clusters = len(set(part.manifest.clusters()))
            click.echo(
                f"  {split:<5} {len(part.manifest):>6} windows, K = {clusters}  {part.manifest.digest[:12]}"
            )
        for flag in prepared.flags:
            click.echo(f"  note {flag}")
        _echo_notes(inspection)


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one field of the file."
)
@common_options("data_root", "cache", "json", "quiet")
def audit(file: Path, overrides: tuple[str, ...], as_json: bool, quiet: bool, **options: Any) -> None:
    """Show what the data gate sees in the data of FILE; exit 3 where it would refuse.

    --json prints ok and data (as `data prepare`; checks have name, level, ok, measured, bound, message).
    """
    inspections = _inspect(file, overrides, options, quiet=quiet or as_json)
    ok = all(inspection.audit.ok for inspection in inspections)
    if as_json:
        print_json({"ok": ok, "data": [inspection.as_json() for inspection in inspections]})
    else:
        for inspection in inspections:
            click.echo(inspection.name)
            for check in inspection.audit.checks:
                mark = "ok  " if check.ok else {"refuse": "FAIL", "warn": "warn"}[check.level]
                click.echo(f"  {mark} {check.name}: {check.message}")
            _echo_notes(inspection)
        click.echo("the gate passes" if ok else "the gate refuses: no trial would start")
    if not ok:
        sys.exit(EXIT_REFUSED)


def _echo_notes(inspection: DataInspection) -> None:
    prepared = inspection.prepared
    if prepared.dropped_line:
        click.echo(f"  dropped as ambiguous: {prepared.dropped_line}")
    if prepared.lost:
        click.echo(f"  {len(prepared.lost)} of {prepared.examined} recordings unusable:")
        for lost in prepared.lost[:20]:
            click.echo(f"    {lost.path}: {lost.reason}")


def _inspect(
    file: Path, overrides: tuple[str, ...], options: dict[str, Any], *, quiet: bool
) -> list[DataInspection]:
    from harness.config.files.sweep_loader import load_sweep
    from harness.config.search_space import SearchSpace
    from harness.execution.data_gate import audit_data_configs

    progress: Callable[[str], None] = (
        (lambda text: None) if quiet else (lambda text: click.echo(text, err=True))
    )
    return audit_data_configs(SearchSpace(load_sweep(file, overrides)), settings(**options), progress)


@command.command()
@click.option(
    "--max-size",
    metavar="SIZE",
    envvar="HARNESS_CACHE_SIZE",
    show_envvar=True,
    help="What the store may take, such as 20GB; with the variable set, sweeps see to it too.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be deleted, and delete nothing.")
@common_options("cache", "json", "quiet")
def gc(max_size: str | None, dry_run: bool, as_json: bool, quiet: bool, **options: Any) -> None:
    """Delete prepared data until it takes at most --max-size, what was used longest ago first.

    What a living process uses stays, whatever the size; sweeps may run. What is gone is made again when
    a sweep needs it. Without --max-size: shows what there is. Downloaded corpora are never touched.

    \b
    --json prints: bytes, in_use_bytes, max_bytes, chosen and deleted (kind, folder, bytes, used), kept_bytes.
    """
    from data.store.eviction import evict, inventory, select_for_eviction
    from harness.core.format import format_size
    from harness.execution.cache_quota import parse_size

    cache = settings(**options).cache
    most = parse_size(max_size) if max_size is not None else None
    items = inventory(cache)
    chosen = select_for_eviction(items, most) if most is not None else []
    total = sum(item.num_bytes for item in items)
    if not as_json:
        for line in [] if quiet else _summary(items):
            click.echo(line)
        for item in chosen:
            click.echo(f"{'would delete' if dry_run else 'delete'} {_line(item)}")
    gone = [] if dry_run else list(evict(cache, chosen))
    freed = sum(item.num_bytes for item in (chosen if dry_run else gone))
    if as_json:
        in_use = sum(item.num_bytes for item in items if item.in_use)
        deleted = [_fields(item) for item in gone]
        print_json(
            {
                "bytes": total,
                "in_use_bytes": in_use,
                "max_bytes": most,
                "chosen": [_fields(item) for item in chosen],
                "deleted": deleted,
                "kept_bytes": total - sum(item.num_bytes for item in gone),
            }
        )
        return
    taken = set(chosen) - set(gone) if not dry_run else set()
    for item in sorted(taken, key=lambda one: one.path):
        click.echo(f"kept: somebody uses it now: {item.path}")
    if most is None:
        click.echo("nothing is deleted: say with --max-size how much may stay")
        return
    done = "would be freed" if dry_run else "freed"
    click.echo(
        f"{format_size(freed)} {done}, {format_size(total - freed)} left of at most {format_size(most)}"
    )
    if total - freed > most:
        click.echo("the rest is used by living processes")


@command.command()
@click.option(
    "--sample",
    type=click.IntRange(1, 100_000),
    default=16,
    show_default=True,
    help="Windows of every split that are made again; of features whole batches of 64.",
)
@click.option("--seed", type=click.IntRange(0), help="Of the sample.  [default: another one each time]")
@common_options("data_root", "cache", "json", "quiet")
def verify(sample: int, seed: int | None, as_json: bool, quiet: bool, **options: Any) -> None:
    """Check the store: every digest, and a random sample of windows and features made again.

    Exit 3 where something differs: the folder is named, and what in it. Remove it, and the next sweep
    makes it again. A corpus that is not here, or has changed, is told and is no error.

    \b
    --json prints: ok, seed, checked (folder; state: ok, differs or skipped; text).
    """
    from harness.maintenance.verify_cache import check_store

    seed = secrets.randbelow(2**31) if seed is None else seed
    checked = []
    for one in check_store(settings(**options), sample, seed):
        checked.append(one)
        if not as_json and not (quiet and one.state == "ok"):
            click.echo(f"{one.state:<8}{one.folder}: {one.text}")
    wrong = [one for one in checked if one.state == "differs"]
    if as_json:
        print_json({"ok": not wrong, "seed": seed, "checked": [one.as_json() for one in checked]})
    else:
        counts = f"{len(checked)} folders, {len(wrong)} differ"
        click.echo(f"{counts} (sample of --seed {seed})")
    if wrong:
        sys.exit(EXIT_REFUSED)


def _summary(items: list[StoredFolder]) -> list[str]:
    from data.store.eviction import KINDS
    from harness.core.format import format_size

    lines = []
    for kind in KINDS:
        own = [item for item in items if item.kind == kind]
        size, used = sum(one.num_bytes for one in own), sum(one.num_bytes for one in own if one.in_use)
        lines.append(f"{kind:<9}{len(own):>6} folders  {format_size(size):>8}  {format_size(used):>8} in use")
    return lines


def _line(item: StoredFolder) -> str:
    from harness.core.format import format_size

    return f"{item.path}  {format_size(item.num_bytes)}, used {_when(item)}"


def _when(item: StoredFolder) -> str:
    from datetime import datetime

    return datetime.fromtimestamp(item.used_at).astimezone().isoformat(sep=" ", timespec="minutes")[:16]


def _fields(item: StoredFolder) -> dict[str, Any]:
    return {"kind": item.kind, "folder": str(item.path), "bytes": item.num_bytes, "used": item.used_at}
