"""Idempotency of fake services in tests, as `vesta_common.resources.idempotency` implements it for real ones."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import Message
from vesta_common.errors import InvalidArgument
from vesta_common.messages import copy_of

M = TypeVar("M", bound=Message)


class FirstResponses:
    """The first response of each request_id, in memory."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str, str], tuple[Any, Any]] = {}
        self._lock = threading.Lock()

    def once(self, request: Any, effect: Callable[[], M]) -> M:
        """Runs `effect` for the first request with its request_id; a repeated request returns the first response.

        Effects run one at a time. Without a request_id the effect always runs.

        Raises:
            InvalidArgument: REQUEST_ID_REUSED, the id was used for a different request.
        """
        key = (request.DESCRIPTOR.full_name, getattr(request, "parent", ""), request.request_id)
        with self._lock:
            if key in self._first:
                asked, response = self._first[key]
                if asked != request:
                    raise InvalidArgument(
                        f"request_id {request.request_id!r} was used for another request; use a new one",
                        reason="REQUEST_ID_REUSED",
                        metadata={"request_id": request.request_id},
                    )
                return copy_of(response)  # type: ignore[no-any-return]
            result = effect()
            if request.request_id:
                self._first[key] = copy_of(request), copy_of(result)
            return result
