"""The trials that an ensemble is asked of: found by number, name or run id, and held against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from data.errors import nearest
from harness.config.trial.trial_config import TrialConfig
from harness.core.errors import InputError
from harness.study.storage.record import Record
from harness.study.study import Study, load_study, study_names
from harness.study.trials import TrialSummary
from harness.tracking.experiment import Tracking
from harness.tracking.run_files import trial_of_run

WEIGHTS, ONNX = "model/weights.pt", "model/model.onnx"


class EnsembleError(InputError):
    """Members that cannot be found, or that do not go together; the message says why."""


def study_of_members(record: Record, words: Sequence[str], study: str | None) -> Study:
    """The study that an ensemble belongs to: the one named, the only one, or the one whose trials are named.

    Raises
    ------
    EnsembleError
        Several studies, and nothing tells which is meant.
    """
    names = study_names(record)
    if study is not None or len(names) == 1:
        return load_study(record, study if study is not None else names[0])
    loaded = [load_study(record, name) for name in names]
    named = [one for one in loaded if any(trial.name in words for trial in one.trials())]
    if len(named) != 1:
        shown = ", ".join(one.name for one in named or loaded)
        raise EnsembleError(f"{' '.join(words)}: trials of which study? Say --study, one of {shown}")
    return named[0]


def find_members(study: Study, words: Sequence[str], tracking: Callable[[], Tracking]) -> list[TrialSummary]:
    """The complete trials of these numbers, names or run ids, by their number: the order given means nothing.

    `tracking` connects to MLflow, which only a run id needs.

    Raises
    ------
    EnsembleError
        Unknown, named twice, not complete, without a model, or fewer than two.
    StudyError
        The study has no run of this id.
    """
    trials = {trial.number: trial for trial in study.trials()}
    found = [_find(study, word, trials, tracking) for word in words]
    numbers = sorted({trial.number for trial in found})
    if len(numbers) < len(words):
        twice = sorted({one.number for one in found if found.count(one) > 1})
        raise EnsembleError(f"trial {twice[0]} is named twice: a member votes once")
    if len(numbers) < 2:
        raise EnsembleError("an ensemble needs two members or more; promote a single trial as it is")
    return [trials[number] for number in numbers]


def _find(
    study: Study, word: str, trials: Mapping[int, TrialSummary], tracking: Callable[[], Tracking]
) -> TrialSummary:
    named = [trial for trial in trials.values() if trial.name == word]
    if named:
        trial = named[0]
    else:
        number = int(word) if word.isdecimal() else int(_number_of_run(study, word, tracking))
        if number not in trials:
            raise EnsembleError(f"study {study.name} has no trial {number}; it has 0 to {len(trials) - 1}")
        trial = trials[number]
    if trial.state != "complete":
        raise EnsembleError(
            f"trial {trial.number} is {trial.state} ({trial.reason or 'no reason'}), not complete"
        )
    if not {WEIGHTS, ONNX} <= set(trial.outcome.get("sha256", {})):
        raise EnsembleError(f"trial {trial.number} of {study.name} kept no model: it cannot be a member")
    return trial


def _number_of_run(study: Study, word: str, tracking: Callable[[], Tracking]) -> str:
    if not (len(word) == 32 and word.isalnum()):
        near = nearest(word, [trial.name for trial in study.trials()])
        hint = f"did you mean {near!r}?" if near else f"see: harness status {study.name}"
        raise EnsembleError(f"study {study.name} has no trial called {word!r}; {hint}")
    return trial_of_run(tracking(), word)


def require_alike(study: Study, members: Sequence[TrialSummary]) -> None:
    """Refuse members that answer different questions, or were judged on different windows.

    Raises
    ------
    EnsembleError
        What differs, with both values.
    """
    rows = []
    for member in members:
        data = TrialConfig.from_record(member.config).data
        digests = study.manifests_of(data.digest())
        rows.append(
            {
                "task": f"{data.task} / {data.variant}",
                "validation windows": f"digest {digests['val'][:12]}",
                "test windows": f"digest {digests['test'][:12]}",
            }
        )
    for what in rows[0]:
        refuse_different(what, [(member.label, row[what]) for member, row in zip(members, rows, strict=True)])


def refuse_different(what: str, values: Sequence[tuple[str, str]]) -> None:
    """Raise EnsembleError where the named values are not all the same; the first two that differ are shown."""
    first = values[0]
    for other in values[1:]:
        if other[1] != first[1]:
            raise EnsembleError(
                f"the members do not go together: {what}: {first[0]} has {first[1]}, {other[0]} has {other[1]}; "
                "average trials of one question only"
            )
