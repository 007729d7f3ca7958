"""The files of a job: champion, imported detector, model and weights, each cached in the work folder by its digest."""

from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import json_format
from vesta_common.errors import FailedPrecondition, NotFound
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.training.v1 import PretrainedDetector

from vesta_training.atomic_files import is_whole, write_whole
from vesta_training.pretrained.card import read_card
from vesta_training.pretrained.files import object_key
from vesta_training.pretrained.inspection import BYTES_MAX
from vesta_training.tasks.assignment import Champion, Pretrained

if TYPE_CHECKING:
    from vesta_training.runs.job import Job


def champion_of(job: "Job", objects: ObjectStore, work: Path) -> tuple[Champion | None, str]:
    """Returns the champion with its model file, which is cached by digest; or None and the reason why there is none."""
    if not job.champion_key:
        return None, job.champion_missing
    path = work / "champions" / f"{job.champion_digest}.onnx"
    if not is_whole(path, job.champion_digest):
        try:
            write_whole(path, objects.get(job.champion_key, sha256=job.champion_digest))
        except NotFound:
            missing = f"the file of the champion {job.champion} is missing in the object store ({job.champion_key})"
            return None, f"{missing}; restore it, or set model_version of the deployment to another version"
    return Champion(job.champion, path), ""


def pretrained_of(job: "Job", objects: ObjectStore, work: Path) -> tuple[Pretrained | None, str]:
    """Returns the imported detector with its file, which is cached by digest; or None and the reason why there is none."""
    if not job.pretrained_detector:
        return None, ""
    detector = json_format.Parse(job.pretrained_detector, PretrainedDetector())
    path = work / "pretrained" / f"{detector.digest}.onnx"
    if not is_whole(path, detector.digest):
        try:
            write_whole(
                path, objects.get(object_key(detector.digest), sha256=detector.digest, size_bytes_max=BYTES_MAX)
            )
        except NotFound:
            return None, f"{detector.name} was deleted; import it again"
    card = read_card(detector.card)
    return Pretrained(detector.name, path, detector.digest, card.license, card.source, card.colour_order), ""


def measured_model(job: "Job", objects: ObjectStore, folder: Path) -> Path:
    """Returns the model file of the run.

    Raises:
        FailedPrecondition: MODEL_FILE_DELETED.
    """
    path = folder / "measured.onnx"
    if not is_whole(path, job.measured_digest):
        try:
            write_whole(path, objects.get(job.measured_key, sha256=job.measured_digest))
        except NotFound as error:
            raise FailedPrecondition(
                f"the model file {job.measured_key} was deleted before the learning curve was measured; train the model again",
                reason="MODEL_FILE_DELETED",
            ) from error
    return path


def weights_file(objects: ObjectStore, work: Path, sha256: str) -> Path:
    """Returns a weights file that a customer has uploaded to `weights/<sha256>` in the bucket, from a local cache if possible.

    Raises:
        LookupError: the file does not exist.
    """
    path = work / "weights" / sha256
    if not is_whole(path, sha256):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            objects.download(f"weights/{sha256}", path, sha256=sha256)
        except NotFound as error:
            raise LookupError(sha256) from error
    return path
