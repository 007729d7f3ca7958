"""A deployment on a site, and predictions that are requested from it at a steady pace, whatever happens to the gateway meanwhile."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from site_on_node import Site
from small_loop import SmallLoop, set_up_at
from vesta_contracts.conductor.v1 import LoopStatus
from vesta_contracts.serving.v1 import DeploymentServiceStub, PredictInput, PredictRequest

PREDICTIONS_PER_SECOND = 20
DEADLINE_SECONDS = 10
CALLERS = 8
CHANNEL = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]


def ended_loop(site: Site, samples: Path, seconds: float) -> SmallLoop:
    """A loop that has spent its budget within the time, with a deployment that answers."""
    made = set_up_at(site.owner(), site.grpc, None, samples, images_per_class=40, budget=20, batch=20)
    made.turn_until(lambda status: status.phase == LoopStatus.EXHAUSTED, seconds)
    return made


class Predictions:
    """Asks a deployment at a steady pace over one connection, and repeats nothing.

    Attributes:
        failures: of the calls that were answered with an error, the answers.
    """

    def __init__(self, site: Site, small: SmallLoop) -> None:
        self._site = site
        picture = Path(small.unused[0]).read_bytes()
        self._request = PredictRequest(name=small.status().deployment, inputs=[PredictInput(data=picture)])
        self._who = [("authorization", f"Bearer {site.owner_key}")]
        self.count = 0
        self.failures: list[str] = []

    def ask(self, stop: threading.Event) -> None:
        """Until it is told to stop."""
        with grpc.insecure_channel(self._site.grpc, CHANNEL) as channel, ThreadPoolExecutor(CALLERS) as pool:
            predict = DeploymentServiceStub(channel).Predict
            begun = time.monotonic()
            for number in itertools.count(1):
                pool.submit(self._ask, predict)
                if stop.wait(max(0.0, begun + number / PREDICTIONS_PER_SECOND - time.monotonic())):
                    return

    def _ask(self, predict: grpc.UnaryUnaryMultiCallable) -> None:
        try:
            answer = predict(self._request, timeout=DEADLINE_SECONDS, metadata=self._who)
        except grpc.RpcError as error:
            self.failures.append(f"{error.code().name}: {error.details()}")
        else:
            self.count += 1
            if reason := answer.predictions[0].reason:
                self.failures.append(reason)
