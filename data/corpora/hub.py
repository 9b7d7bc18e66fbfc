"""What readers of the Hugging Face hub share: parquet there or in a folder, costs, one refusal at once.

Local and remote files are opened through fsspec, so that everything after the opening is one code::

    ParquetSource.on_hub(repo, revision)  HfFileSystem     datasets/<repo>@<commit>/...
    ParquetSource.in_folder(folder)       LocalFileSystem  <folder>/...
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.errors import DataError, one_line

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

ASSUMED_MB_PER_S = 20  # a plain office line; stated wherever a time is given
PATIENCE_S = 5.0  # for the one question that tells whether the hub answers
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def size_text(size: int) -> str:
    """Return ``size`` bytes in GB (10^9), below 0.1 GB in MB: 1.94 GB, 8.1 MB."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def download_text(size: int) -> str:
    """Return what downloading ``size`` bytes costs, with the speed that was assumed."""
    minutes = size / 1e6 / ASSUMED_MB_PER_S / 60
    return f"{size_text(size)}, about {max(1, round(minutes))} min at an assumed {ASSUMED_MB_PER_S} MB/s"


def check_download(size: int, limit_gb: float | None, what: str, remedy: str) -> None:
    """Refuse a download of ``size`` bytes above ``limit_gb``; None means no limit.

    Raises
    ------
    DataError
        With the size, the limit and ``remedy``.
    """
    if limit_gb is not None and size > limit_gb * 1e9:
        raise DataError(
            f"{what} needs a download of {download_text(size)}, more than data.max_download_gb "
            f"({limit_gb:g}) allows; raise it, {remedy}"
        )


def require_hub(repo: str, revision: str, advice: str) -> str:
    """Return the commit of ``revision`` of the data set ``repo``, asking the hub once, without retries.

    Raises
    ------
    DataError
        Offline by environment, not reachable, no such data set or revision; ends with ``advice``.
    """
    offline = next(
        (name for name in OFFLINE if os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}), None
    )
    if offline:
        raise DataError(f"{repo} would be read from the hub, but {offline} is set; {advice}")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

    try:
        commit = HfApi().dataset_info(repo, revision=revision, timeout=PATIENCE_S).sha
    except RevisionNotFoundError as error:
        raise DataError(f"{repo} has no revision {revision!r} on the hub; leave data.revision out") from error
    except HfHubHTTPError as error:
        raise DataError(f"the hub does not give {repo} at {revision}: {one_line(error)}; {advice}") from error
    except Exception as error:  # the client's HTTP library differs from version to version
        raise DataError(f"the hub is not reachable for {repo} ({one_line(error)}); {advice}") from error
    return str(commit)


@dataclass(frozen=True, order=True)
class ParquetFile:
    """A parquet file: ``path`` from the source's root; ``stamp`` changes when its content may have."""

    path: str
    size: int
    stamp: str


@dataclass(frozen=True)
class ParquetSource:
    """A place that holds parquet files; ``repo`` is "" for a folder. Nothing is asked before it is needed."""

    root: str
    repo: str = ""
    commit: str = ""
    advice: str = ""

    @classmethod
    def on_hub(cls, repo: str, revision: str, advice: str) -> ParquetSource:
        """Return ``repo`` at a commit; only the name of a branch needs the network, to become one."""
        commit = revision if _COMMIT.fullmatch(revision) else require_hub(repo, revision, advice)
        return cls(f"datasets/{repo}@{commit}", repo, commit, advice)

    @classmethod
    def in_folder(cls, folder: Path) -> ParquetSource:
        """Return the source of a folder on this machine; whether it holds anything is asked later."""
        return cls(folder.absolute().as_posix())

    @property
    def remote(self) -> bool:
        """Whether reading is downloading: a repository of the hub, and no folder."""
        return bool(self.repo)

    @property
    def name(self) -> str:
        """What messages call it: repository and commit, or the folder."""
        return f"{self.repo} at {self.commit[:10]}" if self.remote else self.root

    @cached_property
    def files(self) -> Any:
        """The fsspec file system; the first use of a remote one asks whether the hub is there."""
        if not self.remote:
            from fsspec.implementations.local import LocalFileSystem

            return LocalFileSystem()
        require_hub(self.repo, self.commit, self.advice)
        from huggingface_hub import HfFileSystem

        return HfFileSystem()

    @cached_property
    def _footers(self) -> dict[str, Any]:
        return {}  # by path: the way to the hub and back is paid once a file

    def folders(self, folder: str = "") -> list[str]:
        """Return the names of the folders in ``folder``, sorted; none where it is missing."""
        return sorted(
            posixpath.basename(e["name"]) for e in self._entries(folder) if e["type"] == "directory"
        )

    def parquet(self, folder: str, pattern: str = "*.parquet") -> list[ParquetFile]:
        """Return the parquet files in ``folder`` whose names fit ``pattern``, sorted."""
        found = []
        for entry in self._entries(folder):
            name = posixpath.basename(entry["name"])
            if entry["type"] == "file" and fnmatchcase(name, pattern) and not name.startswith("."):
                stamp = self.commit or str(entry["mtime"])
                found.append(ParquetFile(posixpath.join(folder, name), int(entry["size"]), stamp))
        return sorted(found)

    def _entries(self, folder: str) -> Sequence[dict[str, Any]]:
        with self.said("list", folder or "."):
            try:
                entries: list[dict[str, Any]] = self.files.ls(posixpath.join(self.root, folder), detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return ()
            return entries

    @contextmanager
    def open(self, path: str) -> Iterator[pq.ParquetFile]:
        """Open a parquet file; only what is asked of it is read."""
        import pyarrow.parquet as pq

        # Without a cache: read-ahead would download the audio that the footers and ids lie between.
        with (
            self.files.open(posixpath.join(self.root, path), "rb", cache_type="none") as handle,
            pq.ParquetFile(handle, metadata=self._footers.get(path), pre_buffer=True) as file,
        ):
            self._footers[path] = file.metadata
            yield file

    def batches(
        self, path: str, row_group: int, columns: Sequence[str], rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield a row group's ``columns``, ``rows`` rows at a time; holds one row group in memory at most."""
        with self.said("read", path), self.open(path) as file:
            yield from file.iter_batches(batch_size=rows, row_groups=[row_group], columns=list(columns))

    @contextmanager
    def said(self, verb: str, path: str) -> Iterator[None]:
        """Raise trouble with ``path`` in this block, the hub's or the disk's, as one DataError: "cannot read ..."."""
        import pyarrow as pa

        try:
            yield
        except DataError:
            raise
        except pa.ArrowInvalid as error:
            raise DataError(f"{path} of {self.name} is no readable parquet: {one_line(error)}") from error
        except Exception as error:
            if self.remote:
                raise DataError(
                    f"the hub stopped answering ({verb} {path}: {one_line(error)}); run the same again: "
                    "what has arrived is kept"
                ) from error
            if isinstance(error, OSError):
                raise DataError(f"cannot {verb} {path} of {self.name}: {one_line(error)}") from error
            raise
