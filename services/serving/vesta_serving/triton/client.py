"""A client of one Triton server: loads, probes, unloads and runs models."""

import threading
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException
from vesta_common import deadline, trace
from vesta_common.errors import Unavailable
from vesta_common.rpc.admission import deadline_passed
from vesta_common.rpc.client import RECONNECT_BACKOFF_MAX_MS
from vesta_common.rpc.outline import serialize_field

from vesta_serving.triton.model import Outputs, TritonModel

REQUEST_TIMEOUT_SECONDS = 20.0
LIVE_TIMEOUT_SECONDS = 5.0
"""The packets to a pod that is gone may simply be lost, and others wait for the answer."""
LOAD_TIMEOUT_SECONDS = 120.0
_INFER = "/inference.GRPCInferenceService/ModelInfer"
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", RECONNECT_BACKOFF_MAX_MS),
)


class ModelMissing(Unavailable):
    """Triton has not loaded the model, for example after a restart. Loading it again resolves this."""


class Triton:
    """A Triton server. Thread-safe.

    Args:
        address: its gRPC address, `HOST:PORT`.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._client = triton.InferenceServerClient(address)
        # Inferences have a channel of their own, which sends a request as it is: the client would copy the pixels three times.
        self._channel = grpc.insecure_channel(address, _CHANNEL_OPTIONS)
        self._infer: grpc.UnaryUnaryMultiCallable[bytes, Any] = self._channel.unary_unary(
            _INFER, response_deserializer=service_pb2.ModelInferResponse.FromString
        )
        self._loading = threading.Lock()

    def close(self) -> None:
        """Closes the connection; calls in progress fail."""
        self._client.close()
        self._channel.close()

    def load(self, name: str) -> None:
        """Loads or reloads a model from the repository.

        Raises:
            Unavailable: Triton does not respond, or rejects the model; contains the reason.
        """
        with self._loading:
            try:
                self._client.load_model(name, client_timeout=LOAD_TIMEOUT_SECONDS)
            except InferenceServerException as error:
                raise _unavailable(f"Triton could not load {name}", error) from error

    def unload(self, name: str) -> None:
        """Unloads a model. A model that is not loaded is not an error."""
        try:
            self._client.unload_model(name, client_timeout=LOAD_TIMEOUT_SECONDS)
        except InferenceServerException as error:
            raise _unavailable(f"Triton could not unload {name}", error) from error

    def is_live(self) -> bool:
        """Whether the server responds. Its readiness is not used, because one model that failed to load makes the server not ready."""
        try:
            return bool(self._client.is_server_live(client_timeout=LIVE_TIMEOUT_SECONDS))
        except InferenceServerException:
            return False

    def loaded(self) -> set[str]:
        """Returns the names of the loaded models."""
        try:
            index = self._client.get_model_repository_index(client_timeout=REQUEST_TIMEOUT_SECONDS)
        except InferenceServerException as error:
            raise _unavailable("Triton does not list its models", error) from error
        return {model.name for model in index.models if model.state == "READY"}

    def probe(self, model: TritonModel) -> None:
        """Runs a real inference, because a model stays "ready" after its process has died.

        Raises:
            Unavailable: the inference failed or returned invalid numbers.
        """
        picture = np.zeros((1, model.input.height_px, model.input.width_px, 3), np.uint8)
        found = self.infer(model.name, picture, model.output_names)
        if not all(np.isfinite(values).all() for values in found.values()):
            raise Unavailable(
                f"{model.name} returns numbers that are not finite; train another version",
                reason="MODEL_OUTPUT_INVALID",
            )

    def infer(self, name: str, pixels: NDArray[np.uint8], outputs: Sequence[str]) -> Outputs:
        """Runs a model on one batch.

        Args:
            pixels: `(N, height, width, 3)` in the form of the model's input, N from 1 to `BATCH_MAX`.
            outputs: the names of the outputs to return.

        Raises:
            ModelMissing: the model is not loaded.
            Unavailable: Triton does not respond.
            DeadlineExceeded: the deadline of the call that is being handled has passed.
        """
        if deadline.has_passed():
            raise deadline_passed()
        request = _serialized(name, pixels, outputs)
        try:
            with trace.engine_span("triton/infer") as carrier:
                response = self._infer(
                    request, timeout=deadline.limited(REQUEST_TIMEOUT_SECONDS), metadata=tuple(carrier.items())
                )
        except grpc.RpcError as error:
            if deadline.has_passed():  # the caller's, so that it says nothing about Triton
                raise deadline_passed() from error
            raise _unavailable(f"{name} did not respond", error) from error
        answer = triton.InferResult(response)
        return {output: answer.as_numpy(output) for output in outputs}


def _serialized(name: str, pixels: NDArray[np.uint8], outputs: Sequence[str]) -> bytes:
    """Returns the serialized ModelInferRequest, to which the pixels are copied once. They are its last field."""
    request = service_pb2.ModelInferRequest(model_name=name)
    request.inputs.add(name="pixels", datatype="UINT8", shape=pixels.shape)
    for output in outputs:
        request.outputs.add(name=output)
    content = np.ascontiguousarray(pixels).data.cast("B")
    return b"".join(
        (request.SerializeToString(), *serialize_field(request.DESCRIPTOR, ("raw_input_contents",), content))
    )


def _unavailable(what: str, error: InferenceServerException | grpc.RpcError) -> Unavailable:
    """Converts Triton's error. Distinguishes a missing model, which can be loaded again."""
    text = str((error.details() if isinstance(error, grpc.RpcError) else error.message()) or error)
    missing = "unknown model" in text or "is not ready" in text or "not found" in text
    kind = ModelMissing if missing else Unavailable
    return kind(f"{what}: {text}", reason="MODEL_NOT_LOADED" if missing else "TRITON_UNAVAILABLE")
