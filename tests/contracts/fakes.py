"""The fakes of peer services in the tests of each service, with the names of what they have."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import annotation_builders as annotation
import conductor_simulation as conductor
import connection_builders as connection
import gateway_services as gateway
import numpy as np
import pipelining_builders as pipelining
import serving_builders as serving
import serving_models
import training_service as training
from peers import UNKNOWN_ITEMS, Resources
from vesta_common.clock import ManualClock
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.conductor.v1 import Project
from vesta_contracts.datasets.v1 import CreateSnapshotRequest, Dataset, ItemEmbedding
from vesta_contracts.serving.v1 import CreateDeploymentRequest, Deployment
from vesta_contracts.training.v1 import CreateTrainingRunRequest, GetTrainingRunRequest, TrainingRun

PROJECT = "projects/acme"


@dataclass(frozen=True)
class Fakes:
    """The fakes in the tests of one service, which calls them.

    Attributes:
        kinds: the classes of their servicers.
        make: creates the servicers, and returns them with what they have. The object store is for those that keep files there.
    """

    kinds: tuple[type, ...]
    make: Callable[[ObjectStore], tuple[Sequence[Any], Resources]]


def _of_annotation(_: ObjectStore) -> tuple[Sequence[Any], Resources]:
    items = annotation.FakeItems()
    items.gone = {annotation.item(name) for name in UNKNOWN_ITEMS}
    return (annotation.FakeDatasets(), annotation.FakeTaxonomies(), items), Resources(
        taxonomy=annotation.TAXONOMY,
        concepts=annotation.CONCEPTS,
        retired=("tram",),
        dataset=annotation.DATASET,
        items=tuple(map(annotation.item, ("one", "two", "three"))),
    )


def _of_connection(_: ObjectStore) -> tuple[Sequence[Any], Resources]:
    items = connection.FakeDatasets()
    return (items, connection.OneDataset(items)), Resources(
        dataset=connection.DATASET, spare_dataset=connection.DATASET
    )


def _of_training(_: ObjectStore) -> tuple[Sequence[Any], Resources]:
    deployments = training.SomeDeployments()
    names = tuple(f"{training.PROJECT}/deployments/{name}" for name in ("vans", "cars", "trams"))
    deployments.known = [
        Deployment(name=name, model_version=f"{training.PROJECT}/models/m/versions/1") for name in names
    ]
    servicers = training.OneSnapshot(), training.OneDataset(), training.OneTaxonomy(), deployments
    return servicers, Resources(
        deployments=names,
        dataset=training.DATASET,
        taxonomy=training.TAXONOMY,
        concepts=training.CONCEPTS,
        snapshot=training.SNAPSHOT,
    )


def _of_serving(store: ObjectStore) -> tuple[Sequence[Any], Resources]:
    registry, items = serving.FakeRegistry(store), serving.FakeItems(store)
    names = tuple(items.add(serving.a_picture(colour)).name for colour in serving.CONCEPTS)
    for name in names:
        items.embeddings[name] = ItemEmbedding(digest="space", values=np.array([1, 0, 0, 0], "<f4").tobytes())
    return (registry, items, serving.FakeDatasets(items)), Resources(
        dataset=serving.DATASET, items=names, model_version=registry.add(serving_models.an_onnx())
    )


def _of_pipelining(_: ObjectStore) -> tuple[Sequence[Any], Resources]:
    return (pipelining.FakeServing(), pipelining.FakeConnection()), Resources(
        source=pipelining.SOURCE,
        folder=pipelining.FOLDER,
        deployments=(pipelining.DEPLOYMENT,),
        model_version=pipelining.MODEL_VERSION,
        model_concepts=("van", "car"),
    )


def _of_conductor(_: ObjectStore) -> tuple[Sequence[Any], Resources]:
    platform = conductor.SimulatedPlatform(ManualClock(), Random(1), train=6, test=2)
    items = tuple(platform.items)
    for item in items[:2]:
        platform.label(item, platform.truth(item))
    version, deployment = _deploy(platform)
    return platform.servicers(), Resources(
        taxonomy=conductor.TAXONOMY,
        concepts=conductor.CONCEPTS,
        dataset=conductor.DATASET,
        items=items,
        labelled=items[:2],
        model_version=version,
        deployments=(deployment,),
    )


def _deploy(platform: conductor.SimulatedPlatform) -> tuple[str, str]:
    """Trains and deploys a model; returns the names of its version and of its deployment."""
    peers = platform.peers()
    snapshot = peers.snapshots.CreateSnapshot(CreateSnapshotRequest(parent=conductor.DATASET, snapshot_id="first"))
    run = TrainingRun(
        snapshot=snapshot.name, recipe=f"{PROJECT}/recipes/classification", model=f"{PROJECT}/models/vans"
    )
    made = peers.runs.CreateTrainingRun(
        CreateTrainingRunRequest(parent=PROJECT, training_run_id="first", training_run=run)
    )
    for _ in range(2):
        platform.live()
    version = peers.runs.GetTrainingRun(GetTrainingRunRequest(name=made.name)).model_version
    deployment = peers.deployments.CreateDeployment(
        CreateDeploymentRequest(
            parent=PROJECT,
            deployment_id="vans",
            deployment=Deployment(model_version=version, datasets=[conductor.DATASET]),
        )
    )
    platform.live()
    return version, deployment.name


def _of_gateway(_: ObjectStore) -> tuple[Sequence[Any], Resources]:
    services, dataset, taxonomy = gateway.Services(), f"{PROJECT}/datasets/vans", f"{PROJECT}/taxonomies/vehicles"
    services.projects[PROJECT] = Project(name=PROJECT)
    services.datasets[dataset] = Dataset(name=dataset, taxonomy=taxonomy)
    return services.servicers(), Resources(
        taxonomy=taxonomy,
        dataset=dataset,
        items=(f"{dataset}/items/i",),
        source=f"{PROJECT}/sources/desk",
        deployments=(f"{PROJECT}/deployments/vans",),
    )


FAKES = {
    "annotation": Fakes((annotation.FakeDatasets, annotation.FakeTaxonomies, annotation.FakeItems), _of_annotation),
    "connection": Fakes((connection.OneDataset, connection.FakeDatasets), _of_connection),
    "training": Fakes(
        (training.OneSnapshot, training.OneDataset, training.OneTaxonomy, training.SomeDeployments), _of_training
    ),
    "serving": Fakes((serving.FakeRegistry, serving.FakeItems, serving.FakeDatasets), _of_serving),
    "pipelining": Fakes((pipelining.FakeServing, pipelining.FakeConnection), _of_pipelining),
    "conductor": Fakes(conductor.SERVICERS, _of_conductor),
    "gateway": Fakes((gateway.Services,), _of_gateway),
}
