"""A multi-label model on the running platform: items, selection and the log have what Predict answers, whatever the thresholds."""

from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from experts import hire
from google.protobuf.field_mask_pb2 import FieldMask
from photographs import label, read_folder, write_digits
from vesta import Vesta
from vesta.waiting import wait_until
from vesta_common.ids import new_id
from vesta_contracts.annotation.v1 import (
    CreateSubmissionRequest,
    LeasePurpose,
    LeaseTasksRequest,
    ListTasksRequest,
    Submission,
)
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.conductor.v1 import (
    CreateLoopRequest,
    CreateProjectRequest,
    GetLoopRequest,
    Loop,
    LoopPolicy,
    LoopStatus,
    Project,
    UpdateLoopRequest,
)
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
from vesta_contracts.gateway.v1 import Role
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


def test_items_selection_and_predict_agree_for_any_thresholds(platform: WholePlatform, tmp_path: Path) -> None:
    owner = Vesta(platform.addresses["gateway_grpc"], platform.owner_key)
    project, dataset, truth = _a_dataset(owner, platform, tmp_path)
    pool = _of_side(owner, dataset, Split.SPLIT_TRAIN)[:UNLABELLED]
    _annotate(owner, dataset, {item: concepts for item, concepts in truth.items() if item not in pool})
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

    _set_thresholds(owner, made.name, STRICT_AND_LOOSE)
    again = _agreeing(owner, made.name, dataset, pool, STRICT_AND_LOOSE)
    assert [_labels(one) for one in answers] != [_labels(one) for one in again]


def test_the_live_accuracy_of_a_loop_equals_that_of_its_predictions(platform: WholePlatform, tmp_path: Path) -> None:
    address = platform.addresses["gateway_grpc"]
    owner = Vesta(address, platform.owner_key)
    project, dataset, truth = _a_dataset(owner, platform, tmp_path)
    _annotate(owner, dataset, {item: truth[item] for item in _of_side(owner, dataset, Split.SPLIT_TEST)})
    ada = hire(owner, address, project, "ada", Role.ROLE_ANNOTATOR)
    policy = LoopPolicy(
        dataset=dataset, label_budget=40, batch_size=40, retrain_after=40, test_labels=10, control_share=0.5
    )
    loop = owner.loops.CreateLoop(CreateLoopRequest(parent=project, loop_id="digits", loop=Loop(policy=policy))).name

    def status() -> LoopStatus:
        return owner.loops.GetLoop(GetLoopRequest(name=loop)).status

    def answered() -> LoopStatus:
        now = status()
        if now.campaign:
            _answer(ada, now.campaign, truth)
        return now

    first = wait_until(answered, lambda now: now.phase == LoopStatus.EXHAUSTED, deadline=timedelta(minutes=5))
    _set_thresholds(owner, first.deployment, STRICT_AND_LOOSE)
    wait_until(
        partial(_items, owner, dataset),
        lambda found: _have(found.values(), STRICT_AND_LOOSE),
        deadline=timedelta(minutes=3),
    )
    owner.loops.UpdateLoop(
        UpdateLoopRequest(
            loop=Loop(name=loop, policy=LoopPolicy(label_budget=80)),
            update_mask=FieldMask(paths=["policy.label_budget"]),
        )
    )
    request = ListTasksRequest(parent=first.campaign, page_size=1000)
    tasks = wait_until(
        lambda: list(owner.pages(owner.tasks.ListTasks, request)),
        lambda found: len(found) >= 80,
        deadline=timedelta(minutes=3),
    )
    drawn = [task for task in tasks if task.control and task.model_version == first.champion]
    answers = _predicted(owner, first.deployment, [task.item for task in drawn])
    assert len(drawn) == 20
    for task in drawn:
        assert {label.concept for label in task.pre_annotations} == _labels(answers[task.item])
    right = sum(_labels(answers[task.item]) == truth[task.item] for task in drawn)

    _answer(ada, first.campaign, truth)
    last = wait_until(answered, lambda now: now.live_accuracy_count >= len(drawn), deadline=timedelta(minutes=2))
    assert last.live_accuracy_count == len(drawn)
    assert last.live_accuracy.value == pytest.approx(right / len(drawn))


