"""AuditService: lists the entries of the audit log."""

from typing import Any

from vesta_common.resources.pages import read_page
from vesta_common.storage.postgres import Postgres
from vesta_contracts.gateway.v1 import (
    AuditServiceServicer,
    ListAuditEntriesRequest,
    ListAuditEntriesResponse,
    ListPlatformAuditEntriesRequest,
)

from vesta_gateway.store import audit_entries


class AuditApi(AuditServiceServicer):
    """Implements AuditService."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    def ListAuditEntries(self, request: ListAuditEntriesRequest, context: Any) -> ListAuditEntriesResponse:
        """Returns a page of a project's entries."""
        return self._page(request.parent.split("/")[1], request)

    def ListPlatformAuditEntries(
        self, request: ListPlatformAuditEntriesRequest, context: Any
    ) -> ListAuditEntriesResponse:
        """Returns a page of all entries."""
        return self._page(None, request)

    def _page(self, project: str | None, request: Any) -> ListAuditEntriesResponse:
        with self._postgres.transaction() as connection:
            entries, token = audit_entries.list_page(connection, project, request.filter_by, read_page(request))
        return ListAuditEntriesResponse(entries=entries, next_page_token=token)
