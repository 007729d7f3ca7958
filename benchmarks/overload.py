"""Predictions under overload: an open loop of requests at half, full and twice the capacity.

The rate is fixed, regardless of responses. Latency is measured from the scheduled time of a request, not from its
sending, so that a late generator hides nothing.
"""

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import grpc
from figures import Figure
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from pictures import jpegs
from vesta import Vesta
from vesta.waiting import wait_until
from vesta_common.ids import new_id
from vesta_contracts.conductor.v1 import CreateProjectRequest, ListProjectsRequest, Project, ProjectServiceStub
from vesta_contracts.serving.v1 import (
    CreateDeploymentRequest,
    Deployment,
    DeploymentServiceStub,
    GetDeploymentRequest,
    PredictInput,
    PredictRequest,
)
from vesta_contracts.training.v1 import CreateTrainingRunRequest, ListRecipesRequest, TrainingRun
from vesta_local.platform import Platform

CLIENTS = 16
CLOSED_SECONDS = 6.0
OPEN_SECONDS = 10.0
UNLOADED_REQUESTS = 40
PICTURES = 32
WIDTH_PX, HEIGHT_PX = 640, 480
CALL_SECONDS = 60.0
ASIDE_INTERVAL_SECONDS = 0.2
GOODPUT_GOAL, GOODPUT_FLOOR = 0.8, 0.5
P99_GOAL_SECONDS, P99_FLOOR_SECONDS = 1.5, 3.0
DEPLOYMENT_PATIENCE = timedelta(minutes=3)


