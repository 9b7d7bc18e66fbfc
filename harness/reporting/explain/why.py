"""`harness why`: what became of a trial, and why, from Optuna's journal alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from data.errors import nearest
from harness.config.control_configs import CONTROLS, control_config
from harness.config.trial.trial_config import ControlName
from harness.reporting.explain.promotion_status import baseline_promotion_status, promotion_status
from harness.reporting.explain.pruning import pruning_reason, pruning_sentence
from harness.study.choose_trial import available_subjects
from harness.study.controls import controls_of
from harness.study.decisions import Decision
from harness.study.ensembles import EnsembleSummary, ensembles_of
from harness.study.storage.record import Record
from harness.study.study import Study, StudyError
from harness.study.trials import TrialSummary

# Last lines of a traceback that are shown.
LINES = 6
BASELINE = "baseline"


@dataclass(frozen=True)
class Explanation:
    """What became of a trial.

    Attributes
    ----------
    trial : what messages call it: `trial 3`, `ensemble top2`, `control unseen`, `baseline`
    state : of a trial as the study has it; of a control its verdict, where it has one; `absent`: was not asked for
    why : one sentence
    details : lines that say more
    decisions : those of promotions on it, oldest first
    """

    study: str
    trial: str
    state: str
    why: str
    details: tuple[str, ...] = ()
    decisions: tuple[Decision, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The fields that `--json` prints."""
        return {
            "study": self.study,
            "trial": self.trial,
            "state": self.state,
            "why": self.why,
            "details": list(self.details),
            "decisions": [one.as_json() for one in self.decisions],
        }

    def lines(self) -> list[str]:
        """The sentence, then the details that say more, each indented."""
        return [self.why, *(f"  {line}" for line in self.details if line != self.why)]


def explain_trial(record: Record, study: Study, word: str, *, is_run: bool) -> Explanation:
    """Answer for a trial's number or run name, an ensemble's name, a control's, or `baseline`.

    Parameters
    ----------
    is_run : whether a launch runs the study now; else a running trial was interrupted

    Raises
    ------
    StudyError
        The study has nothing of this name; the nearest is named.
    """
    trials = study.trials()
    number = int(word) if word.isdecimal() and int(word) < len(trials) else None
    number = next((one.number for one in trials if one.name == word), number)
    if number is not None:
        return _of_trial(record, study, trials[number], is_run=is_run)
    ensembles = {one.name: one for one in ensembles_of(study)}
    if word in ensembles:
        return _of_complete(study, ensembles[word])
    for control in CONTROLS:
        if word == control:
            return _of_control(study, control, is_run=is_run)
    if word == BASELINE:
        return _of_baseline(record, study, is_run=is_run)
    near = nearest(word, [*ensembles, *CONTROLS, BASELINE])
    if word.isdecimal():
        hint = f"the nearest is {len(trials) - 1}; " if trials else ""
    else:
        hint = f"did you mean {near}? " if near else ""
    controls = f"its controls are called {' and '.join(CONTROLS)}"
    raise StudyError(
        f"study {study.name} has no trial {word!r}; {hint}{available_subjects(study)}; {controls}"
    )


def _of_trial(record: Record, study: Study, trial: TrialSummary, *, is_run: bool) -> Explanation:
    if trial.state == "complete":
        return _of_complete(study, trial)
    explain = {
        "pruned": lambda: _pruned(record, study, trial),
        "failed": lambda: _failed(study, trial),
        "duplicate": lambda: _duplicate(study, trial),
        "skipped": lambda: _skipped(trial),
        "abandoned": lambda: _abandoned(trial),
    }
    if trial.state in explain:
        sentence, details = explain[trial.state]()
        return Explanation(study.name, trial.label, trial.state, sentence, tuple(details))
    state = "running" if trial.state == "running" and is_run else "interrupted"
    sentence, details = _unfinished(study, trial, state)
    return Explanation(study.name, trial.label, state, sentence, tuple(details))


def _of_complete(study: Study, subject: TrialSummary | EnsembleSummary) -> Explanation:
    found = promotion_status(study, subject)
    return Explanation(study.name, subject.label, "complete", found.why, found.details, found.decisions)


def _pruned(record: Record, study: Study, trial: TrialSummary) -> tuple[str, list[str]]:
    found = pruning_reason(record, study, trial.number)
    planned = trial.config.get("training", {}).get("epochs")
    far = f"{trial.epochs} of {planned} epochs" if planned else f"{trial.epochs} epochs"
    score = f", score until then {trial.score:.3f}" if trial.score is not None else ""
    if found is None:
        return f"{trial.label} was pruned: {trial.reason or 'no reason recorded'}", [f"trained {far}{score}"]
    sentence = (
        f"{trial.label} was pruned by the {found.rule} rule at epoch {found.epoch}: its smoothed validation score, "
        f"{found.value:.3f}, was below {found.bound:.3f}"
    )
    place = f"it ranked {found.rank} of {found.compared + 1} there"
    return sentence, [
        pruning_sentence(study.sweep.pruner, found),
        f"{place}; trained {far}{score}",
        _parameters(study, trial),
    ]


