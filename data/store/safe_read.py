"""Reading what others wrote: regular files only, no more than such a file can hold, one kind of error."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from data.errors import DataError, says_disk_full

T = TypeVar("T")
MOST_TEXT = 16 * 2**20  # bytes; the tables and references of the largest corpora take less than one
# From here on a size in a WAV header means "not known": what sox and ffmpeg write into a pipe.
_STREAMED = 0x7FFF_F000
_MOST_CHUNKS = 64
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def kind_of(mode: int) -> str:
    """What stands at a path whose status has ``mode``; "" for a file. Opening a pipe would wait for ever."""
    return next((name for is_kind, name in _KINDS if is_kind(mode)), "")


def read_text(path: Path, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Return the text of a file that somebody wrote by hand or fetched.

    Raises
    ------
    DataError
        It cannot be read, is no file, is far too large, or is no text in UTF-8.
    """
    try:
        status = path.stat()
        if kind := kind_of(status.st_mode):
            raise DataError(f"{path} cannot be read: it is {kind}, not a file")
        if status.st_size > MOST_TEXT:
            raise DataError(
                f"{path} cannot be read: {status.st_size} bytes, and no such file has more than {MOST_TEXT}"
            )
        return path.read_text(encoding=encoding, errors=errors)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8 (byte {error.start})") from error


def read_json(path: Path, form: TypeAdapter[T]) -> T:
    """Return what preparation wrote, parsed strictly as ``form``.

    Raises
    ------
    DataError
        It cannot be read, or has another form: the place of the first difference is named.
    """
    try:
        return form.validate_json(path.read_bytes(), strict=True)
    except OSError as error:
        reason = error.strerror or str(error)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".lstrip(": ")
    raise DataError(f"{path} cannot be read ({reason}); remove its folder and prepare again")


@contextmanager
def usable(what: str) -> Iterator[None]:
    """Say that files or folders of ``what`` cannot be used as one DataError; a full disk is another matter."""
    try:
        yield
    except OSError as error:
        if says_disk_full(error):
            raise
        place = f"{what}: {error.filename}" if error.filename else what
        raise DataError(
            f"{place} cannot be used: {error.strerror or error}; mend its rights or remove it"
        ) from error


def missing_bytes(path: Path) -> int:
    """Count the bytes of samples that the header of a WAV file promises and the file lacks; 0 for any other.

    libsndfile reads what is left of such a file without a word.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return 0
        for _ in range(_MOST_CHUNKS):
            head = file.read(8)
            length = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                return 0 if length >= _STREAMED else max(0, file.tell() + length - size)
            file.seek(length + length % 2, 1)
    return 0
