"""Executes a command by calling the service that owns the resource."""

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


def execute(peers: Peers, request: Message) -> None:
    """Sends the request. A repeat has no further effect, because it has the same request_id or sets the same value.

    Raises:
        VestaError: the service's error. AlreadyExists is not an error: only this Loop uses the name, so the resource is the
            requested one.
    """
    methods: Mapping[type[Message], Callable[[Any], Message]] = {
        CreateCampaignRequest: peers.campaigns.CreateCampaign,
        UpdateCampaignRequest: peers.campaigns.UpdateCampaign,
        BatchCreateTasksRequest: peers.tasks.BatchCreateTasks,
        CreateSnapshotRequest: peers.snapshots.CreateSnapshot,
        CreateTrainingRunRequest: peers.runs.CreateTrainingRun,
        CreateDeploymentRequest: peers.deployments.CreateDeployment,
        UpdateDeploymentRequest: peers.deployments.UpdateDeployment,
    }
    try:
        methods[type(request)](request)
    except AlreadyExists:
        return


def request_of(type_name: str, body: bytes) -> Message:
    """Parses a stored request.

    Raises:
        KeyError: the type is not one of `REQUESTS`.
    """
    return {kind.DESCRIPTOR.full_name: kind for kind in REQUESTS}[type_name].FromString(body)
