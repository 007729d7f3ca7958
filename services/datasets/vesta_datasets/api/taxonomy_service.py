"""TaxonomyService: taxonomies and their concepts."""

import grpc
import psycopg
from google.protobuf import empty_pb2
from vesta_common.errors import FailedPrecondition
from vesta_common.ids import new_id
from vesta_common.messages import copy_of
from vesta_common.resources.methods import create_once, revise
from vesta_common.resources.page_keys import by_name
from vesta_common.resources.pages import read_page
from vesta_common.storage.postgres import Connection
from vesta_contracts.datasets.v1 import (
    CreateTaxonomyRequest,
    DeleteTaxonomyRequest,
    GetTaxonomyRequest,
    ListTaxonomiesRequest,
    ListTaxonomiesResponse,
    Taxonomy,
    TaxonomyServiceServicer,
    UpdateTaxonomyRequest,
)

from vesta_datasets.items.taxonomies import check_concepts_in_use, check_taxonomy
from vesta_datasets.store import Store

_MUTABLE = ("display_name", "concepts")


class TaxonomyService(TaxonomyServiceServicer):
    """Creates, reads, updates and deletes taxonomies."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def CreateTaxonomy(self, request: CreateTaxonomyRequest, context: grpc.ServicerContext) -> Taxonomy:
        check_taxonomy(request.taxonomy)
        name = f"{request.parent}/taxonomies/{request.taxonomy_id or new_id()}"

        def create(connection: Connection) -> Taxonomy:
            self._store.taxonomies.insert(connection, copy_of(request.taxonomy, name=name))
            return self._store.taxonomies.get(connection, name)

        return create_once(self._store.postgres, request, Taxonomy, name, create)

    def GetTaxonomy(self, request: GetTaxonomyRequest, context: grpc.ServicerContext) -> Taxonomy:
        with self._store.postgres.transaction() as connection:
            return self._store.taxonomies.get(connection, request.name)

    def ListTaxonomies(self, request: ListTaxonomiesRequest, context: grpc.ServicerContext) -> ListTaxonomiesResponse:
        """Lists the taxonomies of a project, ordered by name."""
        page = read_page(request)
        with self._store.postgres.transaction() as connection:
            rows = self._store.taxonomies.list_page(connection, request.parent, page.after, page.limit)
        taxonomies, token = page.cut(rows, by_name)
        return ListTaxonomiesResponse(taxonomies=taxonomies, next_page_token=token)

    def UpdateTaxonomy(self, request: UpdateTaxonomyRequest, context: grpc.ServicerContext) -> Taxonomy:
        """Updates the concepts. A concept that an item has can be retired but not removed."""
        with self._store.postgres.transaction() as connection:
            current = self._store.taxonomies.get(connection, request.taxonomy.name, lock=True)
            updated = revise(current, request.taxonomy, request.update_mask, _MUTABLE)
            check_taxonomy(updated)
            used = self._store.taxonomies.used_labels(connection, current.name)
            check_concepts_in_use(updated, current, used, "taxonomy.concepts")
            self._store.taxonomies.update(connection, updated)
            return self._store.taxonomies.get(connection, current.name)

    def DeleteTaxonomy(self, request: DeleteTaxonomyRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Deletes a taxonomy that no dataset uses."""
        try:
            with self._store.postgres.transaction() as connection:
                self._store.taxonomies.get(connection, request.name)
                self._store.taxonomies.delete(connection, request.name)
        except psycopg.errors.ForeignKeyViolation as error:
            raise FailedPrecondition(
                f"a dataset uses {request.name}; delete the dataset, or set another taxonomy on it",
                reason="TAXONOMY_IN_USE",
            ) from error
        return empty_pb2.Empty()
