"""Many deployments on one Triton: memory at 1, 10 and 100 deployments, throughput in turn, and the time to load an unloaded model."""

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence

import onnx
import psutil
from figures import Figure
from loop import Turned
from onnx import numpy_helper
from pictures import jpegs
from serving import CLIENTS, deployed_version, model_file, per_second
from tritonclient.grpc import InferenceServerClient
from vesta import ApiError, Vesta
from vesta_common.clock import SystemClock
from vesta_common.ids import new_id
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.postgres import Postgres, address_of
from vesta_contracts.conductor.v1 import CreateProjectRequest, Project
from vesta_contracts.serving.v1 import CreateDeploymentRequest, Deployment, GetDeploymentRequest
from vesta_contracts.training.v1 import GetModelVersionRequest, ModelVersion, TrainingRun
from vesta_local.engines.addresses import admin_settings
from vesta_local.platform import Platform
from vesta_training.models.model_file import BIAS
from vesta_training.store import Store

COUNTS = (1, 10, 100)
IN_TURN = 20
TURNS = 3
PICTURES = 64
WIDTH_PX, HEIGHT_PX = 640, 480
READY_SECONDS_MAX = 120
MEMORY_GOAL_MIB = 1536
TURN_GOAL, TURN_FLOOR = 0.8, 0.7
WAKE_GOAL_SECONDS, WAKE_FLOOR_SECONDS = 2.0, 6.0


def measure(owner: Vesta, platform: Platform, turned: Turned) -> Iterator[Figure]:
    """Yields `deployments_memory_mib`, `deployments_in_turn` and `deployment_wake_seconds`.

    Each deployment is in a project of its own and has a head of its own, on the backbone of the loop's model. The versions are
    registered in the tables of the training service, because training a hundred of them takes too long.
    """
    versions = _Versions(owner, platform, turned)
    pictures = list(jpegs(PICTURES, WIDTH_PX, HEIGHT_PX))
    names: list[str] = []
    memory: dict[str, float] = {}
    for count in COUNTS:
        while len(names) < count:
            names.append(_deploy(owner, versions))
        for name in names:
            _first_answer(owner, name, pictures[0])
        memory |= {
            f"{engine}_at_{count}": _memory_mib(platform.supervisor.pid(engine)) for engine in ("inference", "serving")
        }
    yield Figure(
        "deployments_memory_mib",
        memory[f"inference_at_{COUNTS[-1]}"] + memory[f"serving_at_{COUNTS[-1]}"],
        MEMORY_GOAL_MIB,
        lower=True,
        details=memory,
    )
    yield _in_turn(platform, names[:IN_TURN], pictures)
    yield _wake(owner, platform, names[0], pictures[0])


class _Versions:
    """Registers versions that differ from the loop's model in their head alone."""

    def __init__(self, owner: Vesta, platform: Platform, turned: Turned) -> None:
        settings = admin_settings(platform.home)
        self._store = Store(Postgres(address_of(settings), "training"), SystemClock())
        self._objects = ObjectStore.of(settings)
        stable = owner.deployments.GetDeployment(GetDeploymentRequest(name=turned.deployment)).stable_version
        self._version = owner.models.GetModelVersion(GetModelVersionRequest(name=stable))
        self._model = onnx.load_model_from_string(model_file(owner, deployed_version(owner, turned.deployment).name))
        self._number = itertools.count(1)

    def register(self, project: str) -> str:
        """Returns the name of a new version in a project."""
        number = next(self._number)
        (bias,) = (constant for constant in self._model.graph.initializer if constant.name == BIAS)
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + number / 1000, BIAS))
        stored = self._objects.put("models", self._model.SerializeToString())
        version = ModelVersion()
        version.CopyFrom(self._version)
        version.onnx_key, version.digest = stored.key, stored.sha256
        run = TrainingRun(name=f"{project}/trainingRuns/{new_id()}", model=f"{project}/models/photographs")
        with self._store.postgres.connect() as connection:
            self._store.models.register(connection, run, version, self._store.clock.now())
            connection.commit()
        return str(version.name)


def _deploy(owner: Vesta, versions: _Versions) -> str:
    project = owner.projects.CreateProject(
        CreateProjectRequest(project_id=f"deployments-{new_id()}", project=Project(display_name="Deployments"))
    ).name
    deployment = Deployment(model_version=versions.register(project))
    request = CreateDeploymentRequest(parent=project, deployment_id="photographs", deployment=deployment)
    return str(owner.deployments.CreateDeployment(request).name)


def _first_answer(owner: Vesta, deployment: str, picture: bytes) -> None:
    """Predicts once the deployment is ready.

    Raises:
        ApiError: it is not ready in time.
    """
    deadline = time.monotonic() + READY_SECONDS_MAX
    is_ready = False
    while not is_ready:
        try:
            owner.predict(deployment, [picture])
            is_ready = True
        except ApiError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _memory_mib(pid: int) -> float:
    """Returns the proportional set size of a process and its descendants."""
    process = psutil.Process(pid)
    processes = (process, *process.children(recursive=True))
    return float(sum(each.memory_full_info().pss for each in processes)) / 2**20


def _in_turn(platform: Platform, deployments: Sequence[str], pictures: Sequence[bytes]) -> Figure:
    clients = [Vesta(platform.home.address("gateway_grpc"), platform.home.owner_key) for _ in range(CLIENTS)]
    number = itertools.count()
    several, one = [], []
    try:
        for _ in range(TURNS):
            one.append(
                per_second(
                    CLIENTS, lambda client, picture: clients[client].predict(deployments[0], [picture]), pictures
                )
            )
            several.append(
                per_second(
                    CLIENTS,
                    lambda client, picture: clients[client].predict(
                        deployments[next(number) % len(deployments)], [picture]
                    ),
                    pictures,
                )
            )
    finally:
        for client in clients:
            client.close()
    return Figure(
        "deployments_in_turn",
        statistics.median(several) / statistics.median(one),
        TURN_GOAL,
        lower=False,
        floor=TURN_FLOOR,
        baseline=f"images per second of one deployment, beside {len(deployments)} used in turn",
        details={"one": statistics.median(one), "several": statistics.median(several)},
    )


def _wake(owner: Vesta, platform: Platform, deployment: str, picture: bytes) -> Figure:
    """The time of the first request after Triton has unloaded the model, as it does when no deployment is used."""
    seconds = []
    with InferenceServerClient(platform.home.address("inference")) as triton:
        for _ in range(TURNS):
            for model in triton.get_model_repository_index().models:
                triton.unload_model(model.name)
            began = time.perf_counter()
            owner.predict(deployment, [picture])
            seconds.append(time.perf_counter() - began)
    return Figure("deployment_wake_seconds", max(seconds), WAKE_GOAL_SECONDS, lower=True, floor=WAKE_FLOOR_SECONDS)
