"""Several trainings at once, as one network: `fit` for members that differ in rate, weight decay and seed.

Each member has what it has alone, within the rounding of other kernels: its order of windows, augmentation and
dropout, its schedule, its metrics, its end, and a checkpoint that `fit` goes on from, as this goes on from `fit`'s.

::

    epoch     steps of all  ->  scores of all  ->  on_epoch of each  ->  checkpoints of all
                   |                                   |
                   '-- a loss is not finite            '-- pruned        its member leaves, the stack is packed anew

Members of one seed see one order, one augmentation and one mask of dropout: they are drawn once, by a `_Stream`.
Members that a kill left at different places train in stacks of their own, one after the other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.config.trial.training_config import PER_MEMBER_FIELDS, TrainingConfig
from harness.core.seeds import epoch_seed
from harness.training.checkpoint import CHECKPOINT_S, CheckpointError, Checkpoints, due_after
from harness.training.fit import DivergedError, InterruptedTraining, Training, Transform
from harness.training.stacking.stacked_learner import StackedLearner
from harness.training.state import (
    EpochPosition,
    EpochReport,
    FitResult,
    TrainingProgress,
    fit_result,
    require_finite,
)
from harness.training.window_split import Split, cache_on_gpu
from models.augmentation import Augmentation, EpochAugmentation
from models.networks.random_draws import new_generators, using_generators
from models.networks.stacked import StackError

_log = logging.getLogger(__name__)

Outcome = FitResult | DivergedError | CheckpointError


@dataclass(frozen=True)
class Member:
    """What differs between the trainings of a stack; each field is as in `fit`, and there is `on_end`.

    on_end : hears how this member ended (its result, or the error that `fit` would raise) as soon as it has, while the
        others wait; by then its weights are back in `model`
    """

    model: nn.Module
    config: TrainingConfig
    seed: int
    on_epoch: Callable[[EpochReport], bool] = lambda report: False
    checkpoints: Path | None = None
    on_restart: Callable[[str], None] = _log.warning
    on_end: Callable[[Outcome], None] = lambda outcome: None


def fit_stack(
    members: Sequence[Member],
    train: Split,
    val: Split,
    *,
    device: torch.device,
    transform: Transform | None = None,
    augmentation: Augmentation | None = None,
    checkpoint_s: float = CHECKPOINT_S,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Outcome]:
    """Train the members' models, in place; what `fit` returns, or raises, for each alone, in the members' order.

    The models stay on the device that they are on. ``windows_per_s`` is a member's own rate, while all train.
    Parameters as in `fit`.

    Raises
    ------
    StackError
        The members' configurations differ in more than `PER_MEMBER_FIELDS`, or their networks do.
    SplitError
        `augmentation` wants waveforms and `train` holds features.
    """
    _require_alike(members)
    train, val = cache_on_gpu(train, device), cache_on_gpu(val, device)
    outcomes: dict[int, Outcome] = {}
    places: dict[tuple[int, int], list[_Running]] = {}
    for number, member in enumerate(members):
        training = Training(
            member.model, train, val, member.config, member.seed, device, transform, augmentation, should_stop
        )
        kept = Checkpoints(member.checkpoints, checkpoint_s)
        try:
            progress, begun = training.resume(kept, member.on_restart)
        except CheckpointError as error:
            outcomes[number] = error
            member.on_end(error)
            continue
        place = (len(progress.reports), int(begun["step"]) if begun else 0)
        places.setdefault(place, []).append(_Running(number, member, training, kept, progress, begun))
    for place in sorted(places):
        outcomes |= _Stack(places[place], *place).run()
    return [outcomes[number] for number in range(len(members))]


def _require_alike(members: Sequence[Member]) -> None:
    shared = [one.config.model_dump(exclude=set(PER_MEMBER_FIELDS)) for one in members]
    for other in shared[1:]:
        differing = sorted(name for name, value in shared[0].items() if other[name] != value)
        if differing:
            raise StackError(f"the trainings of a stack may not differ in {', '.join(differing)}")


@dataclass
class _Running:
    """A member that trains; `begun` is its checkpoint's place until the epoch is begun again."""

    number: int
    member: Member
    training: Training
    kept: Checkpoints
    progress: TrainingProgress
    begun: dict[str, Any] | None
    place: EpochPosition | None = None

    @property
    def at(self) -> EpochPosition:
        assert self.place is not None, "the epoch is not begun"
        return self.place

    def write(self, place: EpochPosition | None) -> None:
        self.kept.write(self.training.content(self.progress, place))

    def result(self, stopped: Any = "") -> FitResult:
        return fit_result(self.progress, self.training.scored, stopped)


