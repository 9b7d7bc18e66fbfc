"""Augmentation in a training: of what is learned from only, the same after a resume, searchable."""

import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from data.config import DataConfig
from data.preparation.prepare import prepare
from harness.config.files.sweep_loader import load_sweep
from harness.config.parameters import parameter_locations
from harness.config.search_space import SearchSpace
from harness.config.trial.augmentation_config import AugmentationConfig
from harness.config.trial.training_config import TrainingConfig
from harness.config.trial.trial_config import TrialConfig
from harness.study.storage.trial_spool import TrialSpool
from harness.training.fit import CheckpointError, FitResult, Split, SplitError, fit
from harness.training.job import Job
from harness.training.trial import build_augmentation, load_split, run_trial
from models.augmentation import Augmentation
from models.front_ends.config import Mfcc

CPU = torch.device("cpu")
SHAPE = (4, 12)
CONFIG = TrainingConfig(epochs=5, batch_size=16, learning_rate=5e-3, train_score_windows=40)
RANGES: dict[str, Any] = {
    "augment_share": 0.7, "noise_snr_db": 0.0, "gain_db": 6.0, "reverb_rt60_s": 0.2, "freq_mask": 1, "time_mask": 4
}  # fmt: skip
MASKS = {"freq_mask": 2, "time_mask": 4}


