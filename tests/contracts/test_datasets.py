"""What the other services rely on of datasets, taxonomies and snapshots: of real ones and of fakes."""

import pytest
from contract import contract
from google.protobuf.field_mask_pb2 import FieldMask
from peers import Peer, refused
from vesta_common.errors import Aborted, AlreadyExists, InvalidArgument, NotFound
from vesta_common.ids import new_id
from vesta_contracts.datasets.v1 import (
    CreateDatasetRequest,
    CreateSnapshotRequest,
    Dataset,
    DatasetServiceServicer,
    DeleteDatasetRequest,
    GetDatasetRequest,
    GetSnapshotRequest,
    GetTaxonomyRequest,
    ListDatasetsRequest,
    Snapshot,
    SnapshotServiceServicer,
    TaxonomyServiceServicer,
    UpdateDatasetRequest,
)

pytestmark = pytest.mark.no_events


@contract(DatasetServiceServicer.GetDataset)
def test_get_dataset_returns_the_dataset_and_its_taxonomy(peer: Peer) -> None:
    dataset = peer.datasets.GetDataset(GetDatasetRequest(name=peer.has.dataset))
    assert dataset.name == peer.has.dataset
    assert dataset.taxonomy.startswith(f"{peer.has.project}/taxonomies/")


@contract(DatasetServiceServicer.GetDataset)
def test_get_dataset_of_an_unknown_name_is_not_found(peer: Peer) -> None:
    name = f"{peer.has.dataset}-unknown"
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=name):
        peer.datasets.GetDataset(GetDatasetRequest(name=name))


@contract(DatasetServiceServicer.GetDataset, of=("serving", "conductor"))
def test_get_dataset_counts_the_items(peer: Peer) -> None:
    counts = peer.datasets.GetDataset(GetDatasetRequest(name=peer.has.dataset)).counts
    assert counts.item_count == len(peer.has.items)


def creation(peer: Peer) -> CreateDatasetRequest:
    """Returns the request for a new dataset."""
    dataset = Dataset(display_name="before", taxonomy=peer.has.taxonomy)
    return CreateDatasetRequest(parent=peer.has.project, dataset_id=f"d{new_id()}", dataset=dataset)


@contract(DatasetServiceServicer.CreateDataset, DatasetServiceServicer.GetDataset, DatasetServiceServicer.ListDatasets)
def test_a_new_dataset_is_found_and_listed_by_name(peer: Peer) -> None:
    request = creation(peer)
    made = peer.datasets.CreateDataset(request)
    assert made.name == f"{peer.has.project}/datasets/{request.dataset_id}"
    assert (made.display_name, made.taxonomy) == ("before", peer.has.taxonomy)
    assert peer.datasets.GetDataset(GetDatasetRequest(name=made.name)) == made
    listed = peer.datasets.ListDatasets(ListDatasetsRequest(parent=peer.has.project, page_size=1000))
    names = [dataset.name for dataset in listed.datasets]
    assert {made.name, peer.has.dataset} <= set(names)
    assert names == sorted(set(names))
    assert not listed.next_page_token


@contract(DatasetServiceServicer.CreateDataset)
def test_create_dataset_refuses_a_name_that_is_taken(peer: Peer) -> None:
    request = creation(peer)
    name = peer.datasets.CreateDataset(request).name
    with refused(AlreadyExists, "RESOURCE_EXISTS", name=name):
        peer.datasets.CreateDataset(request)


@contract(DatasetServiceServicer.CreateDataset, DatasetServiceServicer.UpdateDataset)
def test_update_dataset_changes_the_fields_of_the_mask_if_the_etag_is_current(peer: Peer) -> None:
    made = peer.datasets.CreateDataset(creation(peer))
    request = UpdateDatasetRequest(
        dataset=Dataset(name=made.name, display_name="after", etag=made.etag),
        update_mask=FieldMask(paths=["display_name"]),
    )
    updated = peer.datasets.UpdateDataset(request)
    assert (updated.display_name, updated.taxonomy) == ("after", made.taxonomy)
    assert updated.etag != made.etag
    with refused(Aborted, "ETAG_STALE", name=made.name):
        peer.datasets.UpdateDataset(request)
    request.dataset.etag = ""
    request.update_mask.paths[:] = ["counts"]
    with refused(InvalidArgument, "FIELD_IMMUTABLE"):
        peer.datasets.UpdateDataset(request)


@contract(DatasetServiceServicer.UpdateDataset)
def test_update_dataset_of_an_unknown_name_is_not_found(peer: Peer) -> None:
    dataset = Dataset(name=f"{peer.has.dataset}-unknown", taxonomy=peer.has.taxonomy)
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=dataset.name):
        peer.datasets.UpdateDataset(UpdateDatasetRequest(dataset=dataset))


