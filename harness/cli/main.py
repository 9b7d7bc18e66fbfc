"""`harness`: the command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

FIRST = {
    "init": ("harness.cli.commands.init", "Write a sweep file to start from."),
    "sweep": ("harness.cli.commands.sweep", "Run a sweep file; run it again to go on."),
    "status": ("harness.cli.commands.status", "Show studies, or the trials of one."),
    "ui": ("harness.cli.commands.ui", "Open MLflow on the record."),
    "report": ("harness.cli.commands.report", "Write what a study says: one page, Markdown and JSON."),
    "promote": ("harness.cli.commands.promote", "Check, export and register the best model of a study."),
}
MORE = {
    "confirm": ("harness.cli.commands.confirm", "Retrain the best trials on fresh seeds; name a winner."),
    "ensemble": ("harness.cli.commands.ensemble", "Average trials of a study into one model."),
    "evaluate": ("harness.cli.commands.evaluate", "Score a run's model on meetings, frame by frame."),
    "why": ("harness.cli.commands.why", "Say why a trial was pruned, failed or not promoted."),
    "rollback": ("harness.cli.commands.rollback", "Make the champion before this one the champion again."),
    "verify": ("harness.cli.commands.verify", "Check a bundle: digests, golden outputs, latency."),
    "data": ("harness.cli.commands.data", "Prepare or audit a sweep's data without training."),
    "doctor": ("harness.cli.commands.doctor", "Look at everything a sweep stands on, and how to mend it."),
    "snapshot": ("harness.cli.commands.snapshot", "Keep a copy of the record under DVC, while sweeps run."),
    "restore": ("harness.cli.commands.restore", "Bring back the record that mlruns.dvc points to."),
    "schema": (
        "harness.cli.commands.schema",
        "Print a JSON Schema: of sweep files, specifications, policies.",
    ),
}


class LazyGroup(click.Group):
    """The commands by name and one line of help; a command's module is imported when it is called.

    So `harness --help` imports neither torch nor MLflow, and answers at once.
    """

    def main(  # type: ignore[override]  # click's overloads tell what `standalone_mode` returns
        self, args: Any = None, *, standalone_mode: bool = True, **extra: Any
    ) -> Any:
        """Run, print errors (as one JSON document where `--json` stands among the words) and exit.

        Parameters
        ----------
        args : the words after `harness`; None for this process's own
        standalone_mode : False leaves errors and exit codes to the caller, as in click
        """
        if not standalone_mode:
            return super().main(args, standalone_mode=False, **extra)
        words = list(sys.argv[1:] if args is None else args)
        as_json = "--json" in words
        try:
            code = super().main(words, standalone_mode=False, **extra)
        except click.Abort:  # Ctrl-C before a command began
            _fail("stopped", 130, as_json=as_json)
            code = 130
        except click.ClickException as error:
            code = error.exit_code
            if as_json:
                _fail(error.format_message(), code, as_json=True)
            else:
                error.show()
        except Exception as error:
            if not as_json:
                raise
            import traceback

            traceback.print_exc()
            code = 1
            _fail(f"{type(error).__name__}: {error}", code, as_json=True)
        sys.exit(code if isinstance(code, int) else 0)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command's name, the everyday ones first (click would sort them)."""
        return [*FIRST, *MORE]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command's module and return its `command`; None for a name that is none."""
        module, _ = {**FIRST, **MORE}.get(cmd_name, (None, ""))
        if module is None:
            return None
        command = importlib.import_module(module).command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but a name that is none ends in a usage error (exit 2) with the nearest one."""
        if args and args[0] not in FIRST and args[0] not in MORE and not args[0].startswith("-"):
            from data.errors import nearest

            near = nearest(args[0], [*FIRST, *MORE])
            hint = f"Did you mean {near}?" if near else "See harness --help."
            ctx.fail(f"no such command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write two sections of --help from the tables above, without importing any command."""
        for title, commands in (("Commands", FIRST), ("More", MORE)):
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in commands.items()])


def _fail(message: str, code: int, *, as_json: bool) -> None:
    from harness.cli.exits import print_error

    print_error(message, code, as_json=as_json)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 refused by a gate or guard, "
    "129/130/143 stopped by a signal.",
)
@click.version_option(package_name="diarization-harness", message="%(version)s")
def cli() -> None:
    """Sweep, compare and promote speaker-diarization models.

    \b
      harness sweep sweeps/quickstart.yaml    train
      harness ui                              compare in MLflow
      harness promote quickstart              export the best, with its evidence
    """


def main() -> None:
    """Run the command line where click is installed.

    Secrets in the output are redacted; once a signal has decided the exit code, further ones cannot change it.
    """
    from harness.core.redaction import redact_output

    if sys.stdout.encoding.lower() not in ("utf-8", "utf8"):
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    redact_output()
    try:
        cli()
    except SystemExit as ending:
        if isinstance(ending.code, int) and ending.code > 128:
            from harness.core.signals import ignore_signals

            ignore_signals()
        raise


if __name__ == "__main__":
    main()
