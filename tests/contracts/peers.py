"""A peer service as its callers see it, whether it is real or one of the fakes in the tests of the services."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import pytest
from vesta_common.errors import VestaError
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.annotation.v1 import CampaignServiceStub, TaskServiceStub
from vesta_contracts.conductor.v1 import ProjectServiceStub
from vesta_contracts.connection.v1 import SourceServiceStub
from vesta_contracts.datasets.v1 import DatasetServiceStub, ItemServiceStub, SnapshotServiceStub, TaxonomyServiceStub
from vesta_contracts.serving.v1 import DeploymentServiceStub
from vesta_contracts.training.v1 import ModelServiceStub, RecipeServiceStub, TrainingRunServiceStub

S = TypeVar("S")

UNKNOWN_ITEMS = ("missing", "missing-too")
"""Ids of items that no dataset has."""


@dataclass(frozen=True)
class Resources:
    """Names of what a peer has. A fake leaves out what it does not simulate.

    Attributes:
        items: of `dataset`, in order of creation.
        labelled: those of them that are labelled.
        concepts: ids of the taxonomy's concepts, in order.
        retired: ids of those that are retired.
        spare_dataset: for tests that add items.
        source: of kind upload, into the spare dataset.
        folder: a source of kind folder.
        model_version: of a classification model with the concepts `model_concepts`.
        deployments: of the model version; the first one is ready.
    """

    project: str = "projects/acme"
    taxonomy: str = ""
    concepts: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()
    dataset: str = ""
    spare_dataset: str = ""
    items: tuple[str, ...] = ()
    labelled: tuple[str, ...] = ()
    snapshot: str = ""
    source: str = ""
    folder: str = ""
    campaign: str = ""
    model_version: str = ""
    model_concepts: tuple[str, ...] = ()
    deployments: tuple[str, ...] = ()


class Peer:
    """Stubs of a peer, and the names of its resources.

    Args:
        channels: by the service that they lead to.
        objects: the object store of the peer.
    """

    def __init__(self, resources: Resources, channels: Mapping[str, grpc.Channel], objects: ObjectStore) -> None:
        self.has = resources
        self.objects = objects
        self.called: set[str] = set()
        self._channels = channels
        self.projects = self._stub(ProjectServiceStub)
        self.sources = self._stub(SourceServiceStub)
        self.datasets = self._stub(DatasetServiceStub)
        self.taxonomies = self._stub(TaxonomyServiceStub)
        self.items = self._stub(ItemServiceStub)
        self.snapshots = self._stub(SnapshotServiceStub)
        self.campaigns = self._stub(CampaignServiceStub)
        self.tasks = self._stub(TaskServiceStub)
        self.runs = self._stub(TrainingRunServiceStub)
        self.models = self._stub(ModelServiceStub)
        self.recipes = self._stub(RecipeServiceStub)
        self.deployments = self._stub(DeploymentServiceStub)

    def _stub(self, kind: Callable[[grpc.Channel], S]) -> S | None:
        """Returns a stub that records its calls in `called`; None if no channel leads to the service."""
        channel = self._channels.get(kind.__module__.split(".")[1])
        return channel and kind(grpc.intercept_channel(channel, _Recorder(self.called)))


class _Recorder(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamUnaryClientInterceptor):
    """Records the methods that are called, such as `ItemService.GetItem`."""

    def __init__(self, called: set[str]) -> None:
        self._called = called

    def _record(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        self._called.add(details.method.rpartition(".")[2].replace("/", "."))
        return continuation(details, request)

    intercept_unary_unary = intercept_unary_stream = intercept_stream_unary = _record


@contextmanager
def refused(kind: type[VestaError], reason: str, **metadata: str) -> Iterator[None]:
    """Expects an error of this class with exactly this reason and metadata."""
    with pytest.raises(kind) as caught:
        yield
    assert (caught.value.reason, caught.value.metadata) == (reason, metadata)
