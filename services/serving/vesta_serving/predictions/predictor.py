"""Predicts images with a deployment's model and policy. Shared by Predict and the scorer."""

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray
from vesta_common.clock import Clock
from vesta_common.errors import FailedPrecondition, Unavailable, VestaError
from vesta_common.media.model_input import Placement
from vesta_common.media.model_pictures import ModelPicture
from vesta_common.media.model_signatures import EMBEDDING, PROBABILITIES
from vesta_common.rpc.admission import Admission
from vesta_contracts.common.v1 import Prediction

from vesta_serving.deployments.deployer import Deployer
from vesta_serving.model_files import ModelFiles, ServedParts
from vesta_serving.registry import Registry, Version
from vesta_serving.store import Store
from vesta_serving.store.rows import DeploymentRow
from vesta_serving.task_types import Policy
from vesta_serving.triton.client import ModelMissing
from vesta_serving.triton.model import Outputs
from vesta_serving.triton.replicas import Tritons

FRESH = timedelta(milliseconds=500)
RETRY_AFTER = timedelta(seconds=1)

log = structlog.get_logger()


@dataclass(frozen=True)
class ServedModel:
    """The model version, its parts and the policy that a deployment currently serves with."""

    row: DeploymentRow
    version: Version
    parts: ServedParts
    policy: Policy


@dataclass(frozen=True)
class PredictedImage:
    """The prediction for one image.

    Attributes:
        embedding: `(D,)` of unit length; `(0,)` if it was not requested, or the model has none.
    """

    prediction: Prediction
    embedding: NDArray[np.float32]