def _agreeing(
    owner: Vesta, deployment: str, dataset: str, pool: list[str], thresholds: dict[str, float]
) -> list[ImagePrediction]:
    """Predict's answers for the pool, once the items have the scores of these thresholds and all that follows agrees with them."""

    found = wait_until(
        partial(_items, owner, dataset),
        lambda found: _have([found[name] for name in pool], thresholds),
        deadline=timedelta(minutes=3),
    )
    state = owner.deployments.GetDeployment(GetDeploymentRequest(name=deployment)).state
    assert state == Deployment.READY
    by_item = _predicted(owner, deployment, pool)
    answers = [by_item[name] for name in pool]

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
        assert {label.concept for label in found[one.item].prediction.scores if label.predicted} == _labels(answer)
        assert found[one.item].prediction.uncertain == answer.uncertain
        assert one.score == pytest.approx(1 - answer.margin, abs=1e-3)
    for concept in thresholds:
        listed = owner.items.ListItems(
            ListItemsRequest(parent=dataset, page_size=1000, filter=f'NOT labelled AND predicted = "{concept}"')
        ).items
        assert {item.name for item in listed} & set(pool) == {
            name for name in pool if concept in _labels(by_item[name])
        }
    return answers


def _set_thresholds(owner: Vesta, deployment: str, thresholds: dict[str, float]) -> None:
    owner.deployments.UpdateDeployment(
        UpdateDeploymentRequest(
            deployment=Deployment(name=deployment, uncertainty=UncertaintyPolicy(thresholds=thresholds)),
            update_mask=FieldMask(paths=["uncertainty.thresholds"]),
        )
    )


def _items(owner: Vesta, dataset: str) -> dict[str, Item]:
    listed = owner.pages(owner.items.ListItems, ListItemsRequest(parent=dataset, page_size=1000))
    return {item.name: item for item in listed}


def _have(items: Iterable[Item], thresholds: dict[str, float]) -> bool:
    """Whether the items have scores that were judged by these thresholds."""
    for item in items:
        stated = {one.concept: one.threshold for one in item.prediction.scores}
        if stated.keys() != thresholds.keys() or any(abs(stated[key] - thresholds[key]) > 1e-6 for key in stated):
            return False
    return True


def _predicted(owner: Vesta, deployment: str, items: list[str]) -> dict[str, ImagePrediction]:
    """Predict's answers by item."""
    answers: list[ImagePrediction] = []
    for start in range(0, len(items), 10):
        inputs = [PredictInput(item=name) for name in items[start : start + 10]]
        answers += owner.deployments.Predict(PredictRequest(name=deployment, inputs=inputs)).predictions
    return dict(zip(items, answers, strict=True))


def _labels(answer: ImagePrediction) -> set[str]:
    return {label.concept for label in answer.labels}


def _answer(annotator: Vesta, campaign: str, truth: dict[str, set[str]]) -> None:
    """Answers all that is to be answered just now."""
    lease = LeaseTasksRequest(parent=campaign, purpose=LeasePurpose.LEASE_PURPOSE_ANNOTATE, count=20)
    while tasks := annotator.tasks.LeaseTasks(lease).tasks:
        for task in tasks:
            submission = Submission(annotations=map(label, sorted(truth[task.item])))
            annotator.submissions.CreateSubmission(CreateSubmissionRequest(parent=task.name, submission=submission))


def _of_side(owner: Vesta, dataset: str, split: Split.ValueType) -> list[str]:
    """The items of a side, near-duplicates aside."""
    return [item.name for item in _items(owner, dataset).values() if item.split == split and not item.duplicate_of]


def _annotate(owner: Vesta, dataset: str, truth: dict[str, set[str]]) -> None:
    items = [ItemAnnotations(item=item, annotations=map(label, sorted(concepts))) for item, concepts in truth.items()]
    owner.items.BatchAnnotateItems(BatchAnnotateItemsRequest(parent=dataset, items=items))


def _a_dataset(owner: Vesta, platform: WholePlatform, tmp_path: Path) -> tuple[str, str, dict[str, set[str]]]:
    """A project, its multi-label dataset of digits without labels, and what its items show."""
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
            dataset=Dataset(
                taxonomy=taxonomy.name,
                task_type=TaskType.TASK_TYPE_MULTI_LABEL,
                split_policy=SplitPolicy(test_share=0.25),
            ),
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
    assert (ended.state, ended.rejected_count) == (Sync.SUCCEEDED, 0), ended.rejections[:1]

    truth = {
        name: TRUTH[Path(item.media.provenance.file_name).name[0]] for name, item in _items(owner, dataset).items()
    }
    return project, dataset, truth


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
