"""What the diarization tasks share: windows mixed from utterances or cut from conversations, then judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from data.audio.format import SAMPLE_RATE, WINDOW_SAMPLES
from data.corpora.base import Recording
from data.digests import rank
from data.labels import LabelMap, Speaker
from data.parts import SPLITS, Split
from data.tasks.activity import Activity, activity_of_pieces
from data.tasks.base import Draw, Piece, Plan, PlannedWindow, Pool
from data.tasks.draws import at_most_each, cap_of, draw_training, evenly, pool_subsets, share_of
from data.tasks.meetings import Classes, from_meetings
from data.tasks.mixing import LONE_UTTERANCE, HashedRandom, SpeakerUtterances, WindowLayout, window_of
from data.tasks.splits import Assignment, assign_disjoint

# Evaluation windows share no sample; in training, where overlap is scarce, each second begins a window.
TRAINING_STEP = SAMPLE_RATE
ATTEMPTS = 12  # at a window of one speaker, before the round goes on without it
LabelOrReason = int | str  # a class, or why the window is ambiguous


@dataclass(frozen=True)
class WindowRequest:
    """Whose window is made, of which class, and how many of that class came before.

    The number counts alike in both classes, so that kinds of windows alternate alike.
    """

    speaker: str
    label: int
    number: int


@dataclass
class DrawingNotes:
    """What is noted while windows are drawn, and goes into the plan beside them.

    Attributes
    ----------
    dropped : split -> why -> how many ambiguous windows
    flags : what a reader must be told; a dict's keys, so that each is said once and in order
    unmeasured : key -> utterances whose speech must be measured before the plan can be trusted
    """

    dropped: dict[Split, Counter[str]] = field(default_factory=lambda: {s: Counter() for s in SPLITS})
    flags: dict[str, None] = field(default_factory=dict)
    unmeasured: dict[str, Recording] = field(default_factory=dict)


@dataclass(frozen=True)
class _VoiceDraw:
    """A drawing of mixed windows: whose utterances, for which subset and split, in the order of which seed."""

    voices: SpeakerUtterances
    subset: str
    split: Split
    seed: int


class DiarizationTask(ABC):
    """A task is a rule on who speaks when (`judge`) and a recipe that makes windows of it (`mix`).

    ::

        utterances  -> mix(class) -> judge == class ?  keep : drop and count
        conversations -> cut      -> judge -> class, or drop and count
    """

    name: str
    variants: tuple[str, ...] = ("default",)
    primary_metric: str = "balanced_accuracy"
    label_meaning: Mapping[str, str]
    speakers_a_window: int = 2
    utterances_a_speaker: int = 1

    @abstractmethod
    def judge(self, activity: Activity) -> LabelOrReason:
        """Return the class of a window, or why it is ambiguous: the reason is counted, and the window dropped."""

    @abstractmethod
    def mix(
        self, shape: WindowLayout, dice: HashedRandom, voices: SpeakerUtterances, who: WindowRequest
    ) -> tuple[Piece, ...] | None:
        """Return the pieces of a window; None where none can be made of what ``dice`` chose.

        ``shape`` is the same for both classes; ``dice`` choose who and what is heard in it.
        """

    def cut(self, conversation: Recording, step: int) -> Iterator[tuple[Piece, ...]]:
        """Yield candidates of a conversation: a whole window every ``step`` samples."""
        for start in range(0, conversation.num_samples - WINDOW_SAMPLES + 1, step):
            yield (Piece(conversation, start),)

    def remark(self, voices: SpeakerUtterances) -> str | None:
        """Return what a reader must be told about windows mixed from ``voices``."""
        single = sum(1 for utterances in voices.by_speaker.values() if len(utterances) == 1)
        if not single:
            return None
        return (
            f"{single} of {len(voices.by_speaker)} speakers have one utterance; spliced with themselves, "
            "both sides are of one recording"
        )

    def split_rule(self, variant: str) -> str:
        """No two splits share a speaker, nor a meeting group."""
        return "speaker-disjoint"

    def negative_control(self, variant: str) -> bool:
        """False: who speaks when can be heard, so a sound model may be above chance."""
        return False

    def roles(self, variant: str) -> tuple[Split, ...]:
        """Return all three: every split has its own parts."""
        return SPLITS

    def speakers(self, pool: Pool, variant: str, draw: Draw) -> list[Speaker]:
        """Return nobody: labels come from who speaks when."""
        return []

    def plan(self, pool: Pool, variant: str, draw: Draw, label_map: LabelMap) -> Plan:
        """Return windows of each split, half of each class: training by seed, evaluation by manifest."""
        assignment = assign_disjoint(pool, draw)
        notes = DrawingNotes()
        train = self._classes(pool, assignment, pool.subset, "train", draw, notes)
        splits: dict[Split, tuple[PlannedWindow, ...]] = {
            "train": draw_training([w for one in train for w in one], draw.windows["train"], draw.seed)
        }
        if len(splits["train"]) < draw.windows["train"] // 2 * 2:
            given = f"train: {pool.subset} gives {len(splits['train'])} of {draw.windows['train']} windows"
            notes.flags[given] = None
        for split in SPLITS[1:]:
            by_subset = {
                s: self._classes(pool, assignment, s, split, draw, notes) for s in sorted(pool.evaluated)
            }
            splits[split] = pool_subsets(by_subset, draw.windows[split])
            notes.flags |= dict.fromkeys(_short(by_subset, split, draw.windows[split]))
        return Plan(
            self.split_rule(variant),
            (*assignment.flags, *notes.flags),
            splits,
            {split: dict(sorted(notes.dropped[split].items())) for split in SPLITS if notes.dropped[split]},
            tuple(notes.unmeasured[key] for key in sorted(notes.unmeasured)),
        )

    def _classes(
        self, pool: Pool, assignment: Assignment, subset: str, split: Split, draw: Draw, notes: DrawingNotes
    ) -> Classes:
        """Return windows of class 0 and of class 1, each in an order that uses speakers evenly."""
        recordings = [r for r in pool.of(subset, split) if assignment.split_of(r) == split]
        meetings = [r for r in recordings if r.conversation]
        if meetings:
            units = assignment.units
            if split == "train":
                classes = from_meetings(self, meetings, units, subset, TRAINING_STEP, notes.dropped[split])
                return evenly(classes[0], draw.seed), evenly(classes[1], draw.seed)
            classes = from_meetings(self, meetings, units, subset, WINDOW_SAMPLES, notes.dropped[split])
            return at_most_each(evenly(classes[0], 0), evenly(classes[1], 0), cap_of(pool.evaluated))
        least = self.utterances_a_speaker
        if split == "train":
            voices = SpeakerUtterances(recordings, pool.speech, None, least, pool.varied)
            mixing = _VoiceDraw(voices, subset, split, draw.seed)
            most, rounds = draw.windows["train"] // 2, None
        else:
            voices = SpeakerUtterances(recordings, pool.speech, self.speakers_a_window, least)
            mixing = _VoiceDraw(voices, subset, split, 0)
            most, rounds = share_of(draw.windows[split], pool.evaluated), cap_of(pool.evaluated) // 2
        for remark in filter(None, (self.remark(voices), _left_out(voices, least))):
            if recordings:
                notes.flags[f"{split} of {subset}: {remark}"] = None
        zeros, ones = (self._mixed(mixing, label, most, rounds, notes) for label in (0, 1))
        return zeros, ones

    def _mixed(
        self, mixing: _VoiceDraw, label: int, most: int, rounds: int | None, notes: DrawingNotes
    ) -> list[PlannedWindow]:
        """Return at most ``most`` windows of class ``label``: one a speaker and round, in sha256 order.

        ``rounds`` None goes on until there are ``most``, or a round adds none.
        """
        order = sorted(mixing.voices.by_speaker, key=lambda speaker: rank(mixing.seed, speaker))
        found: list[PlannedWindow] = []
        turn = 0
        while len(found) < most and (rounds is None or turn < rounds):
            before = len(found)
            for speaker in order[: most - len(found)]:
                window = self._one(mixing, WindowRequest(speaker, label, turn), notes)
                found += [window] if window else []
            if len(found) == before:
                break
            turn += 1
        return found

    def _one(self, mixing: _VoiceDraw, who: WindowRequest, notes: DrawingNotes) -> PlannedWindow | None:
        """Return the first of `ATTEMPTS` windows of a speaker's turn that the rule agrees with; None for none."""
        voices = mixing.voices
        names = (self.name, mixing.subset, mixing.split, mixing.seed, who.speaker, who.number)
        shape = WindowLayout.drawn(HashedRandom("shape", *names), voices.count)
        for attempt in range(ATTEMPTS):
            dice = HashedRandom(*names, who.label, attempt)
            pieces = self.mix(shape, dice, voices, who)
            if pieces is None:
                continue
            verdict = self.judge(activity_of_pieces(pieces, voices.speech))
            unmeasured = [p.recording for p in pieces if p.recording.key not in voices.speech]
            if verdict == who.label or unmeasured:
                notes.unmeasured |= {recording.key: recording for recording in unmeasured}
                return window_of(shape, voices, pieces, who.label, who.speaker, mixing.subset)
            reason = verdict if isinstance(verdict, str) else "of the other class"
            notes.dropped[mixing.split][reason] += 1
        return None


def _left_out(voices: SpeakerUtterances, least: int) -> str | None:
    if not voices.left_out:
        return None
    needs = "two utterances" if least > 1 else f"an utterance of {LONE_UTTERANCE / SAMPLE_RATE:.0f} s, or two"
    total = voices.left_out + len(voices.by_speaker)
    return f"{voices.left_out} of {total} speakers lack {needs} and are left out"


def _short(by_subset: Mapping[str, Classes], split: Split, most: int) -> Iterator[str]:
    """Name the subsets that give fewer windows than their equal share, where there are several."""
    each = share_of(most, by_subset)
    for subset, (zeros, ones) in by_subset.items():
        given = min(len(zeros), len(ones))
        if len(by_subset) > 1 and given < each:
            yield (
                f"{split}: {subset} gives {2 * given} of its share of {2 * each} windows: pooled scores weigh it less, "
                "read the scores by subset"
            )
