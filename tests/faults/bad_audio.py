"""Audio files as disks, downloads and recorders leave them: how each is made, and what is said of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
NOISE = np.random.default_rng(0).integers(-3_000, 3_000, 4 * RATE, dtype=np.int16)
_REAL = (NOISE / 32_768).astype(np.float32)
Make = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """A file put at a path by `make`; `reason` is why it is set aside, "" where it is used."""

    name: str
    make: Make
    reason: str = ""
    file: str = "wav"  # the end of its name

    @property
    def used(self) -> bool:
        """Whether its audio is as good as any other."""
        return not self.reason


def written(samples: np.ndarray = NOISE, rate: int = RATE, **form: str) -> Make:
    """Return what writes samples, whatever the file is called."""
    form = {"format": "WAV", **form}
    return lambda path: soundfile.write(path, samples, rate, **form)


def cut(size: float, **form: str) -> Make:
    """Return what writes the first `size` bytes (or share) of a file; negative: all but so many."""

    def make(path: Path) -> None:
        written(**form)(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(size * len(content)) if isinstance(size, float) else size])

    return make


def patched(*places: tuple[int, bytes], **form: str) -> Make:
    """Return what writes a file with other bytes at some places."""

    def make(path: Path) -> None:
        written(**form)(path)
        content = bytearray(path.read_bytes())
        for at, new in places:
            at %= len(content)
            content[at : at + len(new)] = new
        path.write_bytes(content)

    return make


def _with(value: float) -> np.ndarray:
    samples = _REAL.astype(np.float64)
    samples[100] = value
    return samples


def _hours(path: Path) -> None:
    """A WAV of 70 minutes, 8 bits at 4 kHz, whose samples take no place on the disk."""
    written(np.zeros(1, np.int16), 4_000, subtype="PCM_U8")(path)
    frames = 70 * 60 * 4_000
    content = bytearray(path.read_bytes())[:44]
    content[4:8], content[40:44] = (frames + 36).to_bytes(4, "little"), frames.to_bytes(4, "little")
    path.write_bytes(content)
    os.truncate(path, 44 + frames)


def _int(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size, "little")


FLAC = {"format": "FLAC"}
# In FLAC the number of samples has 36 bits, from the last four of byte 21 on; the MD5 begins at byte 26.
CASES = (
    # cut off
    Case("WAV cut in its head", cut(20), "unreadable"),
    Case("WAV cut before its samples", cut(44), "truncated: 128000 bytes"),
    Case("WAV cut in the middle", cut(0.5), "truncated: 64022 bytes"),
    Case("WAV without its last byte", cut(-1), "truncated: 1 bytes"),
    Case("FLAC cut to 3 bytes", cut(3, **FLAC), "unreadable", "flac"),
    Case("FLAC cut after its head", cut(42, **FLAC), "unreadable", "flac"),
    Case("FLAC cut early", cut(1_000, **FLAC), "unreadable", "flac"),
    Case("FLAC cut in the middle", cut(0.5, **FLAC), "unreadable", "flac"),
    Case("FLAC without its last byte", cut(-1, **FLAC), "unreadable", "flac"),
    # bytes flipped
    Case("FLAC flipped early", patched((200, b"\xff\0\xff"), **FLAC), "unreadable", "flac"),
    Case("FLAC flipped in the middle", patched((50_000, b"\xff\0\xff"), **FLAC), "unreadable", "flac"),
    Case("FLAC flipped in its last sum", patched((-2, b"\x5a\xa5"), **FLAC), "unreadable", "flac"),
    Case("FLAC with another MD5", patched((26, 16 * b"\x11"), **FLAC), "", "flac"),  # its frames have sums
    Case("WAV flipped in its format", patched((20, b"\xfe")), "unreadable"),
    Case("WAV flipped in its samples", patched((1_000, b"\xff\x7f")), ""),  # nothing in a WAV can tell
    # claims
    Case("FLAC of 2^36 samples", patched((21, b"\xff\xff\xff\xff\xff"), **FLAC), "claims 68719476735 samples", "flac"),
    Case("FLAC of unknown length", patched((21, b"\xf0\0\0\0\0"), **FLAC), "claims", "flac"),
    Case("FLAC of twice its length", patched((22, (128_000).to_bytes(4, "big")), **FLAC), "unreadable", "flac"),
    Case("WAV of 1 GB", patched((40, _int(2**30))), "truncated"),
    Case("WAV from a pipe", patched((40, _int(0x7FFFFFF0))), ""),
    Case("WAV of no samples by its head", patched((40, _int(0))), "empty: it holds no samples"),
    Case("WAV of no channel", patched((22, _int(0, 2))), "unreadable"),
    Case("WAV of 65535 channels", patched((22, _int(65_535, 2))), "unreadable"),
    Case("WAV at 0 Hz", patched((24, _int(0))), "unreadable"),
    Case("WAV at 100 Hz", written(rate=100), "sample rate 100 Hz is outside 4000..384000 Hz"),
    Case("WAV at 1 MHz", written(rate=1_000_000), "sample rate 1000000 Hz"),
    Case("WAV of 70 minutes", _hours, "1.2 h long, and an utterance has 1 h at most"),
    # samples that are none
    Case("no byte", lambda path: path.write_bytes(b""), "empty: 0 bytes"),
    Case("no sample", written(NOISE[:0]), "empty: it holds no samples"),
    Case("one sample", written(NOISE[:1]), "silent"),
    Case("two samples", written(np.array([3_000, -3_000], np.int16)), ""),
    Case("silence", written(0 * NOISE), "silent: peak 0.0e+00 is below"),
    Case("silent FLAC", written(0 * NOISE, **FLAC), "silent", "flac"),
    Case("nearly silent", written(NOISE // 2_999), "silent: peak"),
    Case("opposite channels", written(np.stack([NOISE, -NOISE], 1)), "silent"),
    Case("stuck at full scale", written(np.full(RATE, 32_767, np.int16)), "around a constant 1.0000"),
    Case("clipped", written((np.sign(NOISE) * 32_767).astype(np.int16)), ""),
    Case("NaN", written(_with(np.nan), subtype="FLOAT"), "not finite (NaN or Inf)"),
    Case("inf", written(_with(np.inf), subtype="FLOAT"), "not finite"),
    Case("-inf in double", written(_with(-np.inf), subtype="DOUBLE"), "not finite"),
    Case("1e300 in double", written(_with(1e300), subtype="DOUBLE"), "not finite"),
    Case("integers as float", written(NOISE.astype(np.float32), subtype="FLOAT"), "out of range; float samples"),
    # other forms of the same
    Case("8 bits", written(subtype="PCM_U8")),
    Case("24 bits", written(subtype="PCM_24")),
    Case("double", written(_REAL, subtype="DOUBLE")),
    Case("mu law", written(subtype="ULAW")),
    Case("two channels", written(np.stack([NOISE, NOISE], 1))),
    Case("eight channels", written(np.stack(8 * [NOISE], 1))),
    Case("at 8 kHz by its head", written(rate=8_000)),
    Case("at 44.1 kHz", written(rate=44_100)),
    Case("MP3 called FLAC", written(format="MP3"), "", "flac"),
    Case("Ogg called FLAC", written(format="OGG", subtype="VORBIS"), "", "flac"),
    Case("WAV called FLAC", written(), "", "flac"),
    Case("in capitals", written(), "", "WAV"),
    # no audio at all
    Case("text", lambda path: path.write_text("this is no audio at all\n" * 50), "unreadable"),
    Case("folder", lambda path: path.mkdir(), "it is a folder, not a file"),
    Case("pipe", lambda path: os.mkfifo(path), "it is a pipe, not a file"),
    Case("device", lambda path: path.symlink_to("/dev/zero"), "it is a device, not a file"),
    Case("link to nothing", lambda path: path.symlink_to("nowhere.wav"), "unreadable: No such file"),
    Case("link to itself", lambda path: path.symlink_to(path.name), "unreadable: Too many levels of symbolic links"),
)  # fmt: skip