class Predictor:
    """Predicts images. Thread-safe.

    Args:
        admission: limits the images in flight.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        files: ModelFiles,
        triton: Tritons,
        deployer: Deployer,
        clock: Clock,
        admission: Admission,
    ) -> None:
        self._store = store
        self._registry = registry
        self._files = files
        self._triton = triton
        self._deployer = deployer
        self._clock = clock
        self._admission = admission
        self._fresh: dict[str, tuple[float, ServedModel]] = {}
        self._reloading: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)  # by Triton's name of the model

    def served_model(self, name: str) -> ServedModel:
        """Returns what a deployment serves with. The result is cached for half a second. Records that the deployment is used.

        Raises:
            NotFound: the deployment or its model file does not exist.
            Unavailable: DEPLOYMENT_NOT_READY, no version is serving yet.
        """
        known = self._fresh.get(name)
        if known and time.monotonic() - known[0] < FRESH.total_seconds():
            return known[1]
        with self._store.postgres.transaction() as connection:
            row = self._store.get(connection, name)
            self._store.record_use(connection, row)
        if not row.stable:
            raise Unavailable(
                f"{name} has no loaded model yet ({row.state.lower()}{': ' + row.error if row.error else ''}); "
                "retry later",
                reason="DEPLOYMENT_NOT_READY",
                retry_after=RETRY_AFTER,
            )
        version = self._registry.get(row.stable)
        policy = Policy.of(row.spec.uncertainty, version.model)
        served = ServedModel(row, version, self._files.parts(version), policy)
        self._fresh[name] = (time.monotonic(), served)
        return served

    def forget(self, name: str) -> None:
        """Removes a deployment from the cache, for example after a rollback."""
        self._fresh.pop(name, None)

    def admitted(self, image_count: int, remaining_seconds: float | None = None) -> AbstractContextManager[None]:
        """Reserves capacity for images while they are predicted.

        Args:
            remaining_seconds: until the caller's deadline; None without a deadline.

        Raises:
            ResourceExhausted: OVERLOADED, the images could not be predicted in time; contains a retry delay.
            DeadlineExceeded: the caller's deadline has passed.
        """
        return self._admission.admitted(image_count, remaining_seconds)

    def predict(self, served: ServedModel, pictures: Sequence[ModelPicture], *, embeds: bool) -> list[PredictedImage]:
        """Predicts images.

        Args:
            pictures: in the form of the model's input, at least one.
            embeds: whether to return embeddings.

        Raises:
            Unavailable: Triton does not respond, or rejects a model that it served before; retry until it is loaded again.
        """
        batch = pictures[0].pixels[None] if len(pictures) == 1 else np.stack([picture.pixels for picture in pictures])
        mirrors = served.policy.two_views and served.version.task.compares_views
        if mirrors:
            batch = np.concatenate([batch, batch[:, :, ::-1]])
        try:
            outputs = self._infer(served, batch, embeds)
        except ModelMissing:
            outputs = self._infer_reloaded(served, batch, embeds)
        placements = [picture.placement for picture in pictures]
        results = self.apply_policy(served, outputs, placements)
        if mirrors:
            _compare_views(served, outputs, placements, results)
        return results

    def _infer_reloaded(self, served: ServedModel, batch: NDArray[np.uint8], embeds: bool) -> Outputs:
        """Infers with a model that no Triton served, after a restart or because its deployments were not used for long. Of the callers that
        miss a model at the same time one loads it.

        Raises:
            Unavailable: no Triton could load the model; retry, for the failure is temporary.
        """
        with self._reloading[served.parts.triton.name]:
            with suppress(ModelMissing):
                return self._infer(served, batch, embeds)
            failure: VestaError | None = None
            try:
                self._deployer.make_ready(served.version)
            except (FailedPrecondition, Unavailable) as error:  # of one Triton, which may be about to end
                log.info("model_reload_failed", version=served.version.model.name, error=str(error))
                failure = error
        try:
            return self._infer(served, batch, embeds)
        except ModelMissing as missing:
            if failure is None:  # it was unloaded again
                raise
            raise Unavailable(failure.message, reason=failure.reason, retry_after=RETRY_AFTER) from missing

    def apply_policy(
        self, served: ServedModel, outputs: Outputs, placements: Sequence[Placement]
    ) -> list[PredictedImage]:
        """Makes predictions of the model's outputs under the deployment's policy.

        Args:
            outputs: of these images; those of further inputs are ignored.
            placements: of the model's input on each image.
        """
        now = self._clock.now()
        task, vocabulary = served.version.task, served.version.vocabulary
        found = _by_image(outputs, task.outputs)[: len(placements)]
        embeddings = outputs.get(EMBEDDING, np.empty((len(found), 0), np.float32))[: len(placements)]
        results = []
        for of_image, embedding, placement in zip(found, embeddings, placements, strict=True):
            prediction = task.prediction(of_image, vocabulary, served.policy, placement)
            prediction.predict_time.FromDatetime(now)
            results.append(PredictedImage(prediction, embedding))
        return results

    def _infer(self, served: ServedModel, batch: NDArray[np.uint8], embeds: bool) -> Outputs:
        """Runs the model in Triton, then its head. Returns the outputs of the task type, and embeddings if requested."""
        triton, head = served.parts.triton, served.parts.head
        if head:
            embeddings = self._triton.infer(triton.name, batch, [EMBEDDING])[EMBEDDING]
            probabilities = {PROBABILITIES: head.probabilities(embeddings)}
            return probabilities | {EMBEDDING: embeddings} if embeds else probabilities
        wanted = {*served.version.task.outputs, *([EMBEDDING] if embeds else [])}
        return self._triton.infer(triton.name, batch, [name for name in triton.output_names if name in wanted])


def _by_image(outputs: Outputs, names: Sequence[str]) -> list[dict[str, NDArray[Any]]]:
    """Returns the outputs with these names for each image."""
    return [dict(zip(names, rows, strict=True)) for rows in zip(*(outputs[name] for name in names), strict=True)]


def _compare_views(
    served: ServedModel, outputs: Outputs, placements: Sequence[Placement], results: Sequence[PredictedImage]
) -> None:
    """Makes the certain predictions uncertain that differ for the mirror image.

    Args:
        outputs: of the N images, then of their mirror images.
    """
    task, vocabulary = served.version.task, served.version.vocabulary
    found = _by_image(outputs, task.outputs)
    views = zip(found[: len(results)], found[len(results) :], placements, results, strict=True)
    for of_image, of_mirrored, placement, result in views:
        if result.prediction.uncertain:
            continue
        width_px = served.version.input.width_px
        reason = task.disagreement(of_image, of_mirrored, vocabulary, served.policy, placement, width_px)
        result.prediction.uncertain, result.prediction.uncertain_reason = bool(reason), reason
