"""The resources of a Project in other services: how each kind is listed and deleted. Calls the other services."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from vesta_contracts.annotation.v1 import CampaignServiceStub, DeleteCampaignRequest, ListCampaignsRequest
from vesta_contracts.connection.v1 import (
    CancelSyncRequest,
    DeleteSourceRequest,
    ListSourcesRequest,
    ListSyncsRequest,
    SourceServiceStub,
    Sync,
    SyncServiceStub,
)
from vesta_contracts.datasets.v1 import (
    DatasetServiceStub,
    DeleteDatasetRequest,
    DeleteTaxonomyRequest,
    ListDatasetsRequest,
    ListTaxonomiesRequest,
    TaxonomyServiceStub,
)
from vesta_contracts.pipelining.v1 import DeletePipelineRequest, ListPipelinesRequest, PipelineServiceStub
from vesta_contracts.serving.v1 import DeleteDeploymentRequest, DeploymentServiceStub, ListDeploymentsRequest
from vesta_contracts.training.v1 import (
    CancelStudyRequest,
    CancelTrainingRunRequest,
    DeleteModelRequest,
    DeletePretrainedDetectorRequest,
    DeleteRecipeRequest,
    DeleteStudyRequest,
    DeleteTrainingRunRequest,
    ListModelsRequest,
    ListPretrainedDetectorsRequest,
    ListRecipesRequest,
    ListStudiesRequest,
    ListTrainingRunsRequest,
    ModelServiceStub,
    PretrainedDetectorServiceStub,
    RecipeServiceStub,
    StudyServiceStub,
    TrainingRunServiceStub,
)

PEERS = ("connection", "datasets", "annotation", "training", "serving", "pipelining")
LISTED_MAX = 1000  # names of one kind that are listed at a time
SYNCS_LISTED_MAX = 100  # the newest of a source; a sync that has not ended is among them


@dataclass(frozen=True)
class ChildResource:
    """One kind of resource directly below a Project in the resource hierarchy.

    Attributes:
        plural: as in resource names, such as `datasets`.
        names: takes a Project's name and returns the names of up to `LISTED_MAX` resources.
        delete: deletes the resource of that name with everything below it. A repeat is safe. Raises the service's error, such as
            FailedPrecondition while the resource is in use.
    """

    plural: str
    names: Callable[[str], list[str]]
    delete: Callable[[str], object]


def child_resources_of(channels: Mapping[str, grpc.Channel]) -> tuple[ChildResource, ...]:
    """Returns every kind in the order of deletion: a kind that creates or uses another one comes before it.

    Args:
        channels: one for each of `PEERS`.
    """
    pipelines = PipelineServiceStub(channels["pipelining"])
    deployments = DeploymentServiceStub(channels["serving"])
    campaigns = CampaignServiceStub(channels["annotation"])
    studies, runs = StudyServiceStub(channels["training"]), TrainingRunServiceStub(channels["training"])
    pretrained = PretrainedDetectorServiceStub(channels["training"])
    models, recipes = ModelServiceStub(channels["training"]), RecipeServiceStub(channels["training"])
    sources, syncs = SourceServiceStub(channels["connection"]), SyncServiceStub(channels["connection"])
    datasets, taxonomies = DatasetServiceStub(channels["datasets"]), TaxonomyServiceStub(channels["datasets"])

    def delete_study(name: str) -> None:
        studies.CancelStudy(CancelStudyRequest(name=name))
        studies.DeleteStudy(DeleteStudyRequest(name=name))

    def delete_run(name: str) -> None:
        runs.CancelTrainingRun(CancelTrainingRunRequest(name=name))
        runs.DeleteTrainingRun(DeleteTrainingRunRequest(name=name))

    def delete_source(name: str) -> None:
        for sync in syncs.ListSyncs(ListSyncsRequest(parent=name, page_size=SYNCS_LISTED_MAX)).syncs:
            if sync.state in (Sync.QUEUED, Sync.RUNNING):
                syncs.CancelSync(CancelSyncRequest(name=sync.name))
        sources.DeleteSource(DeleteSourceRequest(name=name))

    return (
        ChildResource(
            "pipelines",
            _names_by(pipelines.ListPipelines, ListPipelinesRequest, "pipelines"),
            lambda name: pipelines.DeletePipeline(DeletePipelineRequest(name=name)),
        ),
        ChildResource(
            "deployments",
            _names_by(deployments.ListDeployments, ListDeploymentsRequest, "deployments"),
            lambda name: deployments.DeleteDeployment(DeleteDeploymentRequest(name=name)),
        ),
        ChildResource(
            "campaigns",
            _names_by(campaigns.ListCampaigns, ListCampaignsRequest, "campaigns"),
            lambda name: campaigns.DeleteCampaign(DeleteCampaignRequest(name=name)),
        ),
        ChildResource("studies", _names_by(studies.ListStudies, ListStudiesRequest, "studies"), delete_study),
        ChildResource(
            "trainingRuns", _names_by(runs.ListTrainingRuns, ListTrainingRunsRequest, "training_runs"), delete_run
        ),
        ChildResource(
            "models",
            _names_by(models.ListModels, ListModelsRequest, "models"),
            lambda name: models.DeleteModel(DeleteModelRequest(name=name, force=True)),
        ),
        ChildResource(
            "pretrainedDetectors",
            _names_by(pretrained.ListPretrainedDetectors, ListPretrainedDetectorsRequest, "pretrained_detectors"),
            lambda name: pretrained.DeletePretrainedDetector(DeletePretrainedDetectorRequest(name=name)),
        ),
        ChildResource(
            "recipes",
            _names_by(recipes.ListRecipes, ListRecipesRequest, "recipes"),
            lambda name: recipes.DeleteRecipe(DeleteRecipeRequest(name=name)),
        ),
        ChildResource("sources", _names_by(sources.ListSources, ListSourcesRequest, "sources"), delete_source),
        ChildResource(
            "datasets",
            _names_by(datasets.ListDatasets, ListDatasetsRequest, "datasets"),
            lambda name: datasets.DeleteDataset(DeleteDatasetRequest(name=name)),
        ),
        ChildResource(
            "taxonomies",
            _names_by(taxonomies.ListTaxonomies, ListTaxonomiesRequest, "taxonomies"),
            lambda name: taxonomies.DeleteTaxonomy(DeleteTaxonomyRequest(name=name)),
        ),
    )


def _names_by(call: Callable[[Any], Any], request: Callable[..., Any], field: str) -> Callable[[str], list[str]]:
    """Returns a function that lists the first page of a project without built-in resources, which cannot be deleted."""

    def names(project: str) -> list[str]:
        page = call(request(parent=project, page_size=LISTED_MAX))
        return [resource.name for resource in getattr(page, field) if not getattr(resource, "builtin", False)]

    return names
