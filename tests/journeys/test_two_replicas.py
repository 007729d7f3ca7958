"""Two replicas of every service and two Tritons: the loop turns, each gets its share of the calls, and a rolling restart fails none."""

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import httpx
import pytest
from small_loop import SmallLoop, set_up
from traffic import running
from vesta_common.ids import new_id
from vesta_contracts.annotation.v1 import CampaignServiceStub, ListCampaignsRequest
from vesta_contracts.conductor.v1 import GetLoopRequest, LoopServiceStub, LoopStatus
from vesta_contracts.datasets.v1 import CreateDatasetRequest, Dataset, DatasetServiceStub, ListDatasetsRequest
from vesta_contracts.serving.v1 import DeploymentServiceStub, ListDeploymentsRequest
from vesta_contracts.training.v1 import ListModelsRequest, ModelServiceStub
from vesta_local import replica_load, services
from vesta_local.home import Home
from vesta_local.platform import Platform
from vesta_local.testing import WholePlatform, running_platform

pytestmark = [pytest.mark.platform, pytest.mark.timeout(600)]

SHARE_MIN = 0.4
CALLS_MIN = 30  # fewer of a service say nothing of shares
DEADLINE_SECONDS = 10
PAUSE_SECONDS = 0.02  # of each caller between its calls: without it, they would slow down the restarts that they watch
# As a load balancer does: it asks no gateway that says it is not ready, and repeats nothing.
CHANNEL = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    (
        "grpc.service_config",
        '{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}',
    ),
]


# The checkout of another version, whose code the second replicas run: `make test-versions` sets it.
OTHER_CHECKOUT = "VESTA_TEST_OTHER_CHECKOUT"


@pytest.fixture(scope="module")
def pair(broker_kind: str) -> Iterator[Platform]:
    other = os.environ.get(OTHER_CHECKOUT)
    checkout = Path(other) if other else None
    with running_platform(block=1, broker=broker_kind, replicas=2, other_checkout=checkout) as platform:
        yield platform


@pytest.fixture(scope="module")
def turned(pair: Platform, tmp_path_factory: pytest.TempPathFactory) -> SmallLoop:
    """A loop that has spent its budget in one round."""
    small = set_up(WholePlatform(pair), tmp_path_factory.mktemp("samples"), images_per_class=40, budget=20, batch=20)
    small.turn_until(lambda status: status.phase == LoopStatus.EXHAUSTED, seconds=300)
    return small


def test_the_second_replica_gets_its_share_of_calls_and_models(pair: Platform, turned: SmallLoop) -> None:
    for _ in range(CALLS_MIN):
        turned.owner.predict(turned.status().deployment, [turned.unused[0].read_bytes()])
        # A short training is asked for less often than this.
        turned.owner.models.ListModels(ListModelsRequest(parent=turned.project))
    calls = replica_load.calls_per_replica(pair.home)
    shares = {name: of[-1] / sum(of) for name, of in calls.items() if sum(of) >= CALLS_MIN}
    assert {"datasets", "annotation", "training", "serving", "conductor", "gateway"} <= shares.keys()
    assert {name: share for name, share in shares.items() if not SHARE_MIN <= share <= 1 - SHARE_MIN} == {}, calls
    first, second = replica_load.models_per_triton(pair.home)
    assert first == second != set()


def test_a_rolling_restart_under_load_fails_no_request_and_loses_none(pair: Platform, turned: SmallLoop) -> None:
    load = Load(pair.home, turned)
    with ExitStack() as stack:
        for caller in (load.call_over_grpc, load.create_over_grpc, load.call_over_rest):
            stack.enter_context(running(caller))
        for number in (2, 1):
            pair.restart(*[pair.home.replicas_of(name)[number - 1] for name in services.NAMES], gracefully=True)
    assert load.failures[:5] == []
    assert min(load.counts.values()) > CALLS_MIN
    there = turned.owner.pages(turned.owner.datasets.ListDatasets, ListDatasetsRequest(parent=turned.project))
    assert set(load.created) <= {dataset.name for dataset in there}


class Load:
    """Calls every service through both gateways at both doors, and repeats nothing.

    Attributes:
        created: names of the datasets whose creation was acknowledged.
        counts: of calls, by caller.
    """

    def __init__(self, home: Home, turned: SmallLoop) -> None:
        self._home = home
        self._turned = turned
        self._key = home.owner_key
        self.failures: list[str] = []
        self.created: list[str] = []
        self.counts = {"grpc": 0, "rest": 0}

    def call_over_grpc(self, stop: threading.Event) -> None:
        """Reads what each service has."""
        project = self._turned.project
        with self._channel() as channel:
            reads: list[tuple[Callable[..., object], object]] = [
                (LoopServiceStub(channel).GetLoop, GetLoopRequest(name=self._turned.loop)),
                (DatasetServiceStub(channel).ListDatasets, ListDatasetsRequest(parent=project)),
                (CampaignServiceStub(channel).ListCampaigns, ListCampaignsRequest(parent=project)),
                (ModelServiceStub(channel).ListModels, ListModelsRequest(parent=project)),
                (DeploymentServiceStub(channel).ListDeployments, ListDeploymentsRequest(parent=project)),
            ]
            for call, request in itertools.cycle(reads):
                if stop.wait(PAUSE_SECONDS):
                    return
                self._try("grpc", lambda call=call, request=request: call(request, **self._how()))

    def create_over_grpc(self, stop: threading.Event) -> None:
        """Creates datasets."""
        taxonomy = next(
            iter(self._turned.owner.datasets.ListDatasets(ListDatasetsRequest(parent=self._turned.project)).datasets)
        ).taxonomy
        with self._channel() as channel:
            create = DatasetServiceStub(channel).CreateDataset
            while not stop.wait(PAUSE_SECONDS):
                request = CreateDatasetRequest(
                    parent=self._turned.project, dataset_id=f"d{new_id()}", dataset=Dataset(taxonomy=taxonomy)
                )
                self._try("grpc", lambda request=request: self.created.append(create(request, **self._how()).name))

    def call_over_rest(self, stop: threading.Event) -> None:
        """Reads a loop from the gateways that say they are ready, in turn."""
        headers = {"authorization": f"Bearer {self._key}"}
        with ExitStack() as stack:
            gateways = [
                stack.enter_context(httpx.Client(base_url=f"http://{self._home.address(name)}", headers=headers))
                for name in self._home.replicas_of("gateway")
            ]
            for gateway in itertools.cycle(gateways):
                if stop.wait(PAUSE_SECONDS):
                    return
                if _is_ready(gateway):
                    self._try(
                        "rest", lambda gateway=gateway: gateway.get(f"/v1/{self._turned.loop}").raise_for_status()
                    )

    def _channel(self) -> grpc.Channel:
        return grpc.insecure_channel(f"ipv4:{self._home.addresses('gateway_grpc')}", CHANNEL)

    def _how(self) -> dict[str, object]:
        return {"timeout": DEADLINE_SECONDS, "metadata": [("authorization", f"Bearer {self._key}")]}

    def _try(self, caller: str, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - none may come
            self.failures.append(f"{caller}: {error}")
        else:
            self.counts[caller] += 1


def _is_ready(gateway: httpx.Client) -> bool:
    try:
        return gateway.get("/healthz/ready").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
