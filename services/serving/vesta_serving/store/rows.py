"""Rows of the tables as values."""

from dataclasses import dataclass
from datetime import datetime

from vesta_common.leases import Row
from vesta_contracts.serving.v1 import Deployment


@dataclass(frozen=True)
class DeploymentRow:
    """A stored deployment.

    Attributes:
        spec: the fields that the user sets: display name, policy, datasets.
        use_time: when it last predicted, to the minute.
        generation: increases with every change of what the deployment serves. Never reused by a later deployment of the same name.
    """

    name: str
    spec: Deployment
    wanted: str
    stable: str
    previous: str
    state: str
    error: str
    generation: int
    create_time: datetime
    update_time: datetime
    use_time: datetime


@dataclass(frozen=True)
class StoredParts:
    """How Triton serves a version.

    Attributes:
        triton_name: the name of its model in Triton.
        head: ONNX; None if Triton returns all outputs.
    """

    triton_name: str
    head: bytes | None


@dataclass(frozen=True)
class Pass:
    """One scoring pass over a dataset by one generation of a deployment."""

    deployment: str
    dataset: str
    generation: int
    embeds: bool
    page_token: str
    scored_count: int
    item_count: int
    done: bool


def pass_of(row: Row) -> Pass:
    """Returns the pass of a row."""
    fields = ("deployment", "dataset", "generation", "embeds", "page_token", "scored_count", "item_count", "done")
    return Pass(**{field: row[field] for field in fields})
