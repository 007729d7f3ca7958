"""Datasets over gRPC: counts, taxonomies, split policies, and archives."""

import pytest
from datasets_builders import PROJECT, Datasets, a_medium, refusal
from google.api import httpbody_pb2
from google.protobuf.field_mask_pb2 import FieldMask
from vesta_common.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from vesta_common.media.task_types import known_task_type
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.datasets.v1 import (
    ArchiveFormat,
    Concept,
    CreateDatasetRequest,
    CreateTaxonomyRequest,
    Dataset,
    DeleteTaxonomyRequest,
    GetDatasetRequest,
    ImportDatasetRequest,
    ListDatasetsRequest,
    Split,
    SplitPolicy,
    Taxonomy,
    UpdateDatasetRequest,
    UpdateTaxonomyRequest,
    UploadArchiveRequest,
)
from vesta_datasets.task_types import TASK_TYPES


def test_an_item_similar_to_two_splits_counts_as_labelled_in_neither(datasets: Datasets) -> None:
    dataset, far = datasets.a_dataset(), a_medium(1).perceptual_hash
    datasets.add(dataset, a_medium(1, far), split=Split.SPLIT_TRAIN)
    datasets.add(dataset, a_medium(2, far ^ 0xFF), split=Split.SPLIT_TEST)
    datasets.add(dataset, a_medium(3, far ^ 0x0F), labels=("van",))
    counts = datasets.counts(dataset)
    assert (counts.item_count, counts.train_labelled_count, counts.test_labelled_count) == (3, 0, 0)


def test_listed_datasets_contain_their_counts(datasets: Datasets) -> None:
    first, second = datasets.a_dataset("a"), datasets.a_dataset("b")
    datasets.scored(first, [one.name for one in datasets.add(first, a_medium(1), a_medium(2), labels=("van",))])
    listed = datasets.datasets.ListDatasets(ListDatasetsRequest(parent=PROJECT)).datasets
    assert [one.name for one in listed] == [first, second]
    assert [(one.counts.labelled_count, one.counts.embedded_count) for one in listed] == [(2, 2), (0, 0)]
    assert listed[0].counts == datasets.counts(first)


