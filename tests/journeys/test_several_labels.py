"""A multi-label model on the running platform: items, selection and the log have what Predict answers, whatever the thresholds."""

from datetime import timedelta
from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from photographs import read_folder, write_digits
from vesta import Vesta
from vesta.waiting import wait_until
from vesta_common.ids import new_id
from vesta_contracts.common.v1 import Annotation, ImageLabel
from vesta_contracts.conductor.v1 import CreateProjectRequest, Project
from vesta_contracts.connection.v1 import CreateSourceRequest, FolderSource, Source, Sync
from vesta_contracts.datasets.v1 import (
    BatchAnnotateItemsRequest,
    Concept,
    CreateDatasetRequest,
    CreateSnapshotRequest,
    CreateTaxonomyRequest,
    Dataset,
    Item,
    ItemAnnotations,
    ListItemsRequest,
    SelectionStrategy,
    SelectItemsRequest,
    Snapshot,
    Split,
    SplitPolicy,
    Taxonomy,
)
from vesta_contracts.serving.v1 import (
    CreateDeploymentRequest,
    Deployment,
    GetDeploymentRequest,
    ImagePrediction,
    PredictInput,
    PredictRequest,
    UncertaintyPolicy,
    UpdateDeploymentRequest,
)
from vesta_contracts.training.v1 import CreateTrainingRunRequest, GetModelVersionRequest, TrainingRun
from vesta_local.testing import WholePlatform

pytestmark = [pytest.mark.platform, pytest.mark.timeout(600)]

TRUTH = {"0": {"round", "closed"}, "1": {"straight"}, "2": {"round", "straight"}, "3": {"round"}}
IMAGES_PER_CLASS = 40
UNLABELLED = 30
STRICT_AND_LOOSE = {"round": 0.97, "closed": 0.03, "straight": 0.9}


def test_whatever_the_thresholds_items_selection_and_predict_agree(platform: WholePlatform, tmp_path: Path) -> None:
    owner = Vesta(platform.addresses["gateway_grpc"], platform.owner_key)
    project, dataset, pool = _a_dataset(owner, platform, tmp_path)
    version = _trained(owner, project, dataset)
    own = owner.models.GetModelVersion(GetModelVersionRequest(name=version))
    assert len(own.thresholds) == len(own.concepts) == 3

    made = owner.deployments.CreateDeployment(
        CreateDeploymentRequest(
            parent=project,
            deployment_id="digits",
            deployment=Deployment(model_version=version, datasets=[dataset]),
        )
    )
    by_own = dict(zip(own.concepts, own.thresholds, strict=True))
    answers = _agreeing(owner, made.name, dataset, pool, by_own)

    owner.deployments.UpdateDeployment(
        UpdateDeploymentRequest(
            deployment=Deployment(name=made.name, uncertainty=UncertaintyPolicy(thresholds=STRICT_AND_LOOSE)),
            update_mask=FieldMask(paths=["uncertainty.thresholds"]),
        )
    )
    again = _agreeing(owner, made.name, dataset, pool, STRICT_AND_LOOSE)
    assert [_labels(one) for one in answers] != [_labels(one) for one in again]


def _agreeing(
    owner: Vesta, deployment: str, dataset: str, pool: list[str], thresholds: dict[str, float]
) -> list[ImagePrediction]:
    """Predict's answers for the pool, once the items have the scores of these thresholds and all that follows agrees with them."""

    def items() -> dict[str, Item]:
        listed = owner.pages(owner.items.ListItems, ListItemsRequest(parent=dataset, page_size=1000))
        return {item.name: item for item in listed}

    def scored_anew(found: dict[str, Item]) -> bool:
        stated = [{one.concept: one.threshold for one in found[name].scores.scores} for name in pool]
        return all(one.keys() == thresholds.keys() and _near(one, thresholds) for one in stated)

    found = wait_until(items, scored_anew, deadline=timedelta(minutes=3))
    state = owner.deployments.GetDeployment(GetDeploymentRequest(name=deployment)).state
    assert state == Deployment.READY
    answers: list[ImagePrediction] = []
    for start in range(0, len(pool), 10):
        inputs = [PredictInput(item=name) for name in pool[start : start + 10]]
        answers += owner.deployments.Predict(PredictRequest(name=deployment, inputs=inputs)).predictions
    by_item = dict(zip(pool, answers, strict=True))

    chosen = owner.items.SelectItems(
        SelectItemsRequest(
            parent=dataset, count=len(pool), strategy=SelectionStrategy.SELECTION_STRATEGY_MARGIN, control_share=0.0
        )
    ).items
    assert {one.item for one in chosen} == set(pool)
    margins = [by_item[one.item].margin for one in chosen]
    assert margins == pytest.approx(sorted(margins), abs=1e-3)
    for one in chosen:
        answer = by_item[one.item]
        assert {label.concept for label in one.pre_annotations} == _labels(answer)
        assert {label.concept for label in found[one.item].scores.scores if label.predicted} == _labels(answer)
        assert found[one.item].scores.uncertain == answer.uncertain
        assert one.score == pytest.approx(1 - answer.margin, abs=1e-3)
    for concept in thresholds:
        listed = owner.items.ListItems(
            ListItemsRequest(parent=dataset, page_size=1000, filter=f'NOT labelled AND predicted = "{concept}"')
        ).items
        assert {item.name for item in listed} & set(pool) == {
            name for name in pool if concept in _labels(by_item[name])
        }
    return answers


