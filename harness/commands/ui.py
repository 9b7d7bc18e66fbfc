"""`harness ui`."""

from __future__ import annotations

import signal
import sys
import time
from typing import Any

import click

from harness.commands.options import common, print_json, settings

# Studies whose addresses are printed; the others are a click away.
SHOWN = 10


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port of 127.0.0.1.  [default: 5000, or a free one]"
)
@common("record", "json", "quiet")
def command(port: int | None, as_json: bool, quiet: bool, **options: Any) -> None:
    """Open MLflow on the record at 127.0.0.1 until Ctrl-C.

    Prints the address of every study's trials, best score first.

    --json prints url, record and studies (name: address of its trials) once MLflow answers.
    """
    from harness.record import Record
    from harness.server import TrackingServer, free_port, is_free
    from harness.tracking import connect, study_links

    record = Record(settings(**options).record).require()
    if port is not None and not is_free(port):
        raise click.UsageError(f"port {port} of 127.0.0.1 is taken; leave --port out for a free one")
    chosen = port or (5000 if is_free(5000) else free_port())
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: stopped.append(number))
    with TrackingServer(record, chosen) as server:
        url = server.uri
        links = study_links(connect(url), url)
        if as_json:
            print_json({"url": url, "record": str(record.root), "studies": links})
        elif not quiet:
            click.echo(f"MLflow on {record.root}: {url}  (Ctrl-C stops)")
            for name, link in list(links.items())[:SHOWN]:
                click.echo(f"  {name}: {link}")
        sys.stdout.flush()
        while not stopped and server.alive:
            time.sleep(0.2)
    if stopped and stopped[0] != signal.SIGINT:
        sys.exit(128 + stopped[0])
    if not stopped:
        raise click.ClickException(f"the MLflow server ended; its log: {record.server_log}")
