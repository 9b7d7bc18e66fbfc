"""The `harness` script: `verify` works where only onnxruntime and numpy are installed, click not."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; where click is not installed, `verify` alone, and of anything else say why not (exit 1)."""
    try:
        import click  # noqa: F401
    except ModuleNotFoundError:
        if sys.argv[1:2] == ["verify"]:
            from harness.promotion.bundle.verify import main as verify

            sys.exit(verify(sys.argv[2:]))
        sys.exit("error: click is not installed: only `harness verify BUNDLE` works here")
    from harness.cli.main import main as run

    run()
