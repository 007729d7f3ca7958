"""The cost of calls: CPU time in each service, for sizing. One core provides 1000 ms per second."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from experts import hire
from figures import Figure
from loop import Turned
from pictures import jpegs
from processor_time import families_seconds
from vesta import Vesta
from vesta_common.identity import PEERS
from vesta_common.ids import new_id
from vesta_contracts.annotation.v1 import (
    BatchCreateTasksRequest,
    Campaign,
    CreateCampaignRequest,
    CreateSubmissionRequest,
    LeasePurpose,
    LeaseTasksRequest,
    Submission,
    Task,
)
from vesta_contracts.conductor.v1 import GetLoopRequest, ListLoopsRequest
from vesta_contracts.connection.v1 import CreateSourceRequest, Source, UploadSource
from vesta_contracts.datasets.v1 import ListItemsRequest
from vesta_contracts.gateway.v1 import Role
from vesta_contracts.training.v1 import ListModelsRequest
from vesta_local.platform import Platform

CLIENTS = 8
SECONDS = 5.0
PAGE = 50
PICTURES = 256
WIDTH_PX, HEIGHT_PX = 640, 480
LEASED = 1  # one task at a time, as by an annotator who looks at one image after another
GOALS_MS = {"get": 4.0, "list": 8.0, "answer": 16.0, "upload": 40.0, "predict": 20.0, "train_list": 5.0}
FLOOR = 3.0
"""The factor by which the cost of a call may exceed its goal on another machine."""

Act = Callable[[int], object]


def measure(owner: Vesta, platform: Platform, turned: Turned) -> Iterator[Figure]:
    """`capacity_<call>_ms`: CPU milliseconds per call in all services, with the part of each service and the calls
    per second.
    """
    pids = {name: platform.supervisor.pid(name) for name in platform.names if name in PEERS}
    with ExitStack() as stack:
        address, key = platform.home.address("gateway_grpc"), platform.home.owner_key
        clients = [stack.enter_context(Vesta(address, key)) for _ in range(CLIENTS)]
        folder = Path(stack.enter_context(TemporaryDirectory()))
        for name, act in _acts(owner, platform, turned, clients, folder).items():
            begun = families_seconds(pids)
            time.sleep(SECONDS)  # the CPU time of the services without calls
            idle = families_seconds(pids)
            calls = _repeat(act)
            end = families_seconds(pids)
            spent = {service: end[service] - 2 * idle[service] + begun[service] for service in pids}
            each = {service: max(0.0, seconds) * 1000 / calls for service, seconds in spent.items()}
            parts = {service: ms for service, ms in each.items() if ms >= 0.05}
            details = {**parts, "calls_per_second": calls / SECONDS}
            goal = GOALS_MS[name]
            yield Figure(
                f"capacity_{name}_ms", sum(each.values()), goal, lower=True, floor=FLOOR * goal, details=details
            )


def _acts(owner: Vesta, platform: Platform, turned: Turned, clients: Sequence[Vesta], folder: Path) -> dict[str, Act]:
    """Returns what client number N does, by the name of the call."""
    world, deployment = turned.world, turned.deployment
    loop = owner.loops.ListLoops(ListLoopsRequest(parent=world.project)).loops[0].name
    pictures = list(jpegs(PICTURES, WIDTH_PX, HEIGHT_PX))
    number = itertools.count()
    answer = _answering(owner, platform, turned)
    source = owner.sources.CreateSource(
        CreateSourceRequest(
            parent=world.project,
            source_id=f"capacity-{new_id()[-6:]}",
            source=Source(dataset=world.dataset.name, upload=UploadSource()),
        )
    ).name

    def upload(client: int) -> None:
        drawn = next(number)
        path = folder / f"{drawn}.jpg"
        path.write_bytes(pictures[drawn % PICTURES] + drawn.to_bytes(4, "big"))  # each image is new
        clients[client].upload(source, path)

    return {
        "get": lambda client: clients[client].loops.GetLoop(GetLoopRequest(name=loop)),
        "list": lambda client: clients[client].items.ListItems(
            ListItemsRequest(parent=world.dataset.name, page_size=PAGE)
        ),
        "train_list": lambda client: clients[client].models.ListModels(ListModelsRequest(parent=world.project)),
        "answer": answer,
        "predict": lambda client: clients[client].predict(deployment, [pictures[next(number) % PICTURES]]),
        "upload": upload,
    }


def _answering(owner: Vesta, platform: Platform, turned: Turned) -> Act:
    """Leases and answers a task, in a campaign over all items, which has more tasks than can be answered in the time."""
    world = turned.world
    campaign = owner.campaigns.CreateCampaign(
        CreateCampaignRequest(
            parent=world.project,
            campaign_id=f"capacity-{new_id()[-6:]}",
            campaign=Campaign(dataset=world.dataset.name, concepts=world.labels, annotators_per_task=CLIENTS),
        )
    ).name
    tasks = [Task(item=item.name) for item in world.items]
    for some in range(0, len(tasks), 500):
        owner.tasks.BatchCreateTasks(BatchCreateTasksRequest(parent=campaign, tasks=tasks[some : some + 500]))
    address = platform.home.address("gateway_grpc")
    annotators = [
        hire(owner, address, world.project, f"capacity-{client}", Role.ROLE_ANNOTATOR) for client in range(CLIENTS)
    ]

    def answer(client: int) -> None:
        lease = LeaseTasksRequest(parent=campaign, purpose=LeasePurpose.LEASE_PURPOSE_ANNOTATE, count=LEASED)
        for task in annotators[client].tasks.LeaseTasks(lease).tasks:
            given = Submission(annotations=world.truth(task.item))
            annotators[client].submissions.CreateSubmission(CreateSubmissionRequest(parent=task.name, submission=given))

    return answer


def _repeat(act: Act) -> int:
    """Returns how many calls all clients together make in the time."""
    stop = threading.Event()
    done = [0] * CLIENTS

    def work(client: int) -> None:
        while not stop.is_set():
            act(client)
            done[client] += 1

    with ThreadPoolExecutor(CLIENTS) as pool:
        working = [pool.submit(work, client) for client in range(CLIENTS)]
        stop.wait(SECONDS)
        stop.set()
        for one in working:
            one.result()
    return sum(done)
