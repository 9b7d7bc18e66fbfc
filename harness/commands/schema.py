"""`harness schema`."""

from __future__ import annotations

import click

from harness.commands.options import common, print_json


@click.command()
@common("json")
def command(as_json: bool) -> None:
    """Print the JSON Schema of sweep files.

    \b
      harness schema > sweep.schema.json
      # yaml-language-server: $schema=sweep.schema.json     <- first line of a sweep file
    """
    from harness.sweep_schema import json_schema

    print_json(json_schema())
