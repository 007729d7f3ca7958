"""The onnxruntime backend in Triton returns the same results as onnxruntime in-process."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pytest
import tritonclient.grpc as triton_grpc
from onnx import TensorProto, helper, numpy_helper
from tritonclient.utils import InferenceServerException
from vesta_common.storage.objects import open_client
from vesta_local.engines.addresses import admin_settings
from vesta_local.platform import Platform

H, W, CLASSES = 4, 4, 5
CONFIGURATION = f"""
backend: "onnxruntime"
max_batch_size: 8
input [ {{ name: "pixels" data_type: TYPE_UINT8 dims: [ -1, {W}, 3 ] }} ]
output [
  {{ name: "probabilities" data_type: TYPE_FP32 dims: [ {CLASSES} ] }},
  {{ name: "total" data_type: TYPE_FP32 dims: [ 1 ] }}
]
instance_group [ {{ kind: KIND_CPU count: 2 }} ]
dynamic_batching {{ }}
"""


def _tiny_model() -> bytes:
    """From uint8 `(N, H, W, 3)` to `probabilities` `(N, CLASSES)` and `total` `(N, 1)`; fails for heights other than 4."""
    weights = np.random.default_rng(0).normal(0, 0.01, (H * W * 3, CLASSES)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["rows"]),
        helper.make_node("MatMul", ["rows", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
        helper.make_node("ReduceSum", ["rows", "axes"], ["total"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", "H", W, 3])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", CLASSES]),
            helper.make_tensor_value_info("total", TensorProto.FLOAT, ["N", 1]),
        ],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([1]), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def _pixels(count: int, seed: int, height: int = H) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, W, 3), dtype=np.uint8)


def _infer(client: triton_grpc.InferenceServerClient, pixels: np.ndarray) -> list[np.ndarray]:
    tensor = triton_grpc.InferInput("pixels", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels)
    answer = client.infer("tiny", [tensor])
    return [answer.as_numpy("probabilities"), answer.as_numpy("total")]


@pytest.fixture(scope="module")
def client(engines: Platform, triton: str) -> Iterator[triton_grpc.InferenceServerClient]:
    """A client of a Triton that has loaded the tiny model from the object store."""
    found = admin_settings(engines.home)
    store = open_client(found)
    for key, body in (("config.pbtxt", CONFIGURATION.encode()), ("1/model.onnx", _tiny_model())):
        store.put_object(Bucket=found.s3_bucket, Key=f"{found.triton_prefix}/tiny/{key}", Body=body)
    with triton_grpc.InferenceServerClient(triton) as found:
        found.load_model("tiny")
        yield found


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(_tiny_model())


@pytest.mark.parametrize("count", [1, 2, 8])
def test_triton_answers_what_onnxruntime_answers(client, session, count: int) -> None:
    pixels = _pixels(count, seed=count)
    for ours, theirs in zip(_infer(client, pixels), session.run(None, {"pixels": pixels}), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_requests_put_together_get_each_their_own_answer(client, session) -> None:
    requests = [_pixels(1 + seed % 3, seed) for seed in range(64)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda pixels: _infer(client, pixels), requests))
    for pixels, ours in zip(requests, answers, strict=True):
        np.testing.assert_allclose(ours[0], session.run(["probabilities"], {"pixels": pixels})[0], rtol=1e-5)


def test_a_request_that_the_model_refuses_fails_alone(client) -> None:
    def try_height(height: int) -> bool:
        try:
            return len(_infer(client, _pixels(1, 0, height))[0]) == 1
        except InferenceServerException:
            return False

    heights = [H, H + 1] * 16
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(try_height, heights)) == [height == H for height in heights]


@pytest.mark.own_engines
def test_after_a_kill_triton_answers_again_once_the_model_is_loaded_again(client, engines: Platform, session) -> None:
    engines.supervisor.kill("inference")
    Platform(engines.home, ["inference"]).wait_healthy()
    assert not client.is_model_ready("tiny")
    client.load_model("tiny")
    pixels = _pixels(1, seed=1)
    np.testing.assert_allclose(_infer(client, pixels)[0], session.run(None, {"pixels": pixels})[0], rtol=1e-6)


def test_the_model_file_that_is_no_model_is_refused_with_the_reason(client, engines: Platform) -> None:
    found = admin_settings(engines.home)
    store, prefix = open_client(found), f"{found.triton_prefix}/broken"
    store.put_object(Bucket=found.s3_bucket, Key=f"{prefix}/config.pbtxt", Body=CONFIGURATION.encode())
    store.put_object(Bucket=found.s3_bucket, Key=f"{prefix}/1/model.onnx", Body=b"no model")
    with pytest.raises(InferenceServerException, match=r"(?i)protobuf|invalid"):
        client.load_model("broken")


def test_the_tiny_model_is_a_valid_model() -> None:
    onnx.checker.check_model(onnx.load_model_from_string(_tiny_model()))
