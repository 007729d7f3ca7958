"""The REST API: an ASGI application that transcodes between HTTP and the RPCs of the contracts.

There are four kinds of responses, determined by the descriptors: a message (JSON or protobuf), a message after an upload, a byte stream
(`stream google.api.HttpBody`), and a message stream as server-sent events.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message
from google.rpc import code_pb2
from opentelemetry.trace import SpanKind
from vesta_common import trace
from vesta_common.errors import InvalidArgument, NotFound

from vesta_gateway.audit.entries import Origin
from vesta_gateway.calls.access_log import AccessLog, Entry
from vesta_gateway.calls.backends import ResponseStream
from vesta_gateway.calls.pipeline import CallPipeline, Session
from vesta_gateway.contracts.methods import files_field, is_download, is_upload
from vesta_gateway.problems import Problem, problem_of, status_of
from vesta_gateway.rest.bodies import Body, BodyLimits, Disconnected, Receive
from vesta_gateway.rest.file_bodies import OCTETS, is_file_type, read_files
from vesta_gateway.rest.headers import (
    body_type,
    length_of,
    matches,
    media_type,
    request_headers,
    response_headers,
    timeout_of,
    wants_protobuf,
)
from vesta_gateway.rest.idle_timeouts import response_idle_timeout
from vesta_gateway.rest.pages import Page
from vesta_gateway.rest.routes import Match, Routes
from vesta_gateway.rest.simple_index import SimpleIndex
from vesta_gateway.rest.transcoding import JSON, PROTOBUF, read_request, read_upload, write_json

T = TypeVar("T")

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Scope = MutableMapping[str, Any]

# Larger messages are converted in a thread, so that they do not block other requests.
THREAD_BYTES_MIN = 128 * 1024
HEARTBEAT = timedelta(seconds=15)
FIRST_EVENT_WAIT = timedelta(milliseconds=100)
# The request field with the event id after which a stream resumes.
RESUMED = "after_event_id"
EVENT_STREAM = "text/event-stream"
# Initial metadata that a backend may set as HTTP headers of a download.
_DOWNLOAD_HEADERS = ("etag", "content-disposition")
_CACHE = "private, no-cache"


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
        exchange = _Exchange(scope, headers, receive, send, self._limits.idle)
        page = self._pages.get(exchange.path)
        if page is not None and exchange.verb in {"GET", "HEAD"}:
            await exchange.respond(*await page(headers), is_page=True)
            return
        if self._index.has(exchange.path):
            found = await self._index.respond(exchange.verb, exchange.path, exchange.address, headers, scope["scheme"])
            await exchange.respond(*found, is_page=True)
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

    async def _serve_logged(self, match: Match | None, exchange: "_Exchange", entry: Entry) -> None:
        try:
            match = match or self._refuse_route(exchange)
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

    def _refuse_route(self, exchange: "_Exchange") -> NoReturn:
        verbs = self._routes.verbs_of(exchange.path)
        if not verbs:
            raise NotFound("unknown path; /docs lists all paths", reason="PATH_UNKNOWN")
        exchange.extra["allow"] = allowed = ", ".join(verbs)
        raise InvalidArgument(
            f"the method {exchange.verb} is not allowed for this path; allowed: {allowed}", reason="METHOD_NOT_ALLOWED"
        )

    async def _serve(self, match: Match, exchange: "_Exchange", session: Session) -> None:
        if is_upload(match.rpc, match.rule):
            await self._upload(match, exchange, session)
            return
        async with exchange.body.whole(self._limits.whole_bytes_max, self._limits.budget) as body:
            request = await _read(match, exchange, body)
            last_event_id = exchange.headers.get("last-event-id")
            if last_event_id and RESUMED in request.DESCRIPTOR.fields_by_name:
                setattr(request, RESUMED, last_event_id)
            if match.rpc.is_unary:
                timeout = timeout_of(exchange.headers)
                response = await exchange.while_connected(self._calls.unary(session, match.rpc, request, timeout))
        if match.rpc.is_unary:
            await _respond_with_message(match, exchange, response)
            return
        async with self._calls.stream(session, match.rpc, request, _nothing()) as responses:
            if is_download(match.rpc):
                await exchange.while_connected(_download(exchange, responses))
            else:
                await exchange.while_connected(_events(match, exchange, responses))

    async def _upload(self, match: Match, exchange: "_Exchange", session: Session) -> None:
        """Forwards the body as it arrives, and returns the response of the service."""
        chunks = exchange.body.chunks(self._limits.upload_bytes_max)
        content_type = media_type(exchange.headers.get("content-type", "")) or OCTETS
        first = read_upload(match, exchange.query, content_type)
        getattr(first, match.rule.body).data = await anext(chunks, b"")
        later = _upload_messages(match, chunks)
        async with self._calls.stream(session, match.rpc, first, later) as responses:
            response = b"".join([response async for response in responses])
        await _respond_with_message(match, exchange, response)


class _Exchange:
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


async def _read(match: Match, exchange: _Exchange, body: bytes) -> Message:
    given = exchange.headers.get("content-type", "")
    if is_file_type(media_type(given)) and files_field(match.rpc):
        return read_files(match, exchange.query, body, given)
    content_type = body_type(exchange.headers) if match.rule.body else ""
    if len(body) < THREAD_BYTES_MIN or content_type == PROTOBUF:
        return read_request(match, exchange.query, body, content_type)
    return await asyncio.to_thread(read_request, match, exchange.query, body, content_type)


async def _respond_with_message(match: Match, exchange: _Exchange, response: bytes) -> None:
    if wants_protobuf(exchange.headers):
        await exchange.respond(200, {"content-type": PROTOBUF}, response)
        return
    if is_download(match.rpc):
        body = HttpBody.FromString(response)
        await exchange.respond(200, {"content-type": body.content_type or OCTETS}, body.data)
        return
    message = match.rpc.response_type.FromString(response)
    if len(response) < THREAD_BYTES_MIN:
        as_json = write_json(message)
    else:
        as_json = await asyncio.to_thread(write_json, message)
    await exchange.respond(200, {"content-type": JSON}, as_json)


async def _download(exchange: _Exchange, responses: ResponseStream) -> None:
    """Streams bytes. A download of one part gets a content length and an etag, and is not sent if the client has it already."""
    pieces = aiter(responses)
    first = HttpBody.FromString(await anext(pieces, b""))
    metadata = await responses.headers()
    headers = {name: metadata[name] for name in _DOWNLOAD_HEADERS if name in metadata}
    headers |= {"content-type": first.content_type or OCTETS, "cache-control": _CACHE}
    wanted = exchange.headers.get("if-none-match", "")
    if matches(wanted, headers.get("etag", "")):
        await exchange.respond(304, headers, b"")
        return
    second = await anext(pieces, None)
    if second is None:
        headers.setdefault("etag", f'"{hashlib.sha256(first.data).hexdigest()[:32]}"')
        if matches(wanted, headers["etag"]):
            await exchange.respond(304, headers, b"")
        else:
            await exchange.respond(200, headers, first.data)
        return
    await exchange.begin(200, headers)
    await exchange.write(first.data)
    await exchange.write(HttpBody.FromString(second).data)
    async for raw in pieces:
        await exchange.write(HttpBody.FromString(raw).data)
    await exchange.write(b"", more=False)


async def _events(match: Match, exchange: _Exchange, responses: ResponseStream) -> None:
    """Streams messages as server-sent events: `data:` contains the JSON. An `event: error` ends a failed stream.

    If the stream is resumable, `id:` contains the event id, which browsers send back as `Last-Event-ID`.
    """
    is_resumed = RESUMED in match.rpc.descriptor.input_type.fields_by_name
    pieces = aiter(responses)
    following = asyncio.ensure_future(anext(pieces, None))
    try:
        await asyncio.wait((following,), timeout=FIRST_EVENT_WAIT.total_seconds())
        if following.done() and following.exception() is not None:
            await following  # it failed immediately, so the error can still become an HTTP status
        await exchange.begin(200, {"content-type": EVENT_STREAM, "x-accel-buffering": "no"})
        await exchange.write(b": here\n\n")
        while True:
            done, _ = await asyncio.wait((following,), timeout=HEARTBEAT.total_seconds())
            if not done:
                await exchange.write(b": still here\n\n")
                continue
            raw = await following
            if raw is None:
                break
            message: Any = match.rpc.response_type.FromString(raw)
            event_id = f"id: {message.id}\n".encode() if is_resumed else b""
            await exchange.write(event_id + b"data: " + write_json(message) + b"\n\n")
            following = asyncio.ensure_future(anext(pieces, None))
    except Exception as error:
        if not exchange.has_begun:
            raise
        problem = problem_of(status_of(error))
        await exchange.write(b"event: error\ndata: " + problem.body + b"\n\n")
    finally:
        following.cancel()
    await exchange.write(b"", more=False)


async def _upload_messages(match: Match, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yields the requests after the first one, which contain bytes only."""
    async for chunk in chunks:
        message = match.rpc.request_type()
        getattr(message, match.rule.body).data = chunk
        yield message.SerializeToString()


async def _nothing() -> AsyncIterator[bytes]:
    """Yields no requests."""
    return
    yield b""
