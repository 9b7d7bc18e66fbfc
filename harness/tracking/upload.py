"""What a training wrote for its run: artifacts as they are, images in the form of MLflow's image grid."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.files import make_folder, sync_folder
from harness.study.storage.trial_spool import TrialSpool
from models.files import sync

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SCHEME = "mlflow-artifacts:/"
# The tag by which the UI knows that a run has images.
LOGGED_IMAGES = "mlflow.loggedImages"


def upload_outputs(client: MlflowClient, run_id: str, spool: TrialSpool) -> dict[str, str]:
    """Send a spool's outputs to the server; the tags that the run gets for them (the UI shows images by one).

    What is sent again replaces what is there: names do not change.
    """
    if spool.artifacts.is_dir():
        client.log_artifacts(run_id, str(spool.artifacts))
    images = _images(spool)
    if images:
        with tempfile.TemporaryDirectory(prefix="harness-images-") as scratch:
            for path in images:
                _write_image(path, Path(scratch))
            client.log_artifacts(run_id, scratch, "images")
    return _tags(images)


def place_outputs(folder: Path, spool: TrialSpool) -> dict[str, str]:
    """Put a spool's outputs where the record's own server has a run's artifacts; the tags, as `upload_outputs`.

    The spool keeps them: whatever happens to the run, they can be placed again. Names are durable at the end.
    """
    placed = {folder}
    if spool.artifacts.is_dir():
        for path in sorted(spool.artifacts.rglob("*")):
            if path.is_file():
                target = folder / path.relative_to(spool.artifacts)
                make_folder(target.parent)
                _place(path, target)
                placed.add(target.parent)
    images = _images(spool)
    if images:
        target = folder / "images"
        make_folder(target)
        with tempfile.TemporaryDirectory(prefix=".images-", dir=spool.folder) as scratch:
            for path in images:
                _write_image(path, Path(scratch))
            for path in sorted(Path(scratch).iterdir()):
                _place(path, target / path.name)
        placed.add(target)
    for one in placed:
        if one.is_dir():
            sync_folder(one)
    return _tags(images)


def folder_of(served: Path, artifact_uri: str) -> Path | None:
    """The folder of a run's artifacts under the one that is `served`; None where the run keeps them elsewhere."""
    if not artifact_uri.startswith(_SCHEME):
        return None
    folder = served / artifact_uri.removeprefix(_SCHEME).lstrip("/")
    root = served.resolve()
    found = folder.resolve()
    return folder if found != root and found.is_relative_to(root) else None


def _images(spool: TrialSpool) -> list[Path]:
    return sorted(spool.images.glob("*.png")) if spool.images.is_dir() else []


def _tags(images: list[Path]) -> dict[str, str]:
    return {LOGGED_IMAGES: "true"} if images else {}


def _place(source: Path, target: Path) -> None:
    """Let a file stand under a second name, whole from its first moment."""
    with suppress(OSError):  # something stands there, or it is another disk
        os.link(source, target)
    if target.exists() and target.samefile(source):
        return
    aside = target.with_name(
        f".{target.name}.part"
    )  # the same name each time: a kill leaves nothing for good
    shutil.copyfile(source, aside)
    sync(aside)
    aside.replace(target)


def _write_image(path: Path, folder: Path) -> None:
    """A PNG in the two files that MLflow's image grid is made of.

    As `MlflowClient.log_image`, whose names differ each time: what is stored once more would stand there twice.
    """
    from mlflow.tracking.multimedia import compress_image_size
    from PIL import Image

    name = f"{path.stem}+step+0+timestamp+0+{uuid.uuid5(uuid.NAMESPACE_URL, path.stem)}"
    shutil.copyfile(path, folder / f"{name}.png")
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    # A third of the time of the default effort, for a file as small.
    compress_image_size(image).save(folder / f"{name}+compressed.webp", method=2)