class Tiny(nn.Module):
    """Batch norm and dropout, and a memory of what it met: (training mode, batch)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(4, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(8, 2))
        self.met: list[tuple[bool, torch.Tensor]] = []

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        self.met.append((self.training, features.detach().clone()))
        logits: torch.Tensor = self.head(self.body(features).mean(dim=2))
        return logits


def model() -> Tiny:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Tiny()


def waves(windows: int, seed: int) -> Split:
    """Class 1 is louder; (window, 48) int16."""
    labels = torch.arange(windows) % 2
    noise = torch.randn(windows, 48, generator=torch.Generator().manual_seed(seed))
    return Split((noise * (1000 + 3000 * labels[:, None])).to(torch.int16), labels, ["s"] * windows)


def front_end(batch: torch.Tensor) -> torch.Tensor:
    return 10 * batch.unflatten(1, SHAPE)


def features_of(split: Split) -> Split:
    return dataclasses.replace(split, features=front_end(split.features.float() / 32768))


TRAIN, VAL = waves(90, 0), waves(40, 1)


def build(**ranges: Any) -> Augmentation | None:
    return build_augmentation(AugmentationConfig(**ranges), *SHAPE)


def run(
    augmentation: Augmentation | None, *, train: Split = TRAIN, val: Split = VAL, seed: int = 7,
    net: Tiny | None = None, **named: Any,
) -> FitResult:  # fmt: skip
    given: dict[str, Any] = {"transform": front_end, **named}
    net = net or model()
    return fit(net, train, val, CONFIG, seed=seed, device=CPU, augmentation=augmentation, **given)


def numbers(found: FitResult) -> list[dict[str, float]]:
    """Everything but the clock."""
    return [{k: v for k, v in one.metrics.items() if k != "windows_per_s"} for one in found.reports]


def same(left: FitResult, right: FitResult) -> None:
    assert numbers(left) == numbers(right)
    assert (left.score, left.best_epoch) == (right.score, right.best_epoch)
    assert all(torch.equal(tensor, right.best_state[name]) for name, tensor in left.best_state.items())
    assert torch.equal(left.val_logits, right.val_logits)


def test_everything_is_off_by_default() -> None:
    assert build() is None
    assert build(augment_share=0.0, **{k: v for k, v in RANGES.items() if k != "augment_share"}) is None
    assert build(masks=3, augment_share=0.5) is None
    for name in ("noise_snr_db", "gain_db", "reverb_rt60_s", "freq_mask", "time_mask"):
        built = build(**{name: RANGES[name]})
        assert built is not None
        assert built.on_waveforms == (name not in ("freq_mask", "time_mask")) != built.on_features


def test_off_changes_no_number_and_no_other_draw() -> None:
    plain, off, nothing = model(), model(), model()
    found = run(None, net=plain)
    same(found, run(Augmentation(*SHAPE), net=off))  # the machinery runs and does nothing
    assert not any(name.startswith("augment/") for name in found.reports[0].metrics)
    never = run(Augmentation(*SHAPE, noise_snr_db=0.0, share=0.0), net=nothing)
    assert torch.equal(never.val_logits, found.val_logits)
    for other in (off, nothing):
        assert all(torch.equal(a[1], b[1]) for a, b in zip(plain.met, other.met, strict=True))


def test_scored_windows_are_never_augmented() -> None:
    plain, augmented = model(), model()
    run(None, net=plain)
    run(build(**RANGES), net=augmented)

    def of(net: Tiny, training: bool) -> list[torch.Tensor]:
        return [batch for mode, batch in net.met if mode is training]

    assert all(torch.equal(a, b) for a, b in zip(of(plain, False), of(augmented, False), strict=True))
    pairs = list(zip(of(plain, True), of(augmented, True), strict=True))
    assert not any(torch.equal(a, b) for a, b in pairs)
    untouched = torch.cat([(a == b).all(dim=2).all(dim=1) for a, b in pairs]).double().mean()
    assert float(untouched) == pytest.approx(0.3**4, abs=0.03)  # four kinds, each on 70 % by itself


@pytest.mark.parametrize("ranges", [RANGES, MASKS], ids=["all", "masks"])
def test_a_seed_gives_the_same_bits_and_another_seed_others(ranges: dict[str, Any]) -> None:
    first = run(build(**ranges))
    torch.rand(5)
    same(first, run(build(**ranges)))
    other = run(build(**ranges), seed=8)
    assert other.reports[0].metrics["augment/time_masked"] != first.reports[0].metrics["augment/time_masked"]


@pytest.mark.parametrize("ranges", [RANGES, MASKS], ids=["all", "masks"])
@pytest.mark.parametrize("steps", [3, 48, 120])
def test_a_training_that_goes_on_has_the_same_bits(
    tmp_path: Path, steps: int, ranges: dict[str, Any]
) -> None:
    whole = run(build(**ranges))
    asked = iter(range(10_000))
    stopped = run(build(**ranges), checkpoints=tmp_path, should_stop=lambda: next(asked) > steps // 5)
    assert stopped.stopped == "interrupted"
    same(whole, run(build(**ranges), checkpoints=tmp_path))


def test_a_checkpoint_of_another_augmentation_is_refused(tmp_path: Path) -> None:
    run(build(**MASKS), checkpoints=tmp_path)
    with pytest.raises(CheckpointError, match="augmentation"):
        run(build(**{**MASKS, "time_mask": 3}), checkpoints=tmp_path)
    with pytest.raises(CheckpointError, match="augmentation"):
        run(None, checkpoints=tmp_path)


def test_what_was_drawn_is_in_every_report() -> None:
    reports = run(build(**RANGES)).reports
    wanted = {
        "noise_share", "snr_db", "noise_exponent", "gain_share", "gain_db", "reverb_share", "rt60_s",
        "freq_masked", "time_masked",
    }  # fmt: skip
    for report in reports:
        drawn = {k.removeprefix("augment/"): v for k, v in report.metrics.items() if k.startswith("augment/")}
        assert drawn.keys() == wanted
        assert all(type(value) is float and math.isfinite(value) for value in drawn.values())
        assert 0 < drawn["snr_db"] < 15
        assert 0 < drawn["gain_db"] < 6
        assert 0 < drawn["rt60_s"] < 0.2
    assert len({report.metrics["augment/snr_db"] for report in reports}) == len(reports)
    assert set(run(build(**MASKS)).reports[0].metrics) >= {"augment/freq_masked", "augment/time_masked"}


def test_validation_may_stay_features_beside_waveforms_that_are_trained_on() -> None:
    same(run(build(**RANGES)), run(build(**RANGES), val=features_of(VAL)))


def test_masks_work_on_stored_features_and_what_needs_waveforms_says_so() -> None:
    stored, val = features_of(TRAIN), features_of(VAL)
    same(run(build(**MASKS)), run(build(**MASKS), train=stored, val=val, transform=None))
    with pytest.raises(SplitError, match="need int16 waveforms, not"):
        run(build(gain_db=3.0), train=stored, val=val, transform=None)


# The configuration


def test_the_fields_are_described_and_searchable_under_names_of_their_own() -> None:
    for name, field in AugmentationConfig.model_fields.items():
        assert field.description
        assert parameter_locations()[name].section == "augmentation"
    assert len(parameter_locations()) == len(
        {(place.section, place.front_end, place.field) for place in parameter_locations().values()}
    )
    flat = TrialConfig().flat()
    assert {f"augmentation.{name}" for name in AugmentationConfig.model_fields} <= set(flat)
    space = SearchSpace(load_sweep(Path(__file__).parents[3] / "sweeps" / "augmentation.yaml"))
    config = space.config({"noise_snr_db": 5, "time_mask": 20, "augment_share": 0.5})
    assert config.augmentation == AugmentationConfig(noise_snr_db=5.0, time_mask=20, augment_share=0.5)
    assert config.fingerprint() != space.config({"noise_snr_db": 6}).fingerprint()


@pytest.mark.parametrize(
    "wrong",
    [
        {"augment_share": 1.5}, {"noise_snr_db": -30}, {"noise_snr_db": math.inf}, {"gain_db": -1}, {"gain_db": 30},
        {"reverb_rt60_s": 3}, {"freq_mask": -1}, {"time_mask": 0.5}, {"masks": 0}, {"masks": 9}, {"pitch": 2},
    ],
)  # fmt: skip
def test_wrong_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        AugmentationConfig(**wrong)


def test_the_configuration_imports_no_torch() -> None:
    program = (
        "import sys, harness.config.trial.augmentation_config; print({'torch', 'numpy'} & set(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"


# A trial on real windows

DATA = DataConfig(train_windows=240, val_windows=96, test_windows=96)


@pytest.fixture(scope="module")
def trial(
    demo_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., list[dict[str, float]]]:
    prepared = prepare(DATA, data_root=None, cache=demo_cache)
    folder = tmp_path_factory.mktemp("trials")

    def start(name: str, stop_after: int = 99, **augmentation: Any) -> list[dict[str, float]]:
        """Metrics of each epoch of a trial that is pruned after the second, so that it exports nothing."""
        spool = TrialSpool(folder / name)
        spool.folder.mkdir(exist_ok=True)
        (spool.folder / "trial.json").write_text(json.dumps({"run_name": name}), "utf-8")
        config = TrialConfig.model_validate({
            "data": DATA.model_dump(), "feature": {"kind": "mfcc"}, "model": {"width": 0.125},
            "training": {"epochs": 3}, "augmentation": augmentation,
        })  # fmt: skip
        job = Job(
            0,
            config.model_dump(mode="json"),
            str(prepared.folder),
            str(spool.folder),
            str(folder / "cache"),
            3,
            {},
        )
        found: list[dict[str, float]] = []

        def on_epoch(epoch: int, metrics: dict[str, float]) -> bool:
            found.append({key: value for key, value in metrics.items() if key != "windows_per_s"})
            return epoch == 1

        run_trial(job, CPU, on_epoch, lambda: len(found) >= stop_after)
        return found

    return start


@pytest.mark.slow
def test_a_trial_augments_waveforms_before_its_front_end(
    trial: Callable[..., list[dict[str, float]]],
) -> None:
    ranges = {"noise_snr_db": 5.0, "time_mask": 40}
    first = trial("whole", **ranges)
    assert len(first) == 2
    assert trial("stopped", stop_after=1, **ranges) == first[:1]
    assert trial("stopped", **ranges) == first[1:]
    assert 5 < first[0]["augment/snr_db"] < 20
    assert 0 < first[0]["augment/time_masked"] < 40 / 301


@pytest.mark.slow
def test_the_front_end_gives_stored_features_and_trained_on_ones_alike(
    demo_cache: Path, tmp_path: Path
) -> None:
    prepared = prepare(DATA, data_root=None, cache=demo_cache)
    stored, none = load_split(prepared, "val", Mfcc(), tmp_path, CPU)
    raw, transform = load_split(prepared, "val", Mfcc(), tmp_path, CPU, waveforms=True)
    assert stored.key != raw.key
    assert none is None
    assert transform is not None
    assert raw.features.dtype == torch.int16
    np.testing.assert_allclose(transform(raw.features.float() / 32768), stored.features, atol=1e-4)
