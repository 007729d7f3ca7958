"""Items with shapes alone, with none of the concepts, and without a test side: said from the snapshot to the model card."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from photographs import write_digits
from vesta import Vesta
from vesta_common.ids import new_id
from vesta_contracts.common.v1 import Annotation, ImageLabel, PixelBox
from vesta_contracts.conductor.v1 import CreateProjectRequest, Project
from vesta_contracts.connection.v1 import CreateSourceRequest, Source, UploadSource
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
    SplitPolicy,
    Taxonomy,
)
from vesta_contracts.training.v1 import (
    CreateTrainingRunRequest,
    ExclusionCounts,
    GetModelVersionRequest,
    ModelVersion,
    TrainingRun,
)
from vesta_local.testing import WholePlatform

pytestmark = [pytest.mark.platform, pytest.mark.timeout(600)]

BOX = Annotation(concept="0", box=PixelBox(x_min_px=4, y_min_px=4, x_max_px=30, y_max_px=30))


@pytest.fixture
def owner(platform: WholePlatform) -> Iterator[Vesta]:
    with Vesta(platform.addresses["gateway_grpc"], platform.owner_key) as found:
        yield found


def a_dataset(owner: Vesta, samples: Path, policy: SplitPolicy, per_class: int) -> tuple[str, dict[str, list[str]]]:
    """A new project's dataset of zeros and ones, not labelled yet; its name, and its items by what they show."""
    project = owner.projects.CreateProject(CreateProjectRequest(project_id=f"t{new_id()}", project=Project())).name
    taxonomy = owner.taxonomies.CreateTaxonomy(
        CreateTaxonomyRequest(parent=project, taxonomy=Taxonomy(concepts=[Concept(id="0"), Concept(id="1")]))
    ).name
    dataset = owner.datasets.CreateDataset(
        CreateDatasetRequest(parent=project, dataset=Dataset(taxonomy=taxonomy, split_policy=policy))
    ).name
    source = owner.sources.CreateSource(
        CreateSourceRequest(parent=project, source=Source(dataset=dataset, upload=UploadSource()))
    ).name
    folder = write_digits(samples / "digits", per_class)
    return dataset, {
        digit: [owner.upload(source, path).item for path in sorted((folder / digit).iterdir())] for digit in "01"
    }


def annotate(owner: Vesta, dataset: str, told: dict[str, list[Annotation]]) -> None:
    entries = [ItemAnnotations(item=item, annotations=annotations) for item, annotations in told.items()]
    owner.items.BatchAnnotateItems(BatchAnnotateItemsRequest(parent=dataset, items=entries))


def label(concept: str) -> Annotation:
    return Annotation(concept=concept, image_label=ImageLabel())


def trained(owner: Vesta, snapshot: Snapshot) -> tuple[TrainingRun, ModelVersion]:
    project = "/".join(snapshot.name.split("/")[:2])
    wanted = TrainingRun(
        snapshot=snapshot.name, recipe=f"{project}/recipes/classification", model=f"{project}/models/digits"
    )
    run = owner.wait_for_run(
        owner.training_runs.CreateTrainingRun(CreateTrainingRunRequest(parent=project, training_run=wanted)).name
    )
    assert run.state == TrainingRun.SUCCEEDED, run.error
    return run, owner.models.GetModelVersion(GetModelVersionRequest(name=run.model_version))


def test_annotations_other_than_image_labels_are_counted_and_not_trained_on(owner: Vesta, tmp_path: Path) -> None:
    dataset, items = a_dataset(owner, tmp_path, SplitPolicy(), per_class=30)
    told = {item: [label(digit)] for digit, some in items.items() for item in some}
    boxed, none, both = items["1"][0], items["1"][1], items["1"][2]
    told |= {boxed: [BOX], none: [], both: [label("1"), BOX]}
    annotate(owner, dataset, told)
    counts = owner.datasets.GetDataset(GetDatasetRequest(name=dataset)).counts
    assert (counts.annotated_count, counts.labelled_count) == (60, 59)

    snapshot = owner.snapshots.CreateSnapshot(CreateSnapshotRequest(parent=dataset, snapshot=Snapshot()))
    sides = snapshot.statistics.splits
    assert sum(side.shapes_only_count for side in sides) == 1
    assert sum(side.no_label_count for side in sides) == 1
    assert sum(side.concept_counts["0"] for side in sides) == 30  # a one with a box of a zero is no zero

    run, version = trained(owner, snapshot)
    assert run.excluded == version.excluded == ExclusionCounts(no_label_count=1, shapes_only_count=1)
    assert '1 with "none of the concepts", 1 with shapes and no image label' in version.card
    tested = next(side for side in sides if side.split == "TEST")
    assert run.metrics.item_count == tested.labelled_count - tested.no_label_count > 0


def test_a_dataset_without_a_test_split_gives_a_model_without_metrics(owner: Vesta, tmp_path: Path) -> None:
    dataset, items = a_dataset(owner, tmp_path, SplitPolicy(test_share=0.0), per_class=8)
    annotate(owner, dataset, {item: [label(digit)] for digit, some in items.items() for item in some})
    found = owner.datasets.GetDataset(GetDatasetRequest(name=dataset))
    assert (found.split_policy.HasField("test_share"), found.counts.test_item_count) == (True, 0)

    snapshot = owner.snapshots.CreateSnapshot(CreateSnapshotRequest(parent=dataset, snapshot=Snapshot()))
    run, version = trained(owner, snapshot)
    assert not run.HasField("metrics")
    assert not version.HasField("metrics")
    assert "test split" in run.metrics_missing_reason
    assert f"## Not measured\n\n{version.metrics_missing_reason}" in version.card
