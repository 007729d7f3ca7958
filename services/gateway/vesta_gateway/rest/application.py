"""The REST API: an ASGI application that transcodes between HTTP and the RPCs of the contracts.

There are four kinds of responses, determined by the descriptors: a message (JSON or protobuf), a message after an upload, a byte stream
(`stream google.api.HttpBody`), and a message stream as server-sent events.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import NoReturn

from google.rpc import code_pb2
from opentelemetry.trace import SpanKind
from vesta_common import trace
from vesta_common.errors import InvalidArgument, NotFound
from vesta_common.rpc.outline import serialize_field

from vesta_gateway.audit.entries import Origin
from vesta_gateway.calls.access_log import AccessLog, Entry
from vesta_gateway.calls.pipeline import CallPipeline, Request, Session
from vesta_gateway.contracts.methods import files_field, is_download, is_upload
from vesta_gateway.problems import problem_of, status_of
from vesta_gateway.rest.bodies import BodyLimits, Disconnected, Receive
from vesta_gateway.rest.exchange import Exchange, Scope, Send
from vesta_gateway.rest.file_bodies import MULTIPART, OCTETS, is_file_type, read_files
from vesta_gateway.rest.headers import body_type, media_type, request_headers, timeout_of
from vesta_gateway.rest.pages import Page
from vesta_gateway.rest.responses import (
    RESUMED,
    THREAD_BYTES_MIN,
    respond_with_bytes,
    respond_with_events,
    respond_with_message,
)
from vesta_gateway.rest.routes import Match, Routes
from vesta_gateway.rest.simple_index import SimpleIndex
from vesta_gateway.rest.transcoding import PROTOBUF, read_request, read_upload


class RestApi:
    """The ASGI application.

    Args:
        pages: pages that need no API key, by path.
        index: the package index, which needs no API key.
    """

    def __init__(
        self,
        routes: Routes,
        calls: CallPipeline,
        access_log: AccessLog,
        limits: BodyLimits,
        pages: Mapping[str, Page],
        index: SimpleIndex,
    ) -> None:
        self._routes = routes
        self._calls = calls
        self._access_log = access_log
        self._limits = limits
        self._pages = pages
        self._index = index

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] != "http":
            return
        start = time.perf_counter()
        headers = request_headers(scope["headers"])
        exchange = Exchange(scope, headers, receive, send, self._limits.idle)
        page = self._pages.get(exchange.path)
        if page is not None and exchange.verb in {"GET", "HEAD"}:
            await exchange.respond(*await page(headers), is_page=True)
            return
        if self._index.has(exchange.path):
            response = await self._index.respond(
                exchange.verb, exchange.path, exchange.address, headers, scope["scheme"]
            )
            await exchange.respond(*response, is_page=True)
            return
        match = self._routes.find(exchange.verb, exchange.path)
        target = match.rpc.path if match else "unknown"
        with trace.span(target, headers, SpanKind.SERVER):
            exchange.request_id = trace.trace_id()
            entry = self._access_log.begin("rest", target, exchange.address, start)
            entry.fields["verb"] = exchange.verb
            if match is None:
                entry.fields["path"] = exchange.path[:200]
            await self._serve_logged(match, exchange, entry)

    async def _serve_logged(self, match: Match | None, exchange: Exchange, entry: Entry) -> None:
        try:
            match = match or self._raise_no_route(exchange)
            session = await self._calls.enter(match.rpc, exchange.headers, Origin(exchange.address, "rest"))
            entry.caller = session.caller.member
            with self._calls.hold(session, match.rpc):
                await self._serve(match, exchange, session)
        except Disconnected:
            entry.end("CANCELLED")
        except Exception as error:  # noqa: BLE001 - every error becomes a status for the client
            status = status_of(error)
            await exchange.fail(problem_of(status))
            entry.end(code_pb2.Code.Name(status.code), error)
        except BaseException:
            entry.end("CANCELLED")
            raise
        else:
            entry.end("OK")

    def _raise_no_route(self, exchange: Exchange) -> NoReturn:
        verbs = self._routes.verbs_of(exchange.path)
        if not verbs:
            raise NotFound("unknown path; /docs lists all paths", reason="PATH_UNKNOWN")
        exchange.extra["allow"] = allowed = ", ".join(verbs)
        raise InvalidArgument(
            f"the method {exchange.verb} is not allowed for this path; allowed: {allowed}", reason="METHOD_NOT_ALLOWED"
        )

    async def _serve(self, match: Match, exchange: Exchange, session: Session) -> None:
        if is_upload(match.rpc, match.rule):
            await self._upload(match, exchange, session)
            return
        async with exchange.body.whole(self._limits.whole_bytes_max, self._limits.budget) as body:
            request = await _read(match, exchange, body)
            last_event_id = exchange.headers.get("last-event-id")
            if last_event_id and RESUMED in request.message.DESCRIPTOR.fields_by_name:
                setattr(request.message, RESUMED, last_event_id)
            if match.rpc.is_unary:
                timeout = timeout_of(exchange.headers)
                response = await exchange.while_connected(self._calls.unary(session, match.rpc, request, timeout))
        if match.rpc.is_unary:
            await respond_with_message(match, exchange, response)
            return
        async with self._calls.stream(session, match.rpc, request, _nothing()) as responses:
            if is_download(match.rpc):
                await exchange.while_connected(respond_with_bytes(exchange, responses))
            else:
                await exchange.while_connected(respond_with_events(match, exchange, responses))

    async def _upload(self, match: Match, exchange: Exchange, session: Session) -> None:
        """Forwards the body as it arrives, and returns the response of the service."""
        chunks = exchange.body.chunks(self._limits.upload_bytes_max)
        content_type = media_type(exchange.headers.get("content-type", "")) or OCTETS
        first = read_upload(match, exchange.query, content_type)
        getattr(first, match.rule.body).data = await anext(chunks, b"")
        later = _upload_messages(match, chunks)
        async with self._calls.stream(session, match.rpc, Request(first), later) as responses:
            response = b"".join([response async for response in responses])
        await respond_with_message(match, exchange, response)


async def _read(match: Match, exchange: Exchange, body: bytes) -> Request:
    content_type = exchange.headers.get("content-type", "")
    if is_file_type(media_type(content_type)) and files_field(match.rpc):
        if len(body) < THREAD_BYTES_MIN or media_type(content_type) != MULTIPART:
            return Request(*read_files(match, exchange.query, body, content_type))
        return Request(*await asyncio.to_thread(read_files, match, exchange.query, body, content_type))
    content_type = body_type(exchange.headers) if match.rule.body else ""
    if len(body) < THREAD_BYTES_MIN or content_type == PROTOBUF:
        return Request(read_request(match, exchange.query, body, content_type))
    return Request(await asyncio.to_thread(read_request, match, exchange.query, body, content_type))


async def _upload_messages(match: Match, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yields the requests after the first one, which contain bytes only."""
    kind, path = match.rpc.descriptor.input_type, (match.rule.body, "data")
    async for chunk in chunks:
        yield b"".join(serialize_field(kind, path, chunk))


async def _nothing() -> AsyncIterator[bytes]:
    """Yields no requests."""
    return
    yield b""