@dataclass
class _Stream:
    """What members of one seed have in common in an epoch: the order of the windows, and what is drawn for them."""

    steps: list[torch.Generator]
    order: torch.Tensor
    augmented: EpochAugmentation | None
    generators: Mapping[str, torch.Generator]


class _Stack:
    """Members at one place, and the network that they are computed as."""

    def __init__(self, running: list[_Running], epochs: int, steps: int) -> None:
        self.running, self.first_epoch = running, epochs
        self.shared = running[0].training  # for what all have in common
        taken = epochs * self.shared.steps + steps
        self.learner = StackedLearner([one.training.learner for one in running], taken)
        self.streams: dict[int, _Stream] = {}
        self.losses = self.rates = torch.empty(0)
        self.outcomes: dict[int, Outcome] = {}

    def run(self) -> dict[int, Outcome]:
        """Train until every member has ended; its outcome by its number."""
        for epoch in range(self.first_epoch, self.shared.config.epochs):
            self.begin(epoch)
            try:
                for _ in self.steps_of(epoch):
                    if any(one.kept.due for one in self.running):
                        self.write(within=True)
                if self.running:
                    self.hear(epoch, *self.evaluate_epoch(epoch))
            except InterruptedTraining:
                self.write(within=True)
                self.leave({position: one.result("interrupted") for position, one in enumerate(self.running)})
            if not self.running:
                return self.outcomes
        self.leave({position: one.result() for position, one in enumerate(self.running)})
        return self.outcomes

    def begin(self, epoch: int) -> None:
        """Draw what the members of each seed have in common, and take every member to its place."""
        shared, self.streams = self.shared, {}
        self.losses = torch.zeros(len(self.running), shared.steps, device=shared.device)
        for one, losses in zip(self.running, self.losses, strict=True):
            seed = one.training.seed
            if seed not in self.streams:
                own = new_generators(shared.device)
                place, augmented = one.training.begin(epoch, None, own)
                self.streams[seed] = _Stream(own, one.training.order(epoch), augmented, place.generators)
            one.place = EpochPosition(epoch, losses, self.streams[seed].generators)
            if one.begun is not None:
                one.place.load_state_dict(one.begun)
            one.begun = None
        self.rates = self.learner.rates(epoch * shared.steps, shared.steps)
        self._bind()

    def _bind(self) -> None:
        """Tell the network whose draws are whose."""
        seeds = [one.training.seed for one in self.running]
        self.streams = {seed: self.streams[seed] for seed in dict.fromkeys(seeds)}
        self.stream_of = [list(self.streams).index(seed) for seed in seeds]
        self.learner.model.draw_from([stream.steps for stream in self.streams.values()], self.stream_of)

    def steps_of(self, epoch: int) -> Iterator[None]:
        """Take the steps that are left of an epoch, and pause before each; members that diverge leave."""
        shared = self.shared
        self.learner.model.train()
        for step in range(self.running[0].at.step, shared.steps):
            if shared.should_stop():
                raise InterruptedTraining
            yield
            start = time.perf_counter()
            features, labels = self.batch(step * shared.batch)
            self.losses[:, step] = self.learner.step(features, labels, self.rates[step])
            diverged = self.diverged(step, step + 1) if shared.device.type == "cpu" else {}
            for one in self.running:
                one.at.step = step + 1
                one.at.seconds += time.perf_counter() - start
            self.leave(diverged)
            if not self.running:
                return
        start = time.perf_counter()
        diverged = self.diverged(0, shared.steps)  # an accelerator is waited for here
        for one in self.running:
            one.at.seconds += time.perf_counter() - start
        self.leave(diverged)

    def diverged(self, first: int, end: int) -> dict[int, Outcome]:
        """By position, the members with a loss in these steps that is not finite."""
        found: dict[int, Outcome] = {}
        if self.losses[:, first:end].isfinite().all():
            return found
        for position, one in enumerate(self.running):
            try:
                require_finite(one.at.losses[first:end], one.at.epoch, first)
            except DivergedError as error:
                found[position] = error
        return found

    def batch(self, first: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Features, of each member or of all, and labels (member, window) of a batch."""
        parts = []
        for stream in self.streams.values():
            index = stream.order[first : first + self.shared.batch]
            augmented = (stream.augmented, first) if stream.augmented else None
            with using_generators(stream.steps):
                parts.append(self.shared.features(self.shared.train, index, augmented))
        labels = torch.stack([parts[stream][1] for stream in self.stream_of])
        return self.of_members([features for features, _ in parts]), labels

    def of_members(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Features of the streams as features of the members; of one stream, as they are, for all."""
        return parts[0] if len(parts) == 1 else torch.stack([parts[stream] for stream in self.stream_of])

    def evaluate_epoch(self, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (member, window, 2) of the training windows that are scored, and of the validation windows."""
        sources = []
        for seed in self.streams if self.shared.transform else ():  # nothing else draws in an evaluation
            sources.append(new_generators(self.shared.device))
            for generator in sources[-1]:
                generator.manual_seed(epoch_seed(seed, epoch, "scores"))
        train = self.logits(self.shared.train, self.shared.scored, sources or [[]])
        return train, self.logits(self.shared.val, torch.arange(len(self.shared.val)), sources or [[]])

    def logits(
        self, split: Split, index: torch.Tensor, sources: Sequence[Sequence[torch.Generator]]
    ) -> torch.Tensor:
        """Logits (member, window, 2) in evaluation mode and fp32; every source draws for one stream."""
        judged, parts = self.learner.eval_model.eval(), []
        with torch.no_grad():
            for part in torch.split(index.to(split.labels.device), self.shared.config.batch_size):
                if self.shared.should_stop():
                    raise InterruptedTraining
                features = []
                for source in sources:
                    with using_generators(source):
                        features.append(self.shared.features(split, part)[0])
                parts.append(judged(self.of_members(features)).float())
        return torch.cat(parts, dim=1).cpu()

    def hear(self, epoch: int, train_logits: torch.Tensor, val_logits: torch.Tensor) -> None:
        """Report the epoch to each member, keep those that go on, and let the others leave."""
        left: dict[int, Outcome] = {}
        for position, one in enumerate(self.running):
            stream = self.streams[one.training.seed]
            self.learner.unstack_member(position, weights_only=True)
            try:
                logits = [
                    one.training.finite(each[position].clone(), epoch) for each in (train_logits, val_logits)
                ]
            except DivergedError as error:
                left[position] = error
                continue
            report = one.progress.add(*one.training.scores(one.at, stream.augmented, *logits))
            if one.member.on_epoch(report) and epoch + 1 < self.shared.config.epochs:
                left[position] = one.result("pruned")
        self.leave(left)
        config = self.shared.config
        kept = [one.kept for one in self.running]
        # The last epoch's too: one that is repeated alone comes out the same only up to rounding.
        if kept and (epoch + 1 == config.epochs or due_after(epoch, config.checkpoint_every, kept)):
            self.write(within=False)

    def write(self, *, within: bool) -> None:
        """Write every member's checkpoint: at their place in the epoch, or between two; equal ones go on as one."""
        for position, one in enumerate(self.running):
            self.learner.unstack_member(position)
            if not within or one.progress.reports or one.at.step:
                one.write(one.at if within else None)

    def leave(self, left: Mapping[int, Outcome]) -> None:
        """Let members go, by position, with their weights; the others go on in a smaller stack."""
        if not left:
            return
        for position, outcome in left.items():
            self.learner.unstack_member(position)
            one = self.running[position]
            self.outcomes[one.number] = outcome
            one.member.on_end(outcome)
        stay = [position for position in range(len(self.running)) if position not in left]
        self.running = [self.running[position] for position in stay]
        if not stay:
            return
        self.learner.keep(stay)
        self.losses, self.rates = self.losses[stay], self.rates[:, stay]
        for one, losses in zip(self.running, self.losses, strict=True):
            one.at.losses = losses
        self._bind()
