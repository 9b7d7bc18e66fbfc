"""Registry of tasks."""

from __future__ import annotations

from data.tasks.base import Task
from data.tasks.pseudo import Pseudo

TASKS: dict[str, Task] = {task.name: task for task in (Pseudo(),)}
