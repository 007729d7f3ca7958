"""Answers images: decodes them, asks the deployment's model, applies its policy. What Predict and the scorer share."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray
from vesta_common.clock import Clock
from vesta_common.errors import ResourceExhausted, Unavailable
from vesta_contracts.common.v1 import ImageScores

from vesta_serving.deployer import Deployer
from vesta_serving.labels import Policy, score
from vesta_serving.registry import Registry, Version
from vesta_serving.store import DeploymentRow, Store
from vesta_serving.triton import ModelMissing, Scores, Triton

FRESH = timedelta(milliseconds=500)
RETRY_AFTER = timedelta(seconds=1)


@dataclass(frozen=True)
class Answering:
    """What a deployment answers with just now."""

    row: DeploymentRow
    version: Version
    policy: Policy


@dataclass(frozen=True)
class Answer:
    """What the model says of one image.

    Attributes:
        embedding: `(D,)` of unit length; `(0,)` where it was not asked for.
    """

    scores: ImageScores
    embedding: NDArray[np.float32]


class Predictor:
    """Asks models. Safe to share between threads.

    Args:
        images_in_flight_max: more than so many at a time are refused at once, so that what was taken is answered soon.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        triton: Triton,
        deployer: Deployer,
        clock: Clock,
        images_in_flight_max: int,
    ) -> None:
        self._store = store
        self._registry = registry
        self._triton = triton
        self._deployer = deployer
        self._clock = clock
        self._room = images_in_flight_max
        self._lock = threading.Lock()
        self._fresh: dict[str, tuple[float, Answering]] = {}

    def answering(self, name: str) -> Answering:
        """What a deployment answers with, as of the last half second.

        Raises:
            NotFound: there is no such deployment.
            Unavailable: DEPLOYMENT_NOT_READY, no version answers yet.
        """
        known = self._fresh.get(name)
        if known and time.monotonic() - known[0] < FRESH.total_seconds():
            return known[1]
        with self._store.postgres.transaction() as connection:
            row = self._store.get(connection, name)
        if not row.stable:
            raise Unavailable(
                f"{name} has no model that answers yet ({row.state.lower()}{': ' + row.error if row.error else ''})",
                reason="DEPLOYMENT_NOT_READY",
                retry_after=RETRY_AFTER,
            )
        found = Answering(row, self._registry.get(row.stable), Policy.of(row.asked.uncertainty))
        self._fresh[name] = (time.monotonic(), found)
        return found

    def forget(self, name: str) -> None:
        """Makes the next answer ask the database, as after a roll-back."""
        self._fresh.pop(name, None)

    @contextmanager
    def admitted(self, image_count: int) -> Iterator[None]:
        """Keeps room for some images while they are answered.

        Raises:
            ResourceExhausted: OVERLOADED, there is no room; says when to come again.
        """
        with self._lock:
            if self._room < image_count:
                raise ResourceExhausted(
                    "too many images are being answered just now; come again a little later",
                    reason="OVERLOADED",
                    retry_after=RETRY_AFTER,
                )
            self._room -= image_count
        try:
            yield
        finally:
            with self._lock:
                self._room += image_count

    def answer(self, answering: Answering, pixels: Sequence[NDArray[np.uint8]], *, embeds: bool) -> list[Answer]:
        """Asks the model about images.

        Args:
            pixels: each `(256, 256, 3)` RGB, at least one.

        Raises:
            Unavailable: Triton does not answer.
        """
        version = answering.version
        batch = np.stack(pixels)
        try:
            found = self._infer(version, batch, embeds)
        except ModelMissing:
            self._deployer.make_ready(version)  # Triton was started again
            found = self._infer(version, batch, embeds)
        return self.judge(answering, found)

    def judge(self, answering: Answering, found: Scores) -> list[Answer]:
        """What a model's numbers mean to a deployment."""
        now = self._clock.now()
        return [
            Answer(score(probabilities, answering.version.vocabulary, answering.policy, now), embedding)
            for probabilities, embedding in zip(found.probabilities, found.embeddings, strict=True)
        ]

    def _infer(self, version: Version, batch: NDArray[np.uint8], embeds: bool) -> Scores:
        embeds = embeds or not version.classifies
        return self._triton.infer(version.triton_name, batch, classifies=version.classifies, embeds=embeds)
