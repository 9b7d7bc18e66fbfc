"""Writes folders in AMI's layout, and the hub's parquet of them, with generated voices.

A plain module, so that any test can import it: ``from tests.data.meetings import write_ami``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from data.corpora.ami.partition import group_of
from data.corpora.demo.voices import BINS_HZ, make_voice, speak

RATE = 16_000
# All three parts agree with the official partition; two series train.
MEETINGS: Mapping[str, Sequence[str]] = {
    "train": ("EN2001a", "EN2001b", "ES2002a"),
    "dev": ("ES2011a", "ES2011b"),
    "test": ("EN2002a",),
}
Turn = tuple[float, float, str]
SCHEMA = pa.schema(
    [
        ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("timestamps_start", pa.list_(pa.float64())),
        ("timestamps_end", pa.list_(pa.float64())),
        ("speakers", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True)
class Files:
    """Where the files of one meeting lie in a folder of AMI."""

    root: Path
    meeting: str
    part: str

    @property
    def audio(self) -> Path:
        return self.root / f"amicorpus/{self.meeting}/audio/{self.meeting}.Mix-Headset.wav"

    @property
    def rttm(self) -> Path:
        return self.root / f"only_words/rttms/{self.part}/{self.meeting}.rttm"

    @property
    def uem(self) -> Path:
        return self.root / f"uems/{self.part}/{self.meeting}.uem"

    @property
    def turns(self) -> list[Turn]:
        rows = [line.split() for line in self.rttm.read_text().splitlines()]
        return [(float(row[3]), float(row[3]) + float(row[4]), row[7]) for row in rows]


def write_ami(
    root: Path,
    meetings: Mapping[str, Sequence[str]] = MEETINGS,
    *,
    seconds: float = 30.0,
    speakers: int = 4,
    seed: int = 0,
    voices: bool = True,
) -> Path:
    """Write ``root/amicorpus`` and its references; a series of meetings (EN2001a, EN2001b) shares its speakers.

    Turns of 0.6-4 s follow each other, about one in three before the last has ended, with pauses and
    at times a backchannel. ``voices=False`` gives each speaker noise of a colour of their own: faster.
    """
    for part, names in meetings.items():
        for meeting in names:
            files = Files(root, meeting, part)
            for path in (files.audio, files.rttm, files.uem):
                path.parent.mkdir(parents=True, exist_ok=True)
            turns = draw_turns(_rng(seed, "turns", meeting), speaker_ids(meeting, speakers, seed), seconds)
            soundfile.write(files.audio, _mix(turns, seconds, seed, meeting, voices), RATE, subtype="PCM_16")
            write_rttm(files.rttm, meeting, turns)
            files.uem.write_text(f"{meeting} 1 0.000 {seconds:.3f}\n")
        (root / "lists").mkdir(parents=True, exist_ok=True)
        (root / f"lists/{part}.meetings.txt").write_text("".join(f"{name}\n" for name in names))
    return root


def write_rttm(path: Path, meeting: str, turns: Sequence[Turn]) -> None:
    """Write turns as AMI's references have them."""
    lines = [
        f"SPEAKER {meeting} 1 {start:.3f} {end - start:.3f} <NA> <NA> {name} <NA> <NA>\n"
        for start, end, name in turns
    ]
    path.write_text("".join(lines))


def speaker_ids(meeting: str, speakers: int = 4, seed: int = 0) -> list[str]:
    """Return ids like AMI's, half F and half M, the same for all meetings of a series, unique among series."""
    first = int(hashlib.sha256(f"{seed} {group_of(meeting)}".encode()).hexdigest(), 16) % 10**9
    return [f"{'FM'[index % 2]}EE{index:03d}x{first:09d}" for index in range(speakers)]


def draw_turns(rng: np.random.Generator, names: Sequence[str], seconds: float) -> list[Turn]:
    """Return who speaks when: every speaker's own turns are disjoint."""
    turns: list[Turn] = []
    free_s = dict.fromkeys(names, 0.0)
    at_s, last = float(rng.uniform(0, 0.5)), ""
    while at_s < seconds - 0.7:
        ready = [name for name in names if name != last and free_s[name] <= at_s] or [
            min(names, key=free_s.__getitem__)
        ]
        last = ready[int(rng.integers(len(ready)))]
        start = max(at_s, free_s[last])
        end = min(seconds, start + float(rng.uniform(0.6, 4.0)))
        if end - start < 0.1:
            break
        turns.append((round(start, 2), round(end, 2), last))
        free_s[last] = end + 0.2
        overlaps = len(names) > 1 and rng.random() < 0.35
        at_s = (
            end - float(rng.uniform(0.3, 0.6 * (end - start) + 0.3))
            if overlaps
            else end + float(rng.uniform(0, 0.8))
        )
        at_s = max(at_s, start)
    return sorted(turns)


def _mix(turns: Sequence[Turn], seconds: float, seed: int, meeting: str, voices: bool) -> np.ndarray:
    audio = 0.002 * _rng(seed, "room", meeting).normal(0, 1, int(seconds * RATE))
    flat = np.ones(len(BINS_HZ))
    for number, (start, end, name) in enumerate(turns):
        first, count = int(start * RATE), int(end * RATE) - int(start * RATE)
        rng = _rng(seed, "turn", meeting, str(number))
        if voices:
            sound = speak(make_voice(_rng(seed, "voice", name), name[0]), count, rng, flat)
        else:
            share = _rng(seed, "voice", name).uniform(0.2, 0.9)
            white = rng.normal(0, 1, count + 1)
            sound = white[1:] - share * white[:-1]
        sound = sound[: len(audio) - first]
        audio[first : first + len(sound)] += 0.08 * sound / (np.sqrt(np.mean(sound**2)) + 1e-9)
    return np.clip(audio, -1, 1)


def _rng(seed: int, *purpose: str) -> np.random.Generator:
    digest = hashlib.sha256("\x1f".join([str(seed), *purpose]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def hub_row(audio: bytes | None, path: str | None, turns: Sequence[Turn]) -> dict[str, object]:
    """Return one meeting as a row of the hub's data set."""
    return {
        "audio": {"bytes": audio, "path": path},
        "timestamps_start": [start for start, _, _ in turns],
        "timestamps_end": [end for _, end, _ in turns],
        "speakers": [name for _, _, name in turns],
    }


def write_parquet(path: Path, rows: Sequence[Mapping[str, object]], rows_a_group: int = 100) -> None:
    """Write rows as recent versions of `datasets` do: uncompressed, no dictionary, a page for each meeting."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA),
        path,
        row_group_size=rows_a_group,
        compression="none",
        use_dictionary=False,
        use_content_defined_chunking=True,
    )


def write_hub(
    ami: Path,
    target: Path,
    meetings: Mapping[str, Sequence[str]] = MEETINGS,
    place: str = "{config}/{split}-{shard}",
) -> Path:
    """Write the meetings of a folder of AMI as the hub's parquet, two meetings a file."""
    for part, names in meetings.items():
        split = {"dev": "validation"}.get(part, part)
        shards = [names[at : at + 2] for at in range(0, len(names), 2)]
        for number, shard in enumerate(shards):
            files = [Files(ami, meeting, part) for meeting in shard]
            rows = [hub_row(f.audio.read_bytes(), f.audio.name, f.turns) for f in files]
            name = place.format(config="ihm", split=split, shard=f"{number:05d}-of-{len(shards):05d}")
            write_parquet(target / f"{name}.parquet", rows)
    return target
