"""DatasetService: datasets, and the creation of import and export operations."""

import grpc
import psycopg
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2
from vesta_common import trace
from vesta_common.errors import FailedPrecondition, InvalidArgument, NotFound, Violation
from vesta_common.ids import new_id
from vesta_common.messages import copy_of
from vesta_common.resources.methods import create_once, find_answer, missing, revise, run_once
from vesta_common.resources.page_keys import by_name
from vesta_common.resources.pages import read_page
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.postgres import Connection
from vesta_contracts.datasets.v1 import (
    ArchiveFormat,
    CreateDatasetRequest,
    Dataset,
    DatasetServiceServicer,
    DatasetView,
    DeleteDatasetRequest,
    ExportDatasetRequest,
    GetDatasetRequest,
    ImportDatasetRequest,
    ListDatasetsRequest,
    ListDatasetsResponse,
    SplitPolicy,
    UpdateDatasetRequest,
)

from vesta_datasets.items.splits import TEST_SHARE_DEFAULT, Shares
from vesta_datasets.items.taxonomies import check_concepts_in_use
from vesta_datasets.operations.purge import Purge
from vesta_datasets.operations.transfers import owns
from vesta_datasets.operations.worker import Operations
from vesta_datasets.store import Store
from vesta_datasets.store.operations import EXPORT, IMPORT
from vesta_datasets.task_types import task_type_of

_MUTABLE = ("display_name", "taxonomy")


class DatasetService(DatasetServiceServicer):
    """Creates, reads, updates and deletes datasets, and starts imports and exports."""

    def __init__(self, store: Store, operations: Operations, objects: ObjectStore) -> None:
        self._store = store
        self._objects = objects
        self._operations = operations
        self._purge = Purge(store)

    def CreateDataset(self, request: CreateDatasetRequest, context: grpc.ServicerContext) -> Dataset:
        policy = _split_policy(request.dataset.split_policy)
        task_type_of(request.dataset)  # must have a module
        name = f"{request.parent}/datasets/{request.dataset_id or new_id()}"

        def create(connection: Connection) -> Dataset:
            dataset = copy_of(request.dataset, name=name)
            dataset.split_policy.CopyFrom(policy)
            self._store.datasets.insert(connection, dataset)
            if self._store.datasets.is_being_purged(connection, name):
                raise FailedPrecondition(
                    f"a deleted dataset was named {name}, and its items are still being deleted; try again later, or choose another name",
                    reason="DATASET_DELETION_UNFINISHED",
                    metadata={"name": name},
                )
            return self._store.datasets.get(connection, name)

        try:
            return create_once(self._store.postgres, request, Dataset, name, create)
        except psycopg.errors.ForeignKeyViolation as error:
            raise _no_taxonomy(request.dataset.taxonomy) from error

    def GetDataset(self, request: GetDatasetRequest, context: grpc.ServicerContext) -> Dataset:
        """Returns a dataset, with its counts unless the view is BASIC."""
        counted = request.view != DatasetView.DATASET_VIEW_BASIC
        with self._store.postgres.transaction() as connection:
            return self._store.datasets.get(connection, request.name, counted=counted)

    def ListDatasets(self, request: ListDatasetsRequest, context: grpc.ServicerContext) -> ListDatasetsResponse:
        """Lists the datasets of a project, ordered by name."""
        page = read_page(request)
        with self._store.postgres.transaction() as connection:
            rows = self._store.datasets.list_page(connection, request.parent, page.after, page.limit)
        datasets, token = page.cut(rows, by_name)
        return ListDatasetsResponse(datasets=datasets, next_page_token=token)

    def UpdateDataset(self, request: UpdateDatasetRequest, context: grpc.ServicerContext) -> Dataset:
        """Updates the display name or the taxonomy."""
        with self._store.postgres.transaction() as connection:
            current = self._store.datasets.get(connection, request.dataset.name, lock=True, counted=False)
            updated = revise(current, request.dataset, request.update_mask, _MUTABLE)
            if not updated.taxonomy:
                raise _required("dataset.taxonomy")
            if updated.taxonomy != current.taxonomy:
                taxonomy = self._store.taxonomies.get(connection, updated.taxonomy, lock=True)
                before = self._store.taxonomies.get(connection, current.taxonomy)
                used = self._store.datasets.used_labels(connection, current.name)
                check_concepts_in_use(taxonomy, before, used, "dataset.taxonomy")
            self._store.datasets.update(connection, updated)
            return self._store.datasets.get(connection, current.name)

    def DeleteDataset(self, request: DeleteDatasetRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Deletes a dataset with its snapshots, and those of its items that can be deleted within a second; `Purge` deletes the others."""
        with self._store.postgres.transaction() as connection:
            self._store.datasets.get(connection, request.name, lock=True, counted=False)
            self._store.datasets.delete(connection, request.name)
        self._purge.run(request.name)
        return empty_pb2.Empty()

    def ImportDataset(self, request: ImportDatasetRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        """Creates an import operation; a worker executes it."""
        if answer := find_answer(self._store.postgres, request, operations_pb2.Operation):
            return answer
        if not owns(self._objects, request.name, request.archive_key):
            raise InvalidArgument(
                f"the archive {request.archive_key} does not exist in this project; upload it first",
                reason="ARCHIVE_NOT_FOUND",
                violations=[Violation("archive_key", "is not an archive of this project")],
            )
        return self._begin(request, IMPORT)

    def ExportDataset(self, request: ExportDatasetRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        """Creates an export operation; a worker executes it."""
        if answer := find_answer(self._store.postgres, request, operations_pb2.Operation):
            return answer
        _check_format(request.format)
        if request.snapshot:
            if not request.snapshot.startswith(f"{request.name}/snapshots/"):
                raise NotFound(
                    f"{request.snapshot} is not a snapshot of {request.name}; list its snapshots to see "
                    "the existing ones",
                    reason="RESOURCE_NOT_FOUND",
                )
            with self._store.postgres.transaction() as connection:
                self._store.snapshots.get(connection, request.snapshot)
        return self._begin(request, EXPORT)

    def _begin(self, request: ImportDatasetRequest | ExportDatasetRequest, kind: str) -> operations_pb2.Operation:
        who = trace.caller()

        def begin(connection: Connection) -> operations_pb2.Operation:
            self._store.datasets.get(connection, request.name, counted=False)
            return self._operations.begin(connection, kind, request.name, request, who)

        operation = run_once(self._store.postgres, request, operations_pb2.Operation, begin)
        self._operations.wake()
        return operation


def _split_policy(requested: SplitPolicy) -> SplitPolicy:
    """Returns the policy with its default filled in. Raises InvalidArgument if it leaves no share for training."""
    test_share = requested.test_share if requested.HasField("test_share") else TEST_SHARE_DEFAULT
    try:
        shares = Shares(requested.validation_share, test_share)
    except ValueError as error:
        raise InvalidArgument(
            f"dataset.split_policy: {error}; test_share is {TEST_SHARE_DEFAULT} if unset",
            reason="SPLIT_POLICY_INVALID",
            violations=[Violation("dataset.split_policy", str(error))],
        ) from error
    return SplitPolicy(validation_share=shares.validation, test_share=shares.test)


def _check_format(value: ArchiveFormat.ValueType) -> None:
    if value == ArchiveFormat.ARCHIVE_FORMAT_UNSPECIFIED:
        raise _required("format")


def _required(field: str) -> InvalidArgument:
    return InvalidArgument(f"{field} is required", reason="FIELD_INVALID", violations=[Violation(field, "is required")])


def _no_taxonomy(name: str) -> NotFound:
    return missing(name, "create it first")
