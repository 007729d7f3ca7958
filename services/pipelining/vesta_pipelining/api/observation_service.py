"""The ObservationService of the gRPC API."""

import grpc
from vesta_common.resources import filters
from vesta_common.resources.page_keys import by_name
from vesta_common.resources.pages import read_page, within_bytes
from vesta_contracts.pipelining.v1 import (
    GetObservationRequest,
    ListObservationsRequest,
    ListObservationsResponse,
    Observation,
    ObservationServiceServicer,
)

from vesta_pipelining.store import Store

_FIELDS = {
    "label": filters.Field("", has="(%(value)s = ANY(labels))"),
    "uncertain": filters.Field("uncertain", filters.boolean),
    "frame_time": filters.Field("frame_time", filters.instant, ordered=True),
}


class ObservationService(ObservationServiceServicer):
    """Implements ObservationService."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def GetObservation(self, request: GetObservationRequest, context: grpc.ServicerContext) -> Observation:
        with self._store.postgres.transaction() as connection:
            return self._store.get_observation(connection, request.name)

    def ListObservations(
        self, request: ListObservationsRequest, context: grpc.ServicerContext
    ) -> ListObservationsResponse:
        """Lists a stream's observations, newest frame first."""
        page = read_page(request)
        where = filters.compile_filter(request.filter, _FIELDS)
        with self._store.postgres.transaction() as connection:
            self._store.get_stream(connection, request.parent)
            rows = self._store.list_observations(connection, request.parent, where, page.after, page.limit)
        observations, token = within_bytes(page, rows).cut(rows, by_name)
        return ListObservationsResponse(observations=observations, next_page_token=token)
