"""A corpus in one file: a folder of ``<speaker>_<session>_<number>.wav``, one part, from the data root."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data.audio.decode import read_header
from data.corpora import CORPORA
from data.corpora.base import Corpus, FileStamp, LostRecording, Recording, Request, Scan, Segment, stamp_of
from data.errors import AudioError, DataError
from data.parts import Parts

PART = "all"


class WavFolderReader:
    """Reads; changes nothing."""

    def locate(self, request: Request) -> Path:
        """Return the data root."""
        if request.data_root is None or not request.data_root.is_dir():
            raise DataError(
                f"wav_folder is read from --data-root, which is {request.data_root}: give a folder"
            )
        return request.data_root

    def listing(self, root: Path, parts: Sequence[str]) -> list[FileStamp]:
        """Return the files, sorted, without opening them."""
        return sorted(stamp_of(path, root) for path in root.glob("*.wav"))

    def scan(self, root: Path, files: Sequence[FileStamp]) -> Scan:
        """Read the headers; what is misnamed or unreadable is lost, with the reason."""
        found, lost = [], []
        for stamp in files:
            try:
                found.append(_recording(root / stamp.path))
            except AudioError as error:
                lost.append(LostRecording(stamp.path, str(error)))
        return Scan({PART: tuple(found)}, tuple(lost))


def _recording(path: Path) -> Recording:
    if path.stem.count("_") != 2:
        raise AudioError("is not called <speaker>_<session>_<number>.wav")
    speaker, session, _ = path.stem.split("_")
    header = read_header(path)
    spoken = (Segment(0.0, header.frames / header.sample_rate, speaker),)
    return Recording(path.stem, path, PART, session, header.num_samples, header.sample_rate, spoken)


_SUBSETS = {"voices": Parts(train=(PART,), val=(PART,), test=(PART,))}
CORPORA["wav_folder"] = Corpus("wav_folder", "a folder of WAVs", _SUBSETS, f"{__name__}:WavFolderReader")
