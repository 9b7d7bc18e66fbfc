"""What a trial's run keeps of its model: weights (a state dict), the specification that binds them, one ONNX file."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from data.preparation.prepare import Prepared
from data.tasks import TASKS
from harness.config.trial.trial_config import TrialConfig
from harness.core.files import write_json
from harness.study.storage.trial_spool import TrialSpool
from harness.training.fit import FitResult
from harness.training.job import Job
from models.checkpoints import save_weights
from models.export.export import ExportError, export_onnx
from models.export.specification import Specification


def build_specification(
    fields: dict[str, Any], config: TrialConfig, prepared: Prepared, created: str
) -> Specification:
    """The contract of a trial's model: what goes in, what comes out, and the digests of what it was made of.

    Parameters
    ----------
    fields : those that only the coordinator knows, of `Job.specification`
    created : ISO 8601
    """
    return Specification(
        task=config.data.task,
        variant=config.data.variant,
        label_meaning=dict(TASKS[config.data.task].label_meaning),
        front_end=config.feature.model_dump(mode="json"),
        architecture=config.model.model_dump(mode="json"),
        label_map_digest=prepared.label_map.digest,
        manifest_digests={name: part.manifest.digest for name, part in sorted(prepared.splits.items())},
        fingerprint=config.fingerprint(),
        created=created,
        **fields,
    )


def write_model(
    spool: TrialSpool, job: Job, config: TrialConfig, prepared: Prepared, result: FitResult, model: Any
) -> str:
    """Write weights, specification and ONNX file into the spool; `yes`, or `no: ` and why there is no ONNX file.

    Only a trial with a front end of another's weights may have none, and cannot be promoted then.

    Raises
    ------
    ExportError
        A network of our own could not be exported: that is a bug.
    """
    folder = spool.artifacts / "model"
    created = datetime.now(UTC).isoformat(timespec="seconds")
    specification = build_specification(job.specification, config, prepared, created)
    save_weights(result.best_state, folder / "weights.pt")
    write_json(folder / "specification.json", specification.model_dump(mode="json"))
    try:
        export_onnx(config.feature, model, specification, folder / "model.onnx", template=True)
    except ExportError as error:
        if not config.feature.external:
            raise
        return f"no: {error}"
    return "yes"
