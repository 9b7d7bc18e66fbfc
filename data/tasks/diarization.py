"""What the diarization tasks share: windows mixed from utterances or cut from conversations, then judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from data.corpora.base import SAMPLE_RATE, WINDOW_SAMPLES, Recording
from data.digests import rank
from data.labels import LabelMap, Speaker
from data.parts import SPLITS, Split
from data.tasks.activity import Activity, activity_of_pieces, heard_in
from data.tasks.assignment import Assignment, assign_disjoint
from data.tasks.base import Draw, Piece, Plan, PlannedWindow, Pool
from data.tasks.draws import cap_of, draw_training, evenly, pool_subsets, share_of
from data.tasks.mixing import Dice, Voices, window_of

# Evaluation windows share no sample; in training, where overlap is scarce, each second begins a window.
TRAINING_STEP = SAMPLE_RATE
ATTEMPTS = 12  # at a window of one speaker, before the round goes on without it
Verdict = int | str  # a class, or why the window is ambiguous
Classes = tuple[list[PlannedWindow], list[PlannedWindow]]


@dataclass
class _Tally:
    """What is noted while windows are drawn."""

    dropped: dict[Split, Counter[str]] = field(default_factory=lambda: {s: Counter() for s in SPLITS})
    flags: dict[str, None] = field(default_factory=dict)
    unmeasured: dict[str, Recording] = field(default_factory=dict)


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

    @abstractmethod
    def judge(self, activity: Activity) -> Verdict:
        """Return the class of a window, or why it is ambiguous."""

    @abstractmethod
    def mix(
        self, dice: Dice, voices: Voices, speaker: str, label: int, turn: int
    ) -> tuple[Piece, ...] | None:
        """Return the pieces of a window of ``speaker`` and class ``label``; None where none can be made.

        ``turn`` counts the speaker's windows of that class, so that kinds of windows alternate.
        """

    def cut(self, conversation: Recording, step: int) -> Iterator[tuple[Piece, ...]]:
        """Yield candidates of a conversation: a whole window every ``step`` samples."""
        for start in range(0, conversation.num_samples - WINDOW_SAMPLES + 1, step):
            yield (Piece(conversation, start),)

    def remark(self, voices: Voices) -> str | None:
        """Return what a reader must be told about windows mixed from ``voices``."""
        single = sum(1 for speaker in voices.by_speaker if len(voices.own_utterances(speaker)) == 1)
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
        """No: these are questions with an answer."""
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
        tally = _Tally()
        train = self._classes(pool, assignment, pool.subset, "train", draw, tally)
        splits: dict[Split, tuple[PlannedWindow, ...]] = {
            "train": draw_training([w for one in train for w in one], draw.windows["train"], draw.seed)
        }
        for split in SPLITS[1:]:
            by_subset = {
                s: self._classes(pool, assignment, s, split, draw, tally) for s in sorted(pool.evaluated)
            }
            splits[split] = pool_subsets(by_subset, draw.windows[split])
            tally.flags |= dict.fromkeys(_short(by_subset, split, draw.windows[split]))
        return Plan(
            self.split_rule(variant),
            (*assignment.flags, *tally.flags),
            splits,
            {split: dict(sorted(tally.dropped[split].items())) for split in SPLITS if tally.dropped[split]},
            tuple(tally.unmeasured[key] for key in sorted(tally.unmeasured)),
        )

    def _classes(
        self, pool: Pool, assignment: Assignment, subset: str, split: Split, draw: Draw, tally: _Tally
    ) -> Classes:
        """Return windows of class 0 and of class 1, each in an order that uses speakers evenly."""
        recordings = [r for r in pool.of(subset, split) if assignment.split_of(r) == split]
        meetings = [r for r in recordings if r.conversation]
        if meetings:
            return self._from_conversations(meetings, pool, subset, split, draw, tally)
        if split == "train":
            voices = Voices(pool.with_variants(recordings), pool.speech, None)
            most, rounds, seed = draw.windows["train"] // 2, None, draw.seed
        else:
            voices = Voices(recordings, pool.speech, self.speakers_a_window)
            most = share_of(draw.windows[split], pool.evaluated)
            rounds, seed = cap_of(pool.evaluated) // 2, 0
        remark = self.remark(voices)
        if remark and recordings:
            tally.flags[f"{split} of {subset}: {remark}"] = None
        zeros, ones = (
            self._mixed(voices, subset, split, label, most, rounds, seed, tally) for label in (0, 1)
        )
        return zeros, ones

    def _mixed(
        self, voices: Voices, subset: str, split: Split, label: int,
        most: int, rounds: int | None, seed: int, tally: _Tally,
    ) -> list[PlannedWindow]:  # fmt: skip
        """Return at most ``most`` windows of class ``label``: one a speaker and round, in sha256 order."""
        order = sorted(voices.by_speaker, key=lambda speaker: rank(seed, speaker))
        found: list[PlannedWindow] = []
        turn = 0
        while len(found) < most and (rounds is None or turn < rounds):
            before = len(found)
            for speaker in order[: most - len(found)]:
                window = self._one(voices, subset, split, label, (seed, speaker, turn), tally)
                found += [window] if window else []
            if len(found) == before:
                break
            turn += 1
        return found

    def _one(
        self, voices: Voices, subset: str, split: Split, label: int,
        who: tuple[int, str, int], tally: _Tally,
    ) -> PlannedWindow | None:  # fmt: skip
        """Return the first window of a speaker's turn that the rule agrees with."""
        seed, speaker, turn = who
        for attempt in range(ATTEMPTS):
            dice = Dice(self.name, subset, split, label, seed, speaker, turn, attempt)
            pieces = self.mix(dice, voices, speaker, label, turn)
            if pieces is None:
                continue
            verdict = self.judge(activity_of_pieces(pieces, voices.speech))
            unmeasured = [p.recording for p in pieces if p.recording.key not in voices.speech]
            if verdict == label or unmeasured:
                tally.unmeasured |= {recording.key: recording for recording in unmeasured}
                return window_of(dice, voices, pieces, label, speaker, subset)
            tally.dropped[split][verdict if isinstance(verdict, str) else "of the other class"] += 1
        return None

    def _from_conversations(
        self, meetings: list[Recording], pool: Pool, subset: str, split: Split, draw: Draw, tally: _Tally
    ) -> Classes:
        classes: Classes = ([], [])
        for meeting in meetings:
            for pieces in self.cut(meeting, TRAINING_STEP if split == "train" else WINDOW_SAMPLES):
                verdict = self.judge(activity_of_pieces(pieces, {}))
                if isinstance(verdict, str):
                    tally.dropped[split][verdict] += 1
                    continue
                classes[verdict].append(_of_conversation(pieces, verdict, subset))
        seed, cap = (draw.seed, None) if split == "train" else (0, cap_of(pool.evaluated))
        return evenly(classes[0], seed, cap), evenly(classes[1], seed, cap)


def _of_conversation(pieces: tuple[Piece, ...], label: int, subset: str) -> PlannedWindow:
    recording = pieces[0].recording
    heard = [heard_in(recording, p.start_sample, p.start_sample + p.num_samples) for p in pieces]
    speakers = tuple(sorted({speaker for some in heard for speaker in some}))
    return PlannedWindow(pieces, label, "+".join(speakers), recording.group, speakers, subset)


def _short(by_subset: Mapping[str, Classes], split: Split, most: int) -> Iterator[str]:
    """Name the subsets that give fewer windows than their equal share, where there are several."""
    each = share_of(most, by_subset)
    for subset, (zeros, ones) in by_subset.items():
        given = min(len(zeros), len(ones))
        if len(by_subset) > 1 and given < each:
            yield (
                f"{split}: {subset} gives {2 * given} of {2 * each} windows, so pooled scores weigh it less: "
                "read the scores by subset"
            )
