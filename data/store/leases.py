"""Which stored folders living processes use, so that the store's collector leaves them alone.

::

    CACHE/.leases/.lock      held for moments: by who takes a lease, and by who deletes a folder
    CACHE/.leases/PID-xxxx   a process's folders, one a line; under a kernel lock that ends with the process

A process keeps what it was given until it ends: a worker's next trial needs the folders of its last one.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from filelock import FileLock

from data.store.content_store import MARKER, build_once

LEASES = ".leases"
EVERYTHING = "."  # the lease of a process that may not be asked what it uses

_files: dict[Path, BinaryIO] = {}
_held: set[Path] = set()


def lease_folders(cache: Path, folders: Iterable[Path]) -> bool:
    """Keep folders of a cache until this process ends; false where one of them is gone (the others stay held).

    A cache that this process may not write is left as it is: who may not write there deletes nothing either.
    """
    cache = cache.resolve()
    wanted = [folder.resolve() for folder in folders]
    new = [folder for folder in wanted if folder not in _held and folder.is_relative_to(cache)]
    with _where_it_may_be_written():
        if new:
            with exclusive_access(cache):
                file = _own(cache)
                file.write("".join(f"{folder.relative_to(cache).as_posix()}\n" for folder in new).encode())
                file.flush()
                _held.update(new)
        for folder in wanted:
            with suppress(FileNotFoundError):
                os.utime(folder / MARKER)  # what was used longest ago is deleted first
    return all(folder.is_dir() for folder in wanted)


def build_and_lease(
    cache: Path,
    folder: Path,
    build: Callable[[Path], None],
    waiting: Callable[[], object] = bool,
    *,
    intact: bool = False,
) -> Path:
    """Return ``folder`` as `build_once` does, and keep it until this process ends."""
    while True:  # it may be deleted between the two
        build_once(folder, build, waiting, intact=intact)
        if lease_folders(cache, [folder]):
            return folder


def release_all() -> None:
    """Let go of everything this process holds; it happens by itself at its end, and by the kernel's lock at a kill."""
    for file in _files.values():
        if Path(file.name).name.startswith(f"{os.getpid()}-"):  # a forked child ends, and its parent goes on
            Path(file.name).unlink(missing_ok=True)
        file.close()
    _files.clear()
    _held.clear()


@contextmanager
def exclusive_access(cache: Path) -> Iterator[None]:
    """In this block nobody takes a lease, and nobody else deletes."""
    (cache / LEASES).mkdir(parents=True, exist_ok=True)
    with FileLock(cache / LEASES / ".lock"):
        yield


def leased_folders(cache: Path) -> frozenset[str]:
    """The folders that living processes hold, relative to the cache; what dead ones held is forgotten.

    A lease that cannot be read counts as one on everything.
    """
    names: set[str] = set()
    for lease in sorted((cache / LEASES).glob("[!.]*")):
        try:
            with lease.open("rb") as file:
                if _is_free(file):
                    lease.unlink(missing_ok=True)
                else:
                    names.update(file.read().decode().splitlines())
        except FileNotFoundError:
            continue
        except OSError:
            names.add(EVERYTHING)
    return frozenset(names)


def in_use(name: str, held: frozenset[str]) -> bool:
    """Whether a folder, or one that it lies in, is among those held."""
    parents = (parent.as_posix() for parent in Path(name).parents)
    return EVERYTHING in held or name in held or any(parent in held for parent in parents if parent != ".")


@contextmanager
def _where_it_may_be_written() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise


def _own(cache: Path) -> BinaryIO:
    """Give the lease of this process in a cache, made and locked at its first use."""
    if cache not in _files:
        leased_folders(cache)  # forgets what killed processes left
        path = cache / LEASES / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        file = cast(BinaryIO, path.open("xb"))  # it stays open: its lock is the lease
        with suppress(OSError):  # a file system without such locks: then nothing looks free, and all is kept
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _files[cache] = file
    return _files[cache]


atexit.register(release_all)


def _is_free(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True