@dataclass
class Outcome:
    """The results of the requests of one rate.

    Attributes:
        seconds: latencies of successful requests, from their scheduled time.
        refused_seconds: latencies of rejected requests.
        failures: other errors with their number.
        aside_seconds: latencies of other calls in the meantime.
        without_retry_after: rejections without a retry delay.
    """

    seconds: list[float] = field(default_factory=list)
    refused_seconds: list[float] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    aside_seconds: list[float] = field(default_factory=list)
    without_retry_after: int = 0
    duration_seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Successful requests per second."""
        return len(self.seconds) / self.duration_seconds

    def figures(self) -> dict[str, float]:
        """Returns the figures."""
        return {
            "answered_per_second": self.per_second,
            "answered_p50_seconds": percentile(self.seconds, 50),
            "answered_p99_seconds": percentile(self.seconds, 99),
            "refused": float(len(self.refused_seconds)),
            "refused_p99_seconds": percentile(self.refused_seconds, 99),
            "failed": float(sum(self.failures.values())),
            "other_calls_p99_seconds": percentile(self.aside_seconds, 99),
        }


def measure(owner: Vesta, platform: Platform) -> list[Figure]:
    """`overload_goodput` and `overload_p99_seconds`: predictions at twice the capacity."""
    deployment = deployed(owner)
    address, key = platform.home.address("gateway_grpc"), platform.home.owner_key
    probe = Probe(address, key, deployment, list(jpegs(PICTURES, WIDTH_PX, HEIGHT_PX)))
    unloaded = asyncio.run(probe.unloaded())
    capacity = asyncio.run(probe.closed(CLIENTS, CLOSED_SECONDS))
    outcomes = {share: asyncio.run(probe.open(capacity * share, OPEN_SECONDS)) for share in (0.5, 1.0, 2.0)}
    twice = outcomes[2.0]
    if twice.without_retry_after or twice.failures:
        raise RuntimeError(
            f"at twice capacity {twice.without_retry_after} refusals named no time to come again, and there were {twice.failures}"
        )
    details = {"capacity_per_second": capacity, "unloaded_p50_seconds": statistics.median(unloaded)}
    for share, outcome in outcomes.items():
        details |= {f"at_{share:g}_{name}": value for name, value in outcome.figures().items()}
    p99 = percentile(twice.seconds, 99)
    return [
        Figure(
            "overload_goodput",
            twice.per_second / capacity,
            GOODPUT_GOAL,
            lower=False,
            floor=GOODPUT_FLOOR,
            baseline=f"predictions a second of {CLIENTS} clients, each waiting for its answer",
            details=details,
        ),
        Figure(
            "overload_p99_seconds",
            p99,
            P99_GOAL_SECONDS,
            lower=True,
            floor=P99_FLOOR_SECONDS,
            details={"unloaded_p50_seconds": details["unloaded_p50_seconds"]},
        ),
    ]


def deployed(owner: Vesta) -> str:
    """A deployment of an embedding model, which needs no labels and costs as much per prediction as any."""
    project = owner.projects.CreateProject(CreateProjectRequest(project_id=f"bench-{new_id()}", project=Project())).name
    recipes = owner.recipes.ListRecipes(ListRecipesRequest(parent=project)).recipes
    recipe = next(recipe.name for recipe in recipes if "embedding" in recipe.name)
    run = owner.training_runs.CreateTrainingRun(
        CreateTrainingRunRequest(parent=project, training_run=TrainingRun(recipe=recipe, model=f"{project}/models/m"))
    )
    version = owner.wait_for_run(run.name).model_version
    name = owner.deployments.CreateDeployment(
        CreateDeploymentRequest(parent=project, deployment_id="d", deployment=Deployment(model_version=version))
    ).name

    wait_until(
        lambda: owner.deployments.GetDeployment(GetDeploymentRequest(name=name)),
        lambda found: bool(found.stable_version),
        deadline=DEPLOYMENT_PATIENCE,
    )
    return name


class Probe:
    """Requests predictions of one deployment.

    Args:
        address: the gRPC address of the gateway.
    """

    def __init__(self, address: str, key: str, deployment: str, pictures: Sequence[bytes]) -> None:
        self._address = address
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._requests = [
            PredictRequest(name=deployment, inputs=[PredictInput(data=picture)], embedding=True) for picture in pictures
        ]

    async def unloaded(self) -> list[float]:
        """Seconds of consecutive predictions."""
        found = []
        async with grpc.aio.insecure_channel(self._address) as channel:
            for number in range(UNLOADED_REQUESTS):
                began = time.perf_counter()
                await self._ask(channel, number)
                found.append(time.perf_counter() - began)
        return found

    async def closed(self, clients: int, seconds: float) -> float:
        """Predictions per second of clients that wait for each response before the next request."""
        done = 0

        async def work(channel: grpc.aio.Channel, deadline: float) -> None:
            nonlocal done
            while time.perf_counter() < deadline:
                try:
                    await self._ask(channel, done)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                        raise
                    await asyncio.sleep(0.1)
                else:
                    done += 1

        async with grpc.aio.insecure_channel(self._address) as channel:
            await self._ask(channel, 0)
            began = time.perf_counter()
            await asyncio.gather(*(work(channel, began + seconds) for _ in range(clients)))
            return done / (time.perf_counter() - began)

    async def open(self, per_second: float, seconds: float) -> Outcome:
        """Returns the results of predictions at a rate."""
        outcome = Outcome()
        async with (
            grpc.aio.insecure_channel(self._address) as channel,
            grpc.aio.insecure_channel(self._address, [("grpc.use_local_subchannel_pool", 1)]) as other_channel,
        ):
            aside = asyncio.create_task(self._ask_aside(other_channel, outcome))
            began = time.perf_counter()
            asked = []
            for number in range(int(per_second * seconds)):
                due = began + number / per_second
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                asked.append(asyncio.create_task(self._ask_counted(channel, number, due, outcome)))
            await asyncio.gather(*asked)
            outcome.duration_seconds = time.perf_counter() - began
            aside.cancel()
        return outcome

    async def _ask(self, channel: grpc.aio.Channel, number: int) -> None:
        request = self._requests[number % len(self._requests)]
        await DeploymentServiceStub(channel).Predict(request, metadata=self._metadata, timeout=CALL_SECONDS)

    async def _ask_counted(self, channel: grpc.aio.Channel, number: int, due: float, outcome: Outcome) -> None:
        try:
            await self._ask(channel, number)
        except grpc.aio.AioRpcError as error:
            seconds = time.perf_counter() - due
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                outcome.refused_seconds.append(seconds)
                outcome.without_retry_after += not _says_when(error)
            else:
                outcome.failures[error.code().name] = outcome.failures.get(error.code().name, 0) + 1
        else:
            outcome.seconds.append(time.perf_counter() - due)

    async def _ask_aside(self, channel: grpc.aio.Channel, outcome: Outcome) -> None:
        """Repeatedly calls a cheap method of another service."""
        while True:
            began = time.perf_counter()
            await ProjectServiceStub(channel).ListProjects(
                ListProjectsRequest(page_size=1), metadata=self._metadata, timeout=CALL_SECONDS
            )
            outcome.aside_seconds.append(time.perf_counter() - began)
            await asyncio.sleep(ASIDE_INTERVAL_SECONDS)


def percentile(values: Sequence[float], percent: int) -> float:
    """Returns the percentile of the values; 0 for none."""
    if len(values) < 2:
        return sum(values)
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def _says_when(error: grpc.aio.AioRpcError) -> bool:
    status = rpc_status.from_call(error)
    retry = error_details_pb2.RetryInfo()
    return status is not None and any(detail.Unpack(retry) for detail in status.details)
