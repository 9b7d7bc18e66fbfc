"""`harness schema`."""

from __future__ import annotations

from typing import Any

import click

from harness.cli.exits import print_json
from harness.cli.options import common_options


@click.command()
@click.argument("kind", type=click.Choice(["sweep", "specification", "policy"]), default="sweep")
@common_options("json")
def command(kind: str, as_json: bool) -> None:
    """Print the JSON Schema of sweep files, of a bundle's specification.json, or of policies.

    \b
      harness schema > sweep.schema.json
      # yaml-language-server: $schema=sweep.schema.json     <- first line of a sweep file
      harness schema specification                          the contract of a server
    """
    print_json(_schema(kind))


def _schema(kind: str) -> dict[str, Any]:
    if kind == "specification":
        from models.export.specification import Specification

        return Specification.json_schema()
    if kind == "policy":
        from harness.config.policy import policy_schema

        return policy_schema()
    from harness.config.json_schema import json_schema

    return json_schema()
