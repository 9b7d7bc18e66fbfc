"""Recordings, pools and plans of tasks, without audio."""

from __future__ import annotations

from pathlib import Path

from data.audio.speech_activity import Speech
from data.corpora.base import Recording, Segment
from data.labels import LabelMap
from data.parts import Parts
from data.tasks import TASKS
from data.tasks.base import Draw, Pool
from data.tasks.diarization import DiarizationTask

DIARIZATION = {name: task for name, task in TASKS.items() if isinstance(task, DiarizationTask)}
SAME = Parts(train=("p",), val=("p",), test=("p",))
DRAW = Draw({"train": 60, "val": 24, "test": 24}, seed=0, speakers=None)
NO_LABELS = LabelMap({}, "rank")


def utterance(speaker, chapter, number, seconds=8.0, part="p"):
    samples = round(seconds * 16_000)
    name = f"{speaker}-{chapter}-{number}"
    segment = Segment(0.0, seconds, speaker)
    sex = {speaker: "FM"[int(speaker) % 2]}
    return Recording(name, Path(name), part, chapter, samples, 16_000, (segment,), sex)


def meeting(name, segments, seconds=60.0, part="p"):
    return Recording(
        name, Path(name), part, name, round(seconds * 16_000), 16_000,
        tuple(Segment(*s) for s in segments), {}, conversation=True, group=name[:6],
    )  # fmt: skip


def read_speech(speakers=24, chapters=2, utterances=2):
    return tuple(
        utterance(str(100 + s), f"{s}{c}", u)
        for s in range(speakers)
        for c in range(chapters)
        for u in range(utterances)
    )


def spoken(recordings, level=-30.0):
    """Speech everywhere but in the middle second."""
    return {
        r.key: Speech(((0, r.num_samples // 2 - 8_000), (r.num_samples // 2 + 8_000, r.num_samples)), level)
        for r in recordings
    }


def pool_of(recordings, speech=None):
    known = spoken(recordings) if speech is None else speech
    return Pool("s", ("s",), {"s": SAME}, {"p": recordings}, known)


def plan(task, pool=None, draw=DRAW):
    return task.plan(pool or pool_of(read_speech()), "default", draw, NO_LABELS)
