"""Where the parts of openslr/librispeech_asr are: on the hub, and in folders that hold its parquet files."""

from __future__ import annotations

import re
from pathlib import Path

from data.corpora.base import Request
from data.corpora.hub import ParquetFile, ParquetSource
from data.errors import LOOSE, DataError, listed, nearest

REPO = "openslr/librispeech_asr"
# A commit whose main branch holds parquet, in all/<part>/0000.parquet and so on.
REVISION = "71cacbfb7e2354c4226d01e70d77d5fca3d04ba1"
_SPLITS = {
    "train.clean.100": "clean/train.100",
    "train.clean.360": "clean/train.360",
    "train.other.500": "other/train.500",
    "validation.clean": "clean/validation",
    "validation.other": "other/validation",
    "test.clean": "clean/test",
    "test.other": "other/test",
}
PARTS = tuple(_SPLITS)
_SHARD = re.compile(r"-(\d+)-of-(\d+)\.parquet$")
_ADVICE = (
    "pass --data-root DIR, a folder with its parquet files in the hub's layout (DIR/all/<part>/*.parquet), or set "
    "corpus: librispeech and give a folder in the OpenSLR layout"
)


def find_source(request: Request) -> ParquetSource:
    """Return the data root where it holds parquet of this corpus, else the hub.

    A root without may be there for other corpora; one whose parts are named almost right is no reason
    to download.
    """
    root = request.data_root
    if root is None:
        return ParquetSource.on_hub(REPO, request.revision or REVISION, _ADVICE)
    if not root.is_dir():
        raise DataError(f"data root {root} is not a folder; {_ADVICE}, or leave it out to read the hub")
    folder = ParquetSource.in_folder(root)
    there = _there(folder)
    if any(name in request.parts or "clean" in name or "other" in name for name in there):
        return folder
    advice = f"and data root {root} holds no parquet of it ({listed(there) or 'none at all'}): {_ADVICE}"
    return ParquetSource.on_hub(REPO, request.revision or REVISION, advice)


def _places(part: str) -> list[tuple[str, str]]:
    """Return the folders and file names that ``part`` may have, the hub's own first."""
    split = [(_SPLITS[part], "*.parquet")] if part in _SPLITS else []
    return [(f"all/{part}", "*.parquet"), (part, "*.parquet"), *split, ("data", f"{part}-*-of-*.parquet")]


def find_files(source: ParquetSource, part: str) -> list[ParquetFile]:
    """Return the files of ``part`` in the first layout that has any; DataError where any is missing."""
    files = next(filter(None, (source.parquet(*place) for place in _places(part))), [])
    if not files:
        raise DataError(_missing_text(source, part))
    numbers = [(int(m[1]), int(m[2])) for file in files if (m := _SHARD.search(file.path))]
    if numbers and len(numbers) < numbers[0][1]:
        absent = sorted(set(range(numbers[0][1])) - {number for number, _ in numbers})
        raise DataError(
            f"{part} of {source.name} has {len(numbers)} of {numbers[0][1]} files; number "
            f"{listed(map(str, absent), 5)} is missing: download it again, or speakers would not be whole"
        )
    return files


def _there(source: ParquetSource) -> list[str]:
    """Return the parts that a source holds, whatever their names, sorted."""
    own = {part for part, split in _SPLITS.items() if source.parquet(split)}
    plain = {name for name in source.folders() if source.parquet(name)}
    of_all = {name for name in source.folders("all") if source.parquet(f"all/{name}")}
    data = {_SHARD.sub("", Path(file.path).name) for file in source.parquet("data", "*-of-*.parquet")}
    return sorted(own | (plain - {"data"}) | of_all | data)


def _missing_text(source: ParquetSource, part: str) -> str:
    there = _there(source)
    guess = nearest(part, there, LOOSE)
    hint = f"; did you mean {guess!r}?" if guess else "."
    return (
        f"{source.name} has no part {part} in parquet (it holds: {listed(there) or 'none'}){hint} "
        f"A part is looked for in {listed('/'.join(place) for place in _places(part))}"
    )
