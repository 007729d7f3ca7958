"""The throughput of a model behind the gateway and Triton, compared with the same model in process."""

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
from figures import Figure
from numpy.typing import NDArray
from pictures import jpegs
from processor_time import ProcessorTime, await_idle
from vesta import Vesta
from vesta_common.media.model_pictures import model_pixels
from vesta_common.media.model_signatures import input_format
from vesta_contracts.serving.v1 import GetDeploymentRequest
from vesta_contracts.training.v1 import DownloadModelVersionRequest, GetModelVersionRequest, ModelVersion
from vesta_local.platform import Platform

CLIENTS = 16
THREADS = 2
PICTURES = 64
WIDTH_PX, HEIGHT_PX = 640, 480
SECONDS = 6.0
TURNS = 3
GOAL = 0.85
FLOOR = 0.7
NOTE = (
    "Of 25.8 ms of processor time per image (on a busy machine), the model takes 10.3 and decoding 4.7, nearly as alone; "
    "serving 3.4, the gateway 2.2, the clients 0.8, Triton's server 0.5, PostgreSQL 0.7, and what also runs while nothing "
    "happens 3. Python code takes several times as long as when it is warm, because the model and decoding evict it from "
    "the caches. Batches gain the model nothing on a CPU, but images of several requests share the calls of Triton."
)


def measure(
    owner: Vesta, platform: Platform, deployment: str, name: str = "serving_efficiency", note: str = NOTE
) -> list[Figure]:
    """Images per second through the gateway, from JPEG to prediction, divided by those without any service."""
    pictures = list(jpegs(PICTURES, WIDTH_PX, HEIGHT_PX))
    clients = [Vesta(platform.home.address("gateway_grpc"), platform.home.owner_key) for _ in range(CLIENTS)]
    in_process = InProcess(owner, deployment)
    await_idle(platform)
    served, bare, processor_ms = [], [], {}
    try:
        for _ in range(TURNS):
            bare.append(per_second(THREADS, lambda _, picture: in_process.answer(picture), pictures))
            used = ProcessorTime(platform)
            served.append(
                per_second(CLIENTS, lambda client, picture: clients[client].predict(deployment, [picture]), pictures)
            )
            processor_ms = used.milliseconds(max(1, round(served[-1] * SECONDS)))
    finally:
        for client in clients:
            client.close()
    served_median, bare_median = statistics.median(served), statistics.median(bare)
    return [
        Figure(
            name,
            served_median / bare_median,
            GOAL,
            lower=False,
            floor=FLOOR,
            baseline=f"decoding and onnxruntime in one process with {THREADS} threads",
            details={"served_images_per_second": served_median, "in_process_images_per_second": bare_median},
            processor_ms=processor_ms,
            note=note,
        )
    ]


class InProcess:
    """The model of the deployment in this process, with one thread per run, like an instance of Triton."""

    def __init__(self, owner: Vesta, deployment: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        version = deployed_version(owner, deployment)
        onnx = model_file(owner, version.name)
        self._input = input_format(version)
        self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs() if output.name != "embedding"]

    def answer(self, jpeg: bytes) -> None:
        """Computes the prediction for one image."""
        self.run(self.decoded(jpeg))

    def decoded(self, jpeg: bytes) -> NDArray[np.uint8]:
        """Returns the input of the model for an image, `(height, width, 3)`."""
        return model_pixels(jpeg, self._input)

    def run(self, pixels: NDArray[np.uint8]) -> None:
        """Computes the prediction for a decoded image."""
        self._session.run(self._outputs, {"pixels": pixels[None]})


def deployed_version(owner: Vesta, deployment: str) -> ModelVersion:
    """Returns the stable version of a deployment."""
    name = owner.deployments.GetDeployment(GetDeploymentRequest(name=deployment)).stable_version
    return owner.models.GetModelVersion(GetModelVersionRequest(name=name))


def model_file(owner: Vesta, version: str) -> bytes:
    """Returns the ONNX file of a version."""
    parts = owner.models.DownloadModelVersion(DownloadModelVersionRequest(name=version))
    return b"".join(part.data for part in parts)


def per_second(workers: int, act: Callable[[int, bytes], object], pictures: Sequence[bytes]) -> float:
    """Returns how many images per second all workers together process, one after another."""
    done = [0] * workers
    ready = threading.Barrier(workers + 1)
    stop = threading.Event()

    def work(worker: int) -> None:
        act(worker, pictures[worker])  # warm-up
        ready.wait()
        while not stop.is_set():
            act(worker, pictures[(worker + done[worker] * workers) % len(pictures)])
            done[worker] += 1

    with ThreadPoolExecutor(workers) as pool:
        working = [pool.submit(work, worker) for worker in range(workers)]
        ready.wait()
        began = time.perf_counter()
        stop.wait(SECONDS)
        count, seconds = sum(done), time.perf_counter() - began
        stop.set()
        for one in working:
            one.result()
    return count / seconds