def test_a_dataset_accepts_only_a_taxonomy_with_the_concepts_of_its_items(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    datasets.add(dataset, a_medium(1), labels=("van",))

    def ask(taxonomy: str) -> Dataset:
        request = UpdateDatasetRequest(
            dataset=Dataset(name=dataset, taxonomy=taxonomy), update_mask=FieldMask(paths=["taxonomy"])
        )
        return datasets.datasets.UpdateDataset(request)

    for name, concepts in {"cars": ["car"], "more": ["van", "car", "bus"]}.items():
        taxonomy = Taxonomy(concepts=[Concept(id=concept) for concept in concepts])
        datasets.taxonomies.CreateTaxonomy(CreateTaxonomyRequest(parent=PROJECT, taxonomy_id=name, taxonomy=taxonomy))
    refusal(InvalidArgument, lambda: ask(f"{PROJECT}/taxonomies/cars"), "CONCEPT_IN_USE")
    refusal(InvalidArgument, lambda: ask(""), "FIELD_INVALID")
    refusal(NotFound, lambda: ask(f"{PROJECT}/taxonomies/none"), "RESOURCE_NOT_FOUND")
    assert ask(f"{PROJECT}/taxonomies/more").taxonomy == f"{PROJECT}/taxonomies/more"


def test_a_concept_in_use_cannot_be_removed(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    (item,) = datasets.add(dataset, a_medium(1), labels=("van",))
    taxonomy = f"{PROJECT}/taxonomies/vehicles"
    fewer = UpdateTaxonomyRequest(taxonomy=Taxonomy(name=taxonomy, concepts=[Concept(id="car")]))
    refusal(InvalidArgument, lambda: datasets.taxonomies.UpdateTaxonomy(fewer), "CONCEPT_IN_USE")
    refusal(
        FailedPrecondition,
        lambda: datasets.taxonomies.DeleteTaxonomy(DeleteTaxonomyRequest(name=taxonomy)),
        "TAXONOMY_IN_USE",
    )
    twice = Taxonomy(concepts=[Concept(id="a"), Concept(id="a")])
    refusal(
        InvalidArgument,
        lambda: datasets.taxonomies.CreateTaxonomy(CreateTaxonomyRequest(parent=PROJECT, taxonomy=twice)),
        "TAXONOMY_INVALID",
    )
    assert item.name


def test_a_dataset_has_a_test_split_by_default(datasets: Datasets) -> None:
    dataset = datasets.a_dataset(split_policy=None)
    policy = datasets.datasets.GetDataset(GetDatasetRequest(name=dataset)).split_policy
    assert policy == SplitPolicy(validation_share=0, test_share=0.2)
    sides = [one.split for one in datasets.add(dataset, *map(a_medium, range(200)))]
    assert 20 < sides.count(Split.SPLIT_TEST) < 60
    assert sides.count(Split.SPLIT_VALIDATION) == 0
    assert datasets.counts(dataset).test_item_count == sides.count(Split.SPLIT_TEST)


def test_requested_split_shares_are_applied_and_returned(datasets: Datasets) -> None:
    none = SplitPolicy(test_share=0.0)
    dataset = datasets.a_dataset("none", split_policy=none)
    answered = datasets.datasets.GetDataset(GetDatasetRequest(name=dataset)).split_policy
    assert (answered, answered.HasField("test_share")) == (none, True)
    assert {one.split for one in datasets.add(dataset, *map(a_medium, range(50)))} == {Split.SPLIT_TRAIN}
    half = datasets.a_dataset("half", split_policy=SplitPolicy(validation_share=0.5))
    answered = datasets.datasets.GetDataset(GetDatasetRequest(name=half)).split_policy
    assert (answered.validation_share, answered.test_share) == (0.5, 0.2)


def test_a_dataset_older_than_the_default_split_policy_keeps_its_splits(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    body = Dataset(taxonomy=f"{PROJECT}/taxonomies/vehicles").SerializeToString()
    with datasets.store.postgres.transaction() as connection:
        connection.execute("UPDATE datasets SET body = %s", (body,))
    assert {one.split for one in datasets.add(dataset, *map(a_medium, range(50)))} == {Split.SPLIT_TRAIN}
    assert datasets.datasets.GetDataset(GetDatasetRequest(name=dataset)).split_policy.HasField("test_share")


def test_split_shares_without_a_training_split_are_rejected(datasets: Datasets) -> None:
    policy = SplitPolicy(test_share=0.6, validation_share=0.4)
    refusal(InvalidArgument, lambda: datasets.a_dataset(split_policy=policy), "SPLIT_POLICY_INVALID")
    lost = Dataset(taxonomy=f"{PROJECT}/taxonomies/none")
    refusal(
        NotFound,
        lambda: datasets.datasets.CreateDataset(CreateDatasetRequest(parent=PROJECT, dataset=lost)),
        "RESOURCE_NOT_FOUND",
    )


def test_archives_must_be_zip_files_of_the_same_project(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    body = UploadArchiveRequest(parent=PROJECT, file=httpbody_pb2.HttpBody(data=b"no zip"))
    refusal(InvalidArgument, lambda: datasets.archives.UploadArchive(iter([body])), "ARCHIVE_NOT_ZIP")
    foreign = ImportDatasetRequest(
        name=dataset, format=ArchiveFormat.ARCHIVE_FORMAT_COCO, archive_key="archives/other/x.zip"
    )
    refusal(InvalidArgument, lambda: datasets.datasets.ImportDataset(foreign), "ARCHIVE_NOT_FOUND")
    missing = GetDatasetRequest(name=f"{PROJECT}/datasets/none")
    refusal(NotFound, lambda: datasets.datasets.GetDataset(missing), "RESOURCE_NOT_FOUND")


@pytest.mark.parametrize("task_type", TaskType.values())
def test_a_dataset_has_a_task_type_with_a_module(datasets: Datasets, task_type: TaskType.ValueType) -> None:
    if known_task_type(task_type) in TASK_TYPES:
        assert datasets.datasets.GetDataset(GetDatasetRequest(name=datasets.a_dataset(task_type=task_type))).task_type
        return
    with pytest.raises(InvalidArgument, match="choose classification, multi-label") as rejected:
        datasets.a_dataset(task_type=task_type)
    assert rejected.value.reason == "TASK_TYPE_UNSUPPORTED"
