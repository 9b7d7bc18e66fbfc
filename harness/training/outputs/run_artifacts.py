"""What a run shows beside its numbers: predictions to judge it by later, label histograms, figures."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch

from data.preparation.prepare import Prepared
from data.tasks import TASKS
from harness.config.trial.trial_config import TrialConfig
from harness.core.files import sha256_of, write_json
from harness.metrics.predictions import Predictions
from harness.study.storage.trial_spool import TrialSpool
from harness.training.fit import FitResult
from harness.training.outputs.figures import confusion_figure, label_histogram_image, roc_figure


def write_outputs(
    spool: TrialSpool, config: TrialConfig, prepared: Prepared, result: FitResult, trained_on: torch.Tensor
) -> dict[str, str]:
    """Write artifacts and images of the run into the spool; sha256, by path, of the files that will be loaded again.

    `trained_on` (window,): labels of the training windows as they were learnt; a control's may be permuted.
    """
    artifacts, manifest = spool.artifacts, prepared.splits["train"].manifest
    index = result.train_index.numpy()
    train = Predictions(
        result.train_logits.numpy(), trained_on.numpy()[index], list(np.array(manifest.clusters())[index])
    )
    write_evidence(spool, prepared, result.val_logits.numpy(), train)
    write_json(artifacts / "config.json", config.model_dump(mode="json"))
    named = ("predictions.npz", "model/model.onnx", "model/weights.pt")
    written = [artifacts / name for name in named if (artifacts / name).is_file()]
    return {path.relative_to(artifacts).as_posix(): sha256_of(path) for path in written}


def write_evidence(spool: TrialSpool, prepared: Prepared, logits: Any, train: Predictions) -> None:
    """Figures, label histograms and predictions of a run, from its `logits` (window, 2) on the validation windows.

    `train` are those of the training windows that were scored.
    """
    artifacts, images = spool.artifacts, spool.images
    for folder in (artifacts / "model", artifacts / "figures", artifacts / "labels", images):
        folder.mkdir(parents=True, exist_ok=True)
    manifests = {name: part.manifest for name, part in prepared.splits.items()}
    labels = manifests["val"].labels()
    predicted = logits.argmax(axis=1)
    meaning = TASKS[prepared.config.task].label_meaning
    names = (meaning["0"], meaning["1"])
    title = str(json.loads((spool.folder / "trial.json").read_text("utf-8"))["run_name"])
    counts = {name: _counts(manifest.labels()) for name, manifest in manifests.items()}
    label_histogram_image(
        counts["train"], counts["val"], counts["test"], _counts(predicted), title=title, class_names=names
    ).save(images / "labels.png", compress_level=1)  # a tenth larger than at 6, in two thirds of the time
    roc_figure(logits, labels, title).save(artifacts / "figures" / "roc.png", compress_level=1)
    confusion_figure(logits, labels, names, title).save(
        artifacts / "figures" / "confusion.png", compress_level=1
    )
    histograms: dict[str, Any] = {
        name: manifest.label_histogram for name, manifest in sorted(manifests.items())
    }
    histograms["predicted_on_val"] = dict(zip(("0", "1"), _counts(predicted), strict=True))
    write_json(artifacts / "labels" / "histograms.json", histograms)
    prepared.label_map.save(artifacts / "labels" / "label_map.json")
    np.savez_compressed(
        artifacts / "predictions.npz",
        val_logits=logits,
        val_labels=labels,
        val_clusters=np.array(manifests["val"].clusters()),
        train_logits=train.logits,
        train_labels=train.labels,
        train_clusters=np.array(train.clusters),
        val_subsets=np.array(manifests["val"].subsets()),
    )


def _counts(labels: Any) -> list[int]:
    return [int((labels == 0).sum()), int((labels == 1).sum())]
