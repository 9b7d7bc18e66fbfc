"""The command line, run in this process."""

from click.testing import CliRunner, Result

from harness.cli.main import cli


def run(*words: object, **environment: str) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words], env=environment)
