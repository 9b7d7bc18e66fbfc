"""`harness ui`."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import click

from harness.cli.exits import EXIT_FAILED, print_json
from harness.cli.options import common_options, settings

if TYPE_CHECKING:
    from harness.study.storage.record import Record

# Studies whose addresses are printed; the others are a click away.
SHOWN = 10


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port to listen on.  [default: 5000, or a free one]"
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; another one needs a password in HARNESS_UI_PASSWORD.",
)
@common_options("record", "json", "quiet")
def command(port: int | None, host: str, as_json: bool, quiet: bool, **options: Any) -> None:
    """Open MLflow on the record at 127.0.0.1 until Ctrl-C.

    Where HARNESS_UI_PASSWORD is set, everybody must bring it (any user name).

    Prints the address of every study's trials, best score first. Where MLFLOW_TRACKING_URI names
    a team's server, prints its addresses and starts none.

    --json prints url, record and studies (name: address of its trials) once MLflow answers.
    """
    from harness.study.storage.record import Record
    from harness.tracking.experiment import connect, study_links
    from harness.tracking.server.app import PASSWORD
    from harness.tracking.server.server import TrackingServer, is_free

    record = Record(settings(**options).record)
    team = os.environ.get("MLFLOW_TRACKING_URI")
    if team:
        url = _public(team)
        links = study_links(connect(team), url)
        _show(f"MLFLOW_TRACKING_URI is set; the runs are on {url}", url, record, links, as_json, quiet)
        return
    record.require()
    password = os.environ.get(PASSWORD) or None
    server = TrackingServer(record, port, prefer=5000, host=host, password=password)
    if port is not None and not is_free(port, host):
        raise click.UsageError(f"port {port} of {host} is taken; leave --port out for a free one")
    if password is not None:  # this process is a client of its own server
        os.environ |= {"MLFLOW_TRACKING_USERNAME": "harness", "MLFLOW_TRACKING_PASSWORD": password}
    stopped: list[int] = []
    with server:
        url = server.uri
        links = study_links(connect(url), url)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # until here a signal raises
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda number, frame: stopped.append(number))
        _show(f"MLflow on {record.root}: {url}  (Ctrl-C stops)", url, record, links, as_json, quiet)
        while not stopped and server.alive:
            time.sleep(0.2)
    if stopped and stopped[0] != signal.SIGINT:
        sys.exit(128 + stopped[0])
    if not stopped:  # not as JSON: the one document is printed already
        click.echo(f"error: the MLflow server ended; its log: {record.server_log}", err=True)
        sys.exit(EXIT_FAILED)


def _show(heading: str, url: str, record: Record, links: dict[str, str], as_json: bool, quiet: bool) -> None:
    if as_json:
        print_json({"url": url, "record": str(record.root), "studies": links})
    elif quiet:
        click.echo(url)
    else:
        click.echo(heading)
        for name, link in list(links.items())[:SHOWN]:
            click.echo(f"  {name}: {link}")
    sys.stdout.flush()


def _public(uri: str) -> str:
    """The address without the password that it may carry."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")