def _failed(study: Study, trial: TrialSummary) -> tuple[str, list[str]]:
    kind, _, reason = trial.reason.partition(": ")
    attributes = _attributes(study, trial)
    details = [f"kind: {kind}"] if reason else []
    if retries := attributes.get("retries"):
        details.append(
            f"its worker was lost and it went on from its checkpoint, {retries} times in its last launch"
        )
    if traceback := str(attributes.get("traceback", "")).rstrip():
        details += ["the traceback ends:", *(f"  {line}" for line in traceback.splitlines()[-LINES:])]
        details.append(
            f"the whole of it: artifact traceback.txt of run {trial.name!r}, experiment {study.name} "
            "(harness ui)"
        )
    details.append(_parameters(study, trial))
    return f"{trial.label} failed: {trial.reason or 'no reason recorded'}", details


def _duplicate(study: Study, trial: TrialSummary) -> tuple[str, list[str]]:
    first = study.trial(int(_attributes(study, trial)["duplicate_of"]))
    scored = f" and scored {first.score:.3f}" if first.score is not None else ""
    sentence = (
        f"{trial.label} was not trained: it is the same configuration as {first.label}, which is "
        f"{first.state}{scored}"
    )
    return sentence, [
        f"both have the fingerprint {first.fingerprint[:16]}: {first.name}",
        f"it cost no budget; for {first.label}: harness why {study.name} {first.number}",
    ]


def _skipped(trial: TrialSummary) -> tuple[str, list[str]]:
    return f"{trial.label} was skipped: {trial.reason}", [
        "this machine could not compute its front end; it cost no budget, and a launch that can will ask again"
    ]


def _abandoned(trial: TrialSummary) -> tuple[str, list[str]]:
    return f"{trial.label} was asked for and never started: its launch ended first", [
        "it cost no budget; the next launch asks for others"
    ]


def _unfinished(study: Study, trial: TrialSummary, state: str) -> tuple[str, list[str]]:
    if not trial.fingerprint:
        return f"{trial.label} was asked for and has not started", [
            "the next launch gives it up, or starts it"
        ]
    planned = trial.config.get("training", {}).get("epochs", "?")
    done = f"{trial.epochs} of {planned} epochs are done"
    if state == "running":
        return f"{trial.label} is running: {done}", [_parameters(study, trial)]
    return f"{trial.label} was interrupted: {done}", [
        "the next launch goes on with it, from its checkpoint, before it asks for new trials",
        _parameters(study, trial),
    ]


def _of_control(study: Study, name: ControlName, *, is_run: bool) -> Explanation:
    found = [one for one in controls_of(study) if one.name == name]
    label = f"control {name}"
    if found and found[0].judgement is not None:
        means = {
            "sound": "chance cannot be excluded, as it must be: nothing leaks that this control can see",
            "broken": "a quality guard of every promotion fails on it",
            "uninformative": "it says nothing for or against the study",
        }
        return Explanation(study.name, label, found[0].verdict, str(found[0]), (means[found[0].verdict],))
    asked = name in study.sweep.controls
    again = ("the next launch trains it again",) if asked else ("the sweep does not ask for it any more",)
    if found:
        return Explanation(study.name, label, "failed", str(found[0]), again)
    if not asked:
        sentence = f"{label} was not trained: the sweep does not ask for it"
        return Explanation(study.name, label, "absent", sentence, (f"add it: controls: [{name}]",))
    state = "running" if is_run else "interrupted"
    epochs = control_config(study.space, name).training.epochs
    when = (
        "the launch trains it before the trials" if is_run else "the next launch trains it before the trials"
    )
    return Explanation(study.name, label, state, f"{label} has not ended yet", (f"{when}, {epochs} epochs",))


def _of_baseline(record: Record, study: Study, *, is_run: bool) -> Explanation:
    from harness.study.confirmation.conclusion import confirmation_of, confirmation_progress
    from harness.study.confirmation.definition import definition_of

    definition, confirmation = definition_of(study), confirmation_of(study)
    if definition is None:
        sentence = "the baseline was not trained on fresh seeds: nobody has confirmed this study"
        again = f"train it, and the best trials: harness confirm {study.name}"
        return Explanation(study.name, BASELINE, "absent", sentence, (again,))
    arm = next(arm for arm in definition.arms if arm.is_baseline)
    if arm.trial is not None:
        return _of_trial(record, study, study.trial(arm.trial), is_run=is_run)
    if confirmation is None:
        sentence = "the baseline was not promoted: the confirmation that it stands in has no winner"
        return Explanation(study.name, BASELINE, "interrupted", sentence, tuple(confirmation_progress(study)))
    found = baseline_promotion_status(study, confirmation)
    state = "complete" if confirmation.baseline.ranked else "failed"
    return Explanation(study.name, BASELINE, state, found.why, found.details, found.decisions)


def _parameters(study: Study, trial: TrialSummary) -> str:
    searched = [
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name in study.space.searched
        if (value := trial.values.get(name)) is not None
    ]
    return f"parameters: {', '.join(searched) or 'none is searched'}"


def _attributes(study: Study, trial: TrialSummary) -> dict[str, Any]:
    return study.optuna_study.get_trials(deepcopy=False)[trial.number].user_attrs
