"""gRPC stubs of the services that the conductor calls."""

from dataclasses import dataclass

import grpc
from vesta_contracts.annotation.v1 import CampaignServiceStub, TaskServiceStub
from vesta_contracts.datasets.v1 import DatasetServiceStub, ItemServiceStub, SnapshotServiceStub, TaxonomyServiceStub
from vesta_contracts.serving.v1 import DeploymentServiceStub
from vesta_contracts.training.v1 import ModelServiceStub, RecipeServiceStub, TrainingRunServiceStub


@dataclass(frozen=True)
class Peers:
    """One stub per gRPC service."""

    datasets: DatasetServiceStub
    items: ItemServiceStub
    snapshots: SnapshotServiceStub
    taxonomies: TaxonomyServiceStub
    campaigns: CampaignServiceStub
    tasks: TaskServiceStub
    runs: TrainingRunServiceStub
    models: ModelServiceStub
    recipes: RecipeServiceStub
    deployments: DeploymentServiceStub

    @classmethod
    def of_channels(
        cls, datasets: grpc.Channel, annotation: grpc.Channel, training: grpc.Channel, serving: grpc.Channel
    ) -> "Peers":
        """Creates the stubs from one channel per service."""
        return cls(
            datasets=DatasetServiceStub(datasets),
            items=ItemServiceStub(datasets),
            snapshots=SnapshotServiceStub(datasets),
            taxonomies=TaxonomyServiceStub(datasets),
            campaigns=CampaignServiceStub(annotation),
            tasks=TaskServiceStub(annotation),
            runs=TrainingRunServiceStub(training),
            models=ModelServiceStub(training),
            recipes=RecipeServiceStub(training),
            deployments=DeploymentServiceStub(serving),
        )