@contract(DatasetServiceServicer.CreateDataset, DatasetServiceServicer.DeleteDataset, DatasetServiceServicer.GetDataset)
def test_a_deleted_dataset_is_not_found(peer: Peer) -> None:
    name = peer.datasets.CreateDataset(creation(peer)).name
    peer.datasets.DeleteDataset(DeleteDatasetRequest(name=name))
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=name):
        peer.datasets.GetDataset(GetDatasetRequest(name=name))
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=name):
        peer.datasets.DeleteDataset(DeleteDatasetRequest(name=name))


@contract(TaxonomyServiceServicer.GetTaxonomy)
def test_get_taxonomy_returns_the_concepts_in_order_retired_ones_among_them(peer: Peer) -> None:
    taxonomy = peer.taxonomies.GetTaxonomy(GetTaxonomyRequest(name=peer.has.taxonomy))
    assert taxonomy.name == peer.has.taxonomy
    assert tuple(concept.id for concept in taxonomy.concepts) == peer.has.concepts
    assert tuple(concept.id for concept in taxonomy.concepts if concept.retired) == peer.has.retired


@contract(TaxonomyServiceServicer.GetTaxonomy)
def test_get_taxonomy_of_an_unknown_name_is_not_found(peer: Peer) -> None:
    name = f"{peer.has.taxonomy}-unknown"
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=name):
        peer.taxonomies.GetTaxonomy(GetTaxonomyRequest(name=name))


@contract(DatasetServiceServicer.GetDataset, TaxonomyServiceServicer.GetTaxonomy)
def test_the_taxonomy_of_a_dataset_exists(peer: Peer) -> None:
    dataset = peer.datasets.GetDataset(GetDatasetRequest(name=peer.has.dataset))
    assert peer.taxonomies.GetTaxonomy(GetTaxonomyRequest(name=dataset.taxonomy)).concepts


@contract(SnapshotServiceServicer.GetSnapshot)
def test_get_snapshot_of_an_unknown_name_is_not_found(peer: Peer) -> None:
    name = f"{peer.has.dataset}/snapshots/unknown"
    with refused(NotFound, "RESOURCE_NOT_FOUND", name=name):
        peer.snapshots.GetSnapshot(GetSnapshotRequest(name=name))


@contract(SnapshotServiceServicer.GetSnapshot, of=("training",))
def test_a_snapshot_has_a_manifest_a_digest_and_statistics_of_each_split(peer: Peer) -> None:
    snapshot = peer.snapshots.GetSnapshot(GetSnapshotRequest(name=peer.has.snapshot))
    assert snapshot.name == peer.has.snapshot
    assert snapshot.manifest_key
    assert snapshot.digest
    assert "TEST" in [side.split for side in snapshot.statistics.splits]
    for side in snapshot.statistics.splits:
        assert side.hash_assigned_count <= side.item_count


@contract(SnapshotServiceServicer.CreateSnapshot, SnapshotServiceServicer.GetSnapshot)
def test_create_snapshot_returns_the_first_response_of_a_request_id(peer: Peer) -> None:
    snapshot_id = f"s{new_id()}"
    request = CreateSnapshotRequest(
        parent=peer.has.dataset, snapshot_id=snapshot_id, snapshot=Snapshot(), request_id=new_id()
    )
    made = peer.snapshots.CreateSnapshot(request)
    assert made.name == f"{peer.has.dataset}/snapshots/{snapshot_id}"
    assert (
        made == peer.snapshots.CreateSnapshot(request) == peer.snapshots.GetSnapshot(GetSnapshotRequest(name=made.name))
    )


@contract(SnapshotServiceServicer.CreateSnapshot)
def test_create_snapshot_rejects_a_request_id_of_another_request(peer: Peer) -> None:
    request = CreateSnapshotRequest(
        parent=peer.has.dataset, snapshot_id=f"s{new_id()}", snapshot=Snapshot(), request_id=new_id()
    )
    peer.snapshots.CreateSnapshot(request)
    request.snapshot_id = f"s{new_id()}"
    with refused(InvalidArgument, "REQUEST_ID_REUSED", request_id=request.request_id):
        peer.snapshots.CreateSnapshot(request)


@contract(SnapshotServiceServicer.CreateSnapshot)
def test_a_snapshot_counts_the_labels_of_its_train_split(peer: Peer) -> None:
    request = CreateSnapshotRequest(parent=peer.has.dataset, snapshot_id=f"s{new_id()}", snapshot=Snapshot())
    snapshot = peer.snapshots.CreateSnapshot(request)
    (side,) = [side for side in snapshot.statistics.splits if side.split == "TRAIN"]
    assert side.labelled_count == sum(side.concept_counts.values()) == len(peer.has.labelled)
    assert snapshot.HasField("create_time")
