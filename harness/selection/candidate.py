"""A run under review, one network or several: what promotion needs to know of either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data.config import DataConfig
from data.digests import digest_of
from data.preparation.prepare import Prepared
from data.tasks import TASKS
from harness.config.cost import window_macs
from harness.config.trial.trial_config import TrialConfig
from harness.study.ensembles import EnsembleSummary
from harness.study.study import DataChangedError, Study
from harness.study.trials import TrialSummary
from harness.tracking.artifacts import fetch
from harness.tracking.experiment import Tracking
from harness.training.outputs.model_files import build_specification
from models.checkpoints import load_weights
from models.export.ensemble import Ensemble, Member, export_ensemble
from models.export.export import Pipeline, export_onnx
from models.export.specification import MemberSpecification, Specification
from models.front_ends.build import build_front_end
from models.networks.cnn import build_network

FILES = ("model/weights.pt", "predictions.npz")


@dataclass(frozen=True)
class Candidate:
    """A trial or an ensemble with its data and its networks.

    Attributes
    ----------
    folder : holds the run's predictions.npz
    prepared : of each data configuration that was trained on; validation and test windows are the same in all
    networks : (front end, network) of each member; a trial has one
    """

    study: Study
    subject: TrialSummary | EnsembleSummary
    run_id: str
    folder: Path
    prepared: tuple[Prepared, ...]
    networks: tuple[Member, ...]

    @property
    def shared(self) -> Prepared:
        """The data whose validation and test windows are everybody's."""
        return self.prepared[0]

    @property
    def data(self) -> DataConfig:
        """The data configuration (of an ensemble whose members' differ, that of the first)."""
        return self.shared.config

    @property
    def registered_name(self) -> str:
        """The registered model that it competes for: one a task and variant, all of one signature."""
        return self.data.question.replace("/", "-")

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the networks for one window of 3 s, of all members together."""
        return sum(window_macs(TrialConfig.from_record(one.config)) for one in self.subject.members)

    def module(self) -> nn.Module:
        """The torch module from waveforms (batch, sample) in [-1, 1] to logits (batch, class), in evaluation mode."""
        if isinstance(self.subject, EnsembleSummary):
            return Ensemble(self.networks).eval()
        front_end, network = self.networks[0]
        return Pipeline(build_front_end(front_end), network).eval()

    def specification(self, versions: dict[str, str]) -> Specification:
        """The contract of the exported model, written into its file: task, labels, data, front ends, `versions`."""
        created = datetime.now(UTC).isoformat(timespec="seconds")
        fields: dict[str, Any] = {"run_id": self.run_id, "versions": versions}
        if isinstance(self.subject, EnsembleSummary):
            return ensemble_specification(
                self.subject.members, self.subject.member_runs, self.prepared, created, fields
            )
        config = TrialConfig.from_record(self.subject.config)
        return build_specification(fields, config, self.prepared[0], created)

    def export(self, specification: Specification, path: Path) -> None:
        """Write the one ONNX file, from waveform to logits, with the specification in its metadata."""
        if isinstance(self.subject, EnsembleSummary):
            export_ensemble(self.networks, specification, path)
        else:
            export_onnx(*self.networks[0], specification, path)


def fetch_candidate(
    study: Study,
    subject: TrialSummary | EnsembleSummary,
    prepared: Sequence[Prepared],
    tracking: Tracking,
    run_id: str,
    folder: Path,
) -> Candidate:
    """Download a run's weights and predictions, held against the digests taken when they were written.

    Raises
    ------
    ArtifactError
        MLflow lacks a file, or it was altered.
    DataChangedError
        The windows are no longer the ones of the study.
    """
    for name in FILES:
        fetch(tracking.client, run_id, name, subject.outcome["sha256"][name], folder)
    require_unchanged(study, prepared)
    weights = load_weights(folder / "weights.pt")
    states = [weights]
    if isinstance(subject, EnsembleSummary):
        states = [state_of(index, weights) for index in range(len(subject.members))]
    networks = [network_of(member, state) for member, state in zip(subject.members, states, strict=True)]
    return Candidate(study, subject, run_id, folder, tuple(prepared), tuple(networks))


def data_configs(members: Sequence[TrialSummary]) -> list[DataConfig]:
    """Every data configuration of the members, once, in the order in which they come."""
    configs = [TrialConfig.from_record(member.config).data for member in members]
    return list({config.digest(): config for config in configs}.values())


def require_unchanged(study: Study, prepared: Sequence[Prepared]) -> None:
    """Raise DataChangedError where windows are not those that the study's trials were trained and judged on."""
    for one in prepared:
        manifests = study.manifests_of(one.config.digest())
        for split, part in one.splits.items():
            if part.manifest.digest != manifests[split]:
                raise DataChangedError(
                    f"the {split} windows have changed since the sweep: digest {part.manifest.digest[:12]}, then "
                    f"{manifests[split][:12]}; restore the corpus, or run the sweep again under another name"
                )


def network_of(trial: TrialSummary, state: dict[str, torch.Tensor]) -> Member:
    """Front end and network of a trial, in evaluation mode, with the weights of this state dict."""
    config = TrialConfig.from_record(trial.config)
    front_end = config.feature
    network = build_network(config.model, front_end.num_features, num_frames=front_end.num_frames())
    network.load_state_dict(state)
    return front_end, network.eval()


def joined(networks: Sequence[Member]) -> dict[str, torch.Tensor]:
    """All members' weights in one state dict: `weight` of member 1 is called `1.weight`."""
    states = [network.state_dict() for _, network in networks]
    return {f"{index}.{name}": one for index, state in enumerate(states) for name, one in state.items()}


def state_of(index: int, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One member's weights out of what `joined` gave: joined, then taken apart, a state dict is what it was."""
    prefix = f"{index}."
    return {name.removeprefix(prefix): one for name, one in weights.items() if name.startswith(prefix)}


def ensemble_specification(
    members: Sequence[TrialSummary],
    member_runs: Sequence[str],
    prepared: Sequence[Prepared],
    created: str,
    fields: dict[str, Any],
) -> Specification:
    """The contract of an ensemble's model; `fields` are its run and the versions of the code.

    Members that were trained on different windows have the digest of each, by subset; validation and test are shared.
    """
    configs = [TrialConfig.from_record(member.config) for member in members]
    data = prepared[0].config
    maps = sorted({one.label_map.digest for one in prepared})
    manifests: dict[str, str] = {
        name: part.manifest.digest for name, part in sorted(prepared[0].splits.items())
    }
    if len(prepared) > 1:  # trained on different windows, judged on the same ones
        del manifests["train"]
        manifests |= {f"train {one.config.subset}": one.splits["train"].manifest.digest for one in prepared}
    return Specification(
        task=data.task,
        variant=str(data.variant),
        label_meaning=dict(TASKS[data.task].label_meaning),
        front_end=None,
        architecture=None,
        members=tuple(
            MemberSpecification(
                run_id=run_id,
                fingerprint=member.fingerprint,
                front_end=config.feature.model_dump(mode="json"),
                architecture=config.model.model_dump(mode="json"),
            )
            for member, run_id, config in zip(members, member_runs, configs, strict=True)
        ),
        label_map_digest=maps[0] if len(maps) == 1 else digest_of(maps),
        manifest_digests=manifests,
        fingerprint=fingerprint_of(members),
        created=created,
        **fields,
    )


def fingerprint_of(members: Sequence[TrialSummary]) -> str:
    """Hex sha256 of the members' fingerprints; the order in which they were named changes nothing."""
    return digest_of(["ensemble", sorted(member.fingerprint for member in members)])
