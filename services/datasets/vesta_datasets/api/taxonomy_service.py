"""gRPC: taxonomies."""

import grpc
import psycopg
from google.protobuf import empty_pb2
from vesta_common.errors import AlreadyExists, FailedPrecondition, InvalidArgument, Violation
from vesta_common.etags import check_etag
from vesta_common.idempotency import once
from vesta_common.ids import new_id
from vesta_common.masks import apply_update
from vesta_common.pages import read_page
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

from vesta_datasets.store import Store

_MUTABLE = ("display_name", "concepts")


class TaxonomyService(TaxonomyServiceServicer):
    """Keeps Taxonomies."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def CreateTaxonomy(self, request: CreateTaxonomyRequest, context: grpc.ServicerContext) -> Taxonomy:
        """Keeps a new taxonomy."""
        _check(request.taxonomy)
        name = f"{request.parent}/taxonomies/{request.taxonomy_id or new_id()}"

        def create() -> Taxonomy:
            taxonomy = Taxonomy()
            taxonomy.CopyFrom(request.taxonomy)
            taxonomy.name = name
            self._store.insert_taxonomy(connection, taxonomy)
            return self._store.get_taxonomy(connection, name)

        try:
            with self._store.postgres.transaction() as connection:
                return once(connection, request, Taxonomy, create)
        except psycopg.errors.UniqueViolation as error:
            raise AlreadyExists(
                f"{name} is there already", reason="RESOURCE_EXISTS", metadata={"name": name}
            ) from error

    def GetTaxonomy(self, request: GetTaxonomyRequest, context: grpc.ServicerContext) -> Taxonomy:
        """One taxonomy."""
        with self._store.postgres.transaction() as connection:
            return self._store.get_taxonomy(connection, request.name)

    def ListTaxonomies(self, request: ListTaxonomiesRequest, context: grpc.ServicerContext) -> ListTaxonomiesResponse:
        """A project's taxonomies by name."""
        page = read_page(request)
        with self._store.postgres.transaction() as connection:
            after = page.cursor[0] if page.cursor else ""
            found = self._store.list_taxonomies(connection, request.parent, after, page.limit)
        kept, token = page.cut(found, lambda taxonomy: (taxonomy.name,))
        return ListTaxonomiesResponse(taxonomies=kept, next_page_token=token)

    def UpdateTaxonomy(self, request: UpdateTaxonomyRequest, context: grpc.ServicerContext) -> Taxonomy:
        """Changes concepts; one that an item bears can be retired, not removed."""
        with self._store.postgres.transaction() as connection:
            current = self._store.get_taxonomy(connection, request.taxonomy.name, lock=True)
            check_etag(request.taxonomy.etag, current)
            updated = apply_update(current, request.taxonomy, request.update_mask, _MUTABLE)
            _check(updated)
            gone = self._store.used_labels(connection, current.name) - {concept.id for concept in updated.concepts}
            if gone:
                raise InvalidArgument(
                    f"items bear {', '.join(sorted(gone))}; retire the concept instead of removing it",
                    reason="CONCEPT_IN_USE",
                    violations=[Violation("taxonomy.concepts", "lacks a concept that items bear")],
                )
            self._store.update_taxonomy(connection, updated)
            return self._store.get_taxonomy(connection, current.name)

    def DeleteTaxonomy(self, request: DeleteTaxonomyRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Removes a taxonomy that no dataset uses."""
        try:
            with self._store.postgres.transaction() as connection:
                self._store.get_taxonomy(connection, request.name)
                self._store.delete_taxonomy(connection, request.name)
        except psycopg.errors.ForeignKeyViolation as error:
            raise FailedPrecondition(
                f"a dataset uses {request.name}; delete it, or give it another taxonomy", reason="TAXONOMY_IN_USE"
            ) from error
        return empty_pb2.Empty()


def _check(taxonomy: Taxonomy) -> None:
    """Ids must be unique, and parents must be there."""
    ids = [concept.id for concept in taxonomy.concepts]
    twice = sorted({one for one in ids if ids.count(one) > 1}) if len(set(ids)) < len(ids) else []
    strangers = sorted({concept.parent for concept in taxonomy.concepts if concept.parent} - set(ids))
    if twice or strangers:
        what = f"{', '.join(twice)} appears twice" if twice else f"the parent {', '.join(strangers)} is no concept"
        raise InvalidArgument(
            f"taxonomy.concepts: {what}", reason="TAXONOMY_INVALID", violations=[Violation("taxonomy.concepts", what)]
        )
