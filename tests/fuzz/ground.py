"""Where fuzz tests happen: a project of their own with one resource of each kind that costs nothing."""

from dataclasses import dataclass
from pathlib import Path

import grpc
from vesta import Vesta
from vesta_common.ids import new_id
from vesta_contracts.annotation.v1 import BatchCreateTasksRequest, Campaign, CreateCampaignRequest, Task
from vesta_contracts.common.v1 import Annotation, ImageLabel
from vesta_contracts.conductor.v1 import CreateProjectRequest, Project
from vesta_contracts.connection.v1 import CreateSourceRequest, Source, UploadSource
from vesta_contracts.datasets.v1 import (
    BatchAnnotateItemsRequest,
    Concept,
    CreateDatasetRequest,
    CreateSnapshotRequest,
    CreateTaxonomyRequest,
    Dataset,
    ItemAnnotations,
    ListItemsRequest,
    Snapshot,
    Taxonomy,
)
from vesta_contracts.gateway.v1 import ApiKey, CreateApiKeyRequest
from vesta_contracts.training.v1 import ListRecipesRequest


@dataclass(frozen=True)
class Ground:
    """Where the cases happen.

    Attributes:
        rest: the base URL.
        channel: to the gateway's gRPC address.
        metadata: what authenticates a gRPC call.
        existing: the names of what exists, by type.
        files: files of images.
    """

    rest: str
    channel: grpc.Channel
    owner_key: str
    project: str
    existing: dict[str, list[str]]
    files: list[bytes]

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """The key of the platform's owner, to whom every door is open."""
        return [("authorization", f"Bearer {self.owner_key}")]


@dataclass(frozen=True)
class Effort:
    """How much is tried.

    Attributes:
        cases: over all RPCs together, for each test.
        seed: of the random numbers; the suite has one of its own, so that it tries the same each time.
    """

    cases: int
    seed: int


def furnish(owner: Vesta, files: list[bytes], folder: Path) -> dict[str, list[str]]:
    """Makes a project with what the cases can name. No loop and no pipeline is made, nor trained, for they would go on working."""
    project = owner.projects.CreateProject(CreateProjectRequest(project_id=f"f{new_id()}", project=Project())).name
    taxonomy = owner.taxonomies.CreateTaxonomy(
        CreateTaxonomyRequest(
            parent=project, taxonomy_id="t", taxonomy=Taxonomy(concepts=[Concept(id="thing"), Concept(id="concept")])
        )
    ).name
    dataset = owner.datasets.CreateDataset(
        CreateDatasetRequest(parent=project, dataset_id="d", dataset=Dataset(taxonomy=taxonomy))
    ).name
    source = owner.sources.CreateSource(
        CreateSourceRequest(parent=project, source_id="desk", source=Source(dataset=dataset, upload=UploadSource()))
    ).name
    for number, data in enumerate(files):
        path = folder / f"{number}.jpg"
        path.write_bytes(data)
        owner.upload(source, path)
    items = [item.name for item in owner.pages(owner.items.ListItems, ListItemsRequest(parent=dataset))]
    labels = [ItemAnnotations(item=items[0], annotations=[Annotation(concept="thing", image_label=ImageLabel())])]
    owner.items.BatchAnnotateItems(BatchAnnotateItemsRequest(parent=dataset, items=labels))
    snapshot = owner.snapshots.CreateSnapshot(
        CreateSnapshotRequest(parent=dataset, snapshot_id="s", snapshot=Snapshot())
    ).name
    campaign = owner.campaigns.CreateCampaign(
        CreateCampaignRequest(parent=project, campaign_id="c", campaign=Campaign(dataset=dataset))
    ).name
    tasks = owner.tasks.BatchCreateTasks(
        BatchCreateTasksRequest(parent=campaign, tasks=[Task(item=item) for item in items])
    ).tasks
    api_key = owner.api_keys.CreateApiKey(
        CreateApiKeyRequest(parent=project, api_key=ApiKey(member=f"{project}/members/owner"))
    ).name
    recipes = owner.recipes.ListRecipes(ListRecipesRequest(parent=project)).recipes
    return {
        "vesta/Project": [project],
        "vesta/Taxonomy": [taxonomy],
        "vesta/Dataset": [dataset],
        "vesta/Source": [source],
        "vesta/Item": items,
        "vesta/Snapshot": [snapshot],
        "vesta/Campaign": [campaign],
        "vesta/Task": [task.name for task in tasks],
        "vesta/Member": [f"{project}/members/owner"],
        "vesta/ApiKey": [api_key],
        "vesta/Recipe": [recipe.name for recipe in recipes],
    }