def _near(one: dict[str, float], other: dict[str, float]) -> bool:
    return all(abs(one[concept] - other[concept]) < 1e-6 for concept in other)


def _labels(answer: ImagePrediction) -> set[str]:
    return {label.concept for label in answer.labels}


def _a_dataset(owner: Vesta, platform: WholePlatform, tmp_path: Path) -> tuple[str, str, list[str]]:
    """A project, its multi-label dataset of digits, and the items of its training side that nobody has labelled."""
    project_id = f"t{new_id()}"
    project = owner.projects.CreateProject(CreateProjectRequest(project_id=project_id, project=Project())).name
    concepts = sorted(set().union(*TRUTH.values()))
    taxonomy = owner.taxonomies.CreateTaxonomy(
        CreateTaxonomyRequest(
            parent=project,
            taxonomy_id="shapes",
            taxonomy=Taxonomy(concepts=[Concept(id=concept) for concept in concepts]),
        )
    )
    dataset = owner.datasets.CreateDataset(
        CreateDatasetRequest(
            parent=project,
            dataset_id="digits",
            dataset=Dataset(taxonomy=taxonomy.name, multi_label=True, split_policy=SplitPolicy(test_share=0.25)),
        )
    ).name
    folder = platform.home.inbox / project_id
    folder.mkdir(parents=True)
    pool = read_folder(write_digits(tmp_path / "digits")).pool
    for name in TRUTH:
        for number, photograph in enumerate([one for one in pool if one.label == name][:IMAGES_PER_CLASS]):
            (folder / f"{name}-{number}{photograph.path.suffix}").write_bytes(photograph.path.read_bytes())
    source = owner.sources.CreateSource(
        CreateSourceRequest(
            parent=project, source_id="folder", source=Source(dataset=dataset, folder=FolderSource(path=str(folder)))
        )
    )
    ended = owner.sync(source.name)
    assert ended.state == Sync.SUCCEEDED, ended.error

    items = list(owner.pages(owner.items.ListItems, ListItemsRequest(parent=dataset)))
    unlabelled = [item for item in items if item.split == Split.SPLIT_TRAIN and not item.duplicate_of][:UNLABELLED]
    left_out = {item.name for item in unlabelled}
    labelled = [
        ItemAnnotations(
            item=item.name,
            annotations=[
                Annotation(concept=concept, image_label=ImageLabel())
                for concept in sorted(TRUTH[Path(item.media.provenance.file_name).name[0]])
            ],
        )
        for item in items
        if item.name not in left_out
    ]
    owner.items.BatchAnnotateItems(BatchAnnotateItemsRequest(parent=dataset, items=labelled))
    return project, dataset, sorted(left_out)


def _trained(owner: Vesta, project: str, dataset: str) -> str:
    """The version that learnt what is labelled."""
    snapshot = owner.snapshots.CreateSnapshot(CreateSnapshotRequest(parent=dataset, snapshot=Snapshot()))
    wanted = TrainingRun(
        snapshot=snapshot.name, recipe=f"{project}/recipes/multilabel", model=f"{project}/models/shapes"
    )
    run = owner.training_runs.CreateTrainingRun(CreateTrainingRunRequest(parent=project, training_run=wanted))
    ended = owner.wait_for_run(run.name)
    assert ended.state == TrainingRun.SUCCEEDED, ended.error
    assert ended.metrics.accuracy.value > 0.5
    return str(ended.model_version)
