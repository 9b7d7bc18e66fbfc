"""`harness verify BUNDLE`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from harness.cli.exits import EXIT_REFUSED, print_json
from harness.cli.options import common_options, expand_home


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--digest",
    metavar="HEX",
    help="sha256 of SHA256SUMS that came another way: the registered version's tag harness.bundle_sha256.",
)
@common_options("json", "quiet")
def command(bundle: Path, digest: str | None, as_json: bool, quiet: bool) -> None:
    """Check a BUNDLE: digests, golden outputs and latency; exit 3 where it is refused.

    It needs only onnxruntime and numpy: `pip install --no-deps` of this package beside them is enough.
    SHA256SUMS is not a signature: whoever can change the files can change it too. Compare its digest
    with one that came another way (--digest).

    \b
    --json prints: bundle, ok, digest, checks (name, ok, text), notes, latency.
    """
    from harness.promotion.bundle.verify import verify

    result = verify(expand_home(bundle), digest)
    if as_json:
        print_json(result.as_json())
    else:
        for line in result.lines(quiet=quiet):
            click.echo(line)
    if not result.ok:
        sys.exit(EXIT_REFUSED)
