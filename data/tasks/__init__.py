"""Registry of tasks, by the name that sweep files use; plug-ins add to it."""

from __future__ import annotations

from data.tasks.base import Task
from data.tasks.overlap import Overlap
from data.tasks.pseudo import Pseudo
from data.tasks.same_speaker import SameSpeaker
from data.tasks.speaker_change import SpeakerChange
from data.tasks.speaker_count import SpeakerCount

_SHIPPED: tuple[Task, ...] = (Pseudo(), Overlap(), SameSpeaker(), SpeakerChange(), SpeakerCount())
TASKS: dict[str, Task] = {task.name: task for task in _SHIPPED}
