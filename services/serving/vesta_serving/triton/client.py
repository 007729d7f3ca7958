"""Talks to Triton: loads, probes, unloads and asks models, with uint8 pixels in and float32 scores out."""

import threading
from dataclasses import dataclass

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException
from vesta_common import trace
from vesta_common.errors import Unavailable
from vesta_common.media.image_formats import MODEL_SIDE_PX

from vesta_serving.triton.repository import BATCH_MAX

REQUEST_TIMEOUT_SECONDS = 20.0
LOAD_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True)
class Scores:
    """A model's answer for N images.

    Attributes:
        probabilities: `(N, C)` float32, calibrated; `(N, 0)` for a model that only embeds.
        embeddings: `(N, D)` float32 of unit length.
    """

    probabilities: NDArray[np.float32]
    embeddings: NDArray[np.float32]


class ModelMissing(Unavailable):
    """Triton does not have the model loaded, as after a restart; loading it again works."""


class Triton:
    """A Triton server. Safe to share between threads.

    Args:
        address: its gRPC address, `HOST:PORT`.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._client = triton.InferenceServerClient(address)
        self._loading = threading.Lock()

    def close(self) -> None:
        """Ends the connection; calls under way fail."""
        self._client.close()

    def load(self, name: str) -> None:
        """Loads a model from the repository, or loads it anew.

        Raises:
            Unavailable: Triton does not answer, or refuses the model; says why.
        """
        with self._loading:
            try:
                self._client.load_model(name, client_timeout=LOAD_TIMEOUT_SECONDS)
            except InferenceServerException as error:
                raise _unavailable(f"Triton could not load {name}", error) from error

    def unload(self, name: str) -> None:
        """Forgets a model; one that is not loaded is no error."""
        try:
            self._client.unload_model(name, client_timeout=LOAD_TIMEOUT_SECONDS)
        except InferenceServerException as error:
            raise _unavailable(f"Triton could not unload {name}", error) from error

    def is_live(self) -> bool:
        """True where the server itself answers. It calls itself "ready" only where no model at all has failed to load."""
        try:
            return bool(self._client.is_server_live(client_timeout=REQUEST_TIMEOUT_SECONDS))
        except InferenceServerException:
            return False

    def loaded(self) -> set[str]:
        """The models that Triton holds."""
        try:
            index = self._client.get_model_repository_index(client_timeout=REQUEST_TIMEOUT_SECONDS)
        except InferenceServerException as error:
            raise _unavailable("Triton does not list its models", error) from error
        return {model.name for model in index.models if model.state == "READY"}

    def probe(self, name: str, *, classifies: bool) -> None:
        """Asks a real question: a stub that died leaves the model "ready" for ever.

        Raises:
            Unavailable: the model does not answer as it should.
        """
        picture = np.zeros((1, MODEL_SIDE_PX, MODEL_SIDE_PX, 3), np.uint8)
        scores = self.infer(name, picture, classifies=classifies, embeds=True)
        if not np.isfinite(scores.embeddings).all() or not np.isfinite(scores.probabilities).all():
            raise Unavailable(f"{name} answers numbers that are not finite", reason="MODEL_BROKEN")

    def infer(self, name: str, pixels: NDArray[np.uint8], *, classifies: bool, embeds: bool) -> Scores:
        """Asks a model about N images, in batches that it takes.

        Args:
            pixels: `(N, 256, 256, 3)` RGB, N at least 1.
            classifies: whether the model has probabilities to ask for.
            embeds: whether embeddings are wanted; else they come back as `(N, 0)`.

        Raises:
            ModelMissing: the model is not loaded.
            Unavailable: Triton does not answer.
        """
        parts = [
            self._infer_batch(name, pixels[start : start + BATCH_MAX], classifies, embeds)
            for start in range(0, len(pixels), BATCH_MAX)
        ]
        return Scores(
            np.concatenate([part.probabilities for part in parts]), np.concatenate([part.embeddings for part in parts])
        )

    def _infer_batch(self, name: str, pixels: NDArray[np.uint8], classifies: bool, embeds: bool) -> Scores:
        sent = triton.InferInput("pixels", list(pixels.shape), "UINT8")
        sent.set_data_from_numpy(np.ascontiguousarray(pixels))
        wanted = [output for output, asked in (("probabilities", classifies), ("embedding", embeds)) if asked]
        try:
            with trace.engine_span("triton/infer") as carrier:
                answer = self._client.infer(
                    name,
                    [sent],
                    outputs=[triton.InferRequestedOutput(output) for output in wanted],
                    client_timeout=REQUEST_TIMEOUT_SECONDS,
                    headers=carrier,
                )
        except InferenceServerException as error:
            raise _unavailable(f"{name} did not answer", error) from error
        nothing = np.empty((len(pixels), 0), np.float32)
        return Scores(
            answer.as_numpy("probabilities") if classifies else nothing,
            answer.as_numpy("embedding") if embeds else nothing,
        )


def _unavailable(what: str, error: InferenceServerException) -> Unavailable:
    """Our error for Triton's, told apart by what helps: a model that is missing can be loaded."""
    text = str(error.message() or error)
    missing = "unknown model" in text or "is not ready" in text or "not found" in text
    kind = ModelMissing if missing else Unavailable
    return kind(f"{what}: {text}", reason="MODEL_NOT_LOADED" if missing else "TRITON_UNAVAILABLE")
