"""A small project on the whole platform: a dataset with labelled items, a snapshot, a campaign, a model version and its deployment."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from google.api.httpbody_pb2 import HttpBody
from images import a_jpeg
from peers import Peer, Resources
from vesta import Vesta
from vesta_common.identity import PEERS, Identity
from vesta_common.ids import new_id
from vesta_common.rpc.client import open_channel
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.annotation.v1 import Campaign, CreateCampaignRequest
from vesta_contracts.common.v1 import Annotation, ImageLabel
from vesta_contracts.conductor.v1 import CreateProjectRequest, Project
from vesta_contracts.connection.v1 import CreateSourceRequest, FolderSource, Source, UploadItemRequest, UploadSource
from vesta_contracts.datasets.v1 import (
    BatchAnnotateItemsRequest,
    Concept,
    CreateDatasetRequest,
    CreateSnapshotRequest,
    CreateTaxonomyRequest,
    Dataset,
    GetDatasetRequest,
    ItemAnnotations,
    Snapshot,
    Split,
    SplitPolicy,
    Taxonomy,
)
from vesta_contracts.serving.v1 import CreateDeploymentRequest, Deployment, GetDeploymentRequest
from vesta_contracts.training.v1 import CreateTrainingRunRequest, GetTrainingRunRequest, TrainingRun
from vesta_local import identities
from vesta_local.engines.addresses import admin_settings
from vesta_local.testing import WholePlatform

T = TypeVar("T")

CONCEPTS = ("van", "car", "tram")
RETIRED = ("tram",)
TRAIN_ITEMS, TEST_ITEMS, LABELLED = 9, 2, 6
DEADLINE_SECONDS = 120.0
_ENDED = (TrainingRun.SUCCEEDED, TrainingRun.FAILED, TrainingRun.CANCELLED)


def upload(peer: Peer, source: str, data: bytes, request_id: str = "") -> str:
    """Uploads an image; returns the item's name."""
    message = UploadItemRequest(parent=source, file=HttpBody(data=data), request_id=request_id)
    return peer.sources.UploadItem(iter([message])).item


@contextmanager
def peer_called_by(caller: str, platform: WholePlatform, resources: Resources) -> Iterator[Peer]:
    """Opens channels with the identity of a service to all services that it calls."""
    identity = Identity(identities.credential_files(platform.home.identities, caller))
    objects = ObjectStore.of(admin_settings(platform.home))
    with ExitStack() as stack:
        channels = {
            service: stack.enter_context(open_channel(platform.addresses[service], identity))
            for service in PEERS[caller]
        }
        yield Peer(resources, channels, objects)


def set_up(platform: WholePlatform) -> Resources:
    """Creates the resources; waits until the model is trained and deployed, and all items have its predictions."""
    owner = Vesta(platform.addresses["gateway_grpc"], platform.owner_key)
    project = owner.projects.CreateProject(CreateProjectRequest(project_id=f"t{new_id()}", project=Project())).name
    taxonomy = Taxonomy(concepts=[Concept(id=concept, retired=concept in RETIRED) for concept in CONCEPTS])
    taxonomy = owner.taxonomies.CreateTaxonomy(
        CreateTaxonomyRequest(parent=project, taxonomy_id="vehicles", taxonomy=taxonomy)
    )
    dataset, spare_dataset = (
        owner.datasets.CreateDataset(
            CreateDatasetRequest(
                parent=project,
                dataset_id=dataset_id,
                dataset=Dataset(taxonomy=taxonomy.name, split_policy=SplitPolicy(test_share=0)),
            )
        ).name
        for dataset_id in ("vans", "spare")
    )

    def a_source(source_id: str, dataset: str, **fields: object) -> str:
        source = Source(dataset=dataset, **fields)
        return owner.sources.CreateSource(CreateSourceRequest(parent=project, source_id=source_id, source=source)).name

    train_source = a_source("train", dataset, upload=UploadSource(), split=Split.SPLIT_TRAIN)
    test_source = a_source("test", dataset, upload=UploadSource(), split=Split.SPLIT_TEST)
    source = a_source("desk", spare_dataset, upload=UploadSource())
    folder = a_source("folder", spare_dataset, folder=FolderSource(path=str(platform.home.inbox)))
    with peer_called_by("pipelining", platform, Resources()) as peer:
        items = [upload(peer, train_source, a_jpeg(seed)) for seed in range(TRAIN_ITEMS)]
        items += [upload(peer, test_source, a_jpeg(TRAIN_ITEMS + seed)) for seed in range(TEST_ITEMS)]
    labelled = items[:LABELLED]
    owner.items.BatchAnnotateItems(
        BatchAnnotateItemsRequest(
            parent=dataset,
            items=[
                ItemAnnotations(
                    item=item, annotations=[Annotation(concept=CONCEPTS[place % 2], image_label=ImageLabel())]
                )
                for place, item in enumerate(labelled)
            ],
        )
    )
    snapshot = owner.snapshots.CreateSnapshot(
        CreateSnapshotRequest(parent=dataset, snapshot_id="first", snapshot=Snapshot())
    ).name
    run = owner.training_runs.CreateTrainingRun(
        CreateTrainingRunRequest(
            parent=project,
            training_run_id="first",
            training_run=TrainingRun(
                snapshot=snapshot, recipe=f"{project}/recipes/classification", model=f"{project}/models/vans"
            ),
        )
    )
    campaign = owner.campaigns.CreateCampaign(
        CreateCampaignRequest(parent=project, campaign_id="vans", campaign=Campaign(dataset=dataset))
    ).name
    run = _eventually(
        lambda: owner.training_runs.GetTrainingRun(GetTrainingRunRequest(name=run.name)),
        lambda found: found.state in _ENDED,
    )
    assert run.state == TrainingRun.SUCCEEDED, run.error
    deployments = tuple(
        owner.deployments.CreateDeployment(
            CreateDeploymentRequest(
                parent=project,
                deployment_id=deployment_id,
                deployment=Deployment(model_version=run.model_version, datasets=[dataset]),
            )
        ).name
        for deployment_id in ("vans", "vans-too")
    )
    for deployment in deployments:
        _eventually(
            lambda name=deployment: owner.deployments.GetDeployment(GetDeploymentRequest(name=name)),
            lambda found: found.state == Deployment.READY and found.scoring.scored_count == len(items),
        )
    _eventually(
        lambda: owner.datasets.GetDataset(GetDatasetRequest(name=dataset)).counts,
        lambda counts: counts.embedded_count == counts.scored_count == len(items),
    )
    return Resources(
        project=project,
        taxonomy=taxonomy.name,
        concepts=CONCEPTS,
        retired=RETIRED,
        dataset=dataset,
        spare_dataset=spare_dataset,
        items=tuple(items),
        labelled=tuple(labelled),
        snapshot=snapshot,
        source=source,
        folder=folder,
        campaign=campaign,
        model_version=run.model_version,
        model_concepts=CONCEPTS,
        deployments=deployments,
    )


def _eventually(look: Callable[[], T], wanted: Callable[[T], bool]) -> T:
    """Polls `look` until its result is as wanted; fails after a deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not wanted(found := look()):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found
