"""Obeys a command: sends its request to the peer whose it is."""

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message
from vesta_common.errors import AlreadyExists
from vesta_contracts.annotation.v1 import BatchCreateTasksRequest, CreateCampaignRequest, UpdateCampaignRequest
from vesta_contracts.datasets.v1 import CreateSnapshotRequest
from vesta_contracts.serving.v1 import CreateDeploymentRequest, UpdateDeploymentRequest
from vesta_contracts.training.v1 import CreateTrainingRunRequest

from vesta_conductor.peers import Peers

REQUESTS: tuple[type[Message], ...] = (
    CreateCampaignRequest,
    UpdateCampaignRequest,
    BatchCreateTasksRequest,
    CreateSnapshotRequest,
    CreateTrainingRunRequest,
    CreateDeploymentRequest,
    UpdateDeploymentRequest,
)


def act(peers: Peers, request: Message) -> None:
    """Sends the request; a repeat of one that was obeyed changes nothing, for it bears the same request_id or value.

    Raises:
        VestaError: what the peer answered. A thing that is there already is no error: it bears a name that only this
            Loop gives, so it is what was asked for.
    """
    ways: Mapping[type[Message], Callable[[Any], Message]] = {
        CreateCampaignRequest: peers.campaigns.CreateCampaign,
        UpdateCampaignRequest: peers.campaigns.UpdateCampaign,
        BatchCreateTasksRequest: peers.tasks.BatchCreateTasks,
        CreateSnapshotRequest: peers.snapshots.CreateSnapshot,
        CreateTrainingRunRequest: peers.runs.CreateTrainingRun,
        CreateDeploymentRequest: peers.deployments.CreateDeployment,
        UpdateDeploymentRequest: peers.deployments.UpdateDeployment,
    }
    try:
        ways[type(request)](request)
    except AlreadyExists:
        return


def request_of(type_name: str, body: bytes) -> Message:
    """The request that was kept as its full name and bytes.

    Raises:
        KeyError: it is none of ours.
    """
    return {kind.DESCRIPTOR.full_name: kind for kind in REQUESTS}[type_name].FromString(body)
