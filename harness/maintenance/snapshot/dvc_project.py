"""DVC around a folder: found or set up, and run as a child, on copies only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory

from filelock import FileLock

from harness.core.environment import OFF
from harness.core.errors import FailedError
from harness.core.files import to_share

# What this project asks of DVC; a remote of one's own wants `verify = true` besides.
SETTINGS = {
    "core.analytics": "false",
    "core.check_update": "false",
    "core.autostage": "false",
    "cache.type": "copy",
}
GITIGNORE = "/config.local\n/tmp\n/cache\n"
DVCIGNORE = (
    "# Of a record that is in use: no part of a snapshot.\n"
    "mlruns/locks\nmlruns/logs\nmlruns/server.log\nmlruns/*.db-wal\nmlruns/*.db-shm\n"
)
# DVC fetches a directory's manifest together with what it names; this fetches objects one by one, in a copy of the
# project without its .git too.
_PULL = """\
import sys
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc_data.hashfile.hash_info import HashInfo
wanted = {HashInfo("md5", digest) for digest in sys.stdin.read().split()}
try:
    Repo(sys.argv[1], config={"core": {"no_scm": True}}).cloud.pull(wanted, remote=sys.argv[2])
except DvcException as error:
    sys.exit(f"ERROR: {error}")
"""


class DvcError(FailedError, RuntimeError):
    """DVC failed; the message has its own words."""


class DvcProject:
    """The DVC project around a folder; whatever DVC does is done in a child process.

    Parameters
    ----------
    root : the folder that holds `.dvc`
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def settings(self) -> dict[str, str]:
        """DVC's configuration in force here, of all its levels: `section.option` -> value."""
        lines = run_dvc(self.root, "config", "--list").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    @property
    def remotes(self) -> dict[str, str]:
        """Name of each remote -> its address: a folder or a URL."""
        found = ((name.split("."), value) for name, value in self.settings.items())
        return {
            ".".join(name[1:-1]): value for name, value in found if name[0] == "remote" and name[-1] == "url"
        }

    @property
    def cache(self) -> Path:
        """The folder of its cache, where the content of every snapshot lies by its md5."""
        return Path(self.settings.get("cache.dir", self.root / ".dvc" / "cache"))

    def pull(self, digests: Iterable[str], remote: str | None) -> None:
        """Fetch objects into the cache, where the remote (None: the default one) has them.

        Raises
        ------
        DvcError
            There is no such remote, or it cannot be reached.
        """
        remote = remote or self.settings.get("core.remote")
        if remote not in self.remotes:
            raise DvcError(
                f"the cache does not hold the snapshot, and {self.root} has no remote to fetch it from: "
                f"dvc remote add -d {remote or 'NAME'} ADDRESS"
            )
        _child([sys.executable, "-P", "-c", _PULL, str(self.root), remote], self.root, "\n".join(digests))

    def lock(self) -> FileLock:
        """The lock, not yet taken, that a snapshot and a restoration hold: one at a time in a project."""
        place = self.root / ".dvc" / "tmp"
        place.mkdir(exist_ok=True)
        return FileLock(place / "snapshot.lock")

    @contextmanager
    def throwaway(self) -> Iterator[Path]:
        """An empty folder with DVC in it that shares this project's cache, gone afterwards."""
        cache = self.cache
        place = self.root / ".dvc" / "tmp"
        with self.lock():
            for leftover in place.glob("snapshot-*"):
                rmtree(leftover, ignore_errors=True)
            with TemporaryDirectory(prefix="snapshot-", dir=place) as name:
                folder = Path(name)
                (folder / ".dvc").mkdir()
                own = {"core.no_scm": "true", "cache.dir": str(cache)}
                own |= {name: self.settings[name] for name in ("cache.shared",) if name in self.settings}
                text = _config({**SETTINGS, **own})
                (folder / ".dvc" / "config").write_text(text, "utf-8")
                yield folder


def find_project(folder: Path) -> DvcProject | None:
    """The DVC project that a folder lies in, the nearest above it; None where there is none."""
    around = (folder.absolute(), *folder.absolute().parents)
    return next((DvcProject(parent) for parent in around if (parent / ".dvc").is_dir()), None)


def is_in_git(folder: Path) -> bool:
    """Whether a folder lies in a working tree of git; False where git is not installed."""
    return _git(folder, "rev-parse", "--is-inside-work-tree") == "true"


def set_up(folder: Path) -> DvcProject:
    """Make a folder a DVC project with this project's settings; git's index is left as it is."""
    in_git = is_in_git(folder)
    with to_share():
        made = folder / ".dvc"
        aside = folder / ".dvc.new"
        aside.mkdir(exist_ok=True)
        text = _config({**SETTINGS} if in_git else {**SETTINGS, "core.no_scm": "true"})
        (aside / "config").write_text(text, "utf-8")
        (aside / ".gitignore").write_text(GITIGNORE, "utf-8")
        if not (folder / ".dvcignore").exists():
            (folder / ".dvcignore").write_text(DVCIGNORE, "utf-8")
        if in_git and _git(folder, "check-ignore", "mlruns/") is None:
            ignored = folder / ".gitignore"
            before = ignored.read_text("utf-8") if ignored.is_file() else ""
            with ignored.open("a", encoding="utf-8") as file:
                file.write("\n" * (before[-1:] not in ("", "\n")) + "/mlruns/\n/mlruns.before-*/\n")
        aside.replace(made)
    return DvcProject(folder.absolute())


def run_dvc(folder: Path, *words: str) -> str:
    """Run a DVC command in the folder of a project, without analytics; what it prints.

    Raises
    ------
    DvcError
        It failed, or DVC is not installed.
    """
    return _child([sys.executable, "-P", "-m", "dvc", *words], folder)


def _child(words: list[str], folder: Path, text: str = "") -> str:
    # Its index of folders lies in /var/tmp else, for all users, and would be made under our umask.
    site = {"DVC_SITE_CACHE_DIR": str(folder / ".dvc" / "tmp" / "site")}
    environment = {**os.environ, **OFF, **site}
    done = subprocess.run(
        words, cwd=folder, env=environment, input=text, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        said = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines[-1:]
        raise DvcError(f"DVC failed in {folder}: {'; '.join(said) or 'it gave no reason'}")
    return done.stdout


def _config(settings: dict[str, str]) -> str:
    """DVC's configuration file."""
    lines: list[str] = []
    for section in dict.fromkeys(name.split(".")[0] for name in settings):
        lines.append(f"[{section}]")
        own = {
            name.split(".")[1]: value for name, value in settings.items() if name.startswith(f"{section}.")
        }
        lines += [f"    {name} = {value}" for name, value in own.items()]
    return "\n".join(lines) + "\n"


def _git(folder: Path, *words: str) -> str | None:
    """What git says; None where it says no, or is not there."""
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
