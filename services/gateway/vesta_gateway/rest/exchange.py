"""An HTTP request and its response, on the ASGI interface."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from datetime import timedelta
from typing import Any, TypeVar

from vesta_gateway.problems import Problem
from vesta_gateway.rest.bodies import Body, Disconnected, Receive
from vesta_gateway.rest.headers import length_of, response_headers
from vesta_gateway.rest.idle_timeouts import response_idle_timeout
from vesta_gateway.rest.transcoding import JSON

T = TypeVar("T")

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Scope = MutableMapping[str, Any]


class Exchange:
    """An HTTP request and its response.

    Attributes:
        request_id: the trace id, sent with every response.
        extra: additional response headers.
    """

    def __init__(self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send, idle: timedelta) -> None:
        self.verb: str = scope["method"]
        self.path: str = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        self.query: str = scope["query_string"].decode("latin-1")
        self.headers = headers
        self.address: str = scope["client"][0] if scope.get("client") else ""
        self.body = Body(receive, length_of(headers), idle)
        self.request_id = ""
        self.extra: dict[str, str] = {}
        self._send_at_once = send
        self._idle = idle
        self._is_tls = scope["scheme"] == "https"
        self.has_begun = False

    async def respond(
        self, http_status: int, headers: Mapping[str, str], body: bytes, *, is_page: bool = False
    ) -> None:
        """Sends a complete response."""
        silent = self.verb == "HEAD"
        await self.begin(http_status, {**headers, "content-length": str(len(body))}, is_page=is_page)
        await self._send({"type": "http.response.body", "body": b"" if silent else body})

    async def begin(self, http_status: int, headers: Mapping[str, str], *, is_page: bool = False) -> None:
        """Sends the status line and headers."""
        self.has_begun = True
        given = {**self.extra, **headers}
        if self.request_id:
            given["x-request-id"] = self.request_id
        raw = response_headers(given, is_tls=self._is_tls, is_page=is_page)
        await self._send({"type": "http.response.start", "status": http_status, "headers": raw})

    async def write(self, part: bytes, *, more: bool = True) -> None:
        """Sends a part of the body."""
        await self._send({"type": "http.response.body", "body": part, "more_body": more})

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        async with response_idle_timeout(self._idle):
            await self._send_at_once(message)

    async def fail(self, problem: Problem) -> None:
        """Sends an error response. A response that has begun is cut off, so that the client does not consider it complete."""
        if self.has_begun:
            return
        await self.respond(problem.http_status, {"content-type": JSON, **problem.headers}, problem.body)

    async def while_connected(self, responding: Awaitable[T]) -> T:
        """Awaits the response, and cancels it if the client disconnects.

        Raises:
            Disconnected: the client has disconnected.
        """
        response = asyncio.ensure_future(responding)
        gone = asyncio.ensure_future(self.body.disconnected())
        try:
            await asyncio.wait((response, gone), return_when=asyncio.FIRST_COMPLETED)
            if not response.done():
                raise Disconnected
            return await response
        finally:
            for task in (response, gone):
                task.cancel()
            await asyncio.gather(response, gone, return_exceptions=True)
