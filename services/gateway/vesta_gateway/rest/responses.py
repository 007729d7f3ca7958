"""The bodies of responses: a message, a byte stream, or messages as server-sent events."""

import asyncio
import hashlib
from datetime import timedelta
from typing import Any

from google.api.httpbody_pb2 import HttpBody

from vesta_gateway.calls.backends import ResponseStream
from vesta_gateway.contracts.methods import is_download
from vesta_gateway.problems import problem_of, status_of
from vesta_gateway.rest.exchange import Exchange
from vesta_gateway.rest.file_bodies import OCTETS
from vesta_gateway.rest.headers import matches, wants_protobuf
from vesta_gateway.rest.routes import Match
from vesta_gateway.rest.transcoding import JSON, PROTOBUF, write_json

# Larger messages are converted in a thread, so that they do not block other requests.
THREAD_BYTES_MIN = 128 * 1024
KEEPALIVE_INTERVAL = timedelta(seconds=15)
FIRST_EVENT_WAIT = timedelta(milliseconds=100)
# The request field with the event id after which a stream resumes.
RESUMED = "after_event_id"
EVENT_STREAM = "text/event-stream"
# Initial metadata that a backend may set as HTTP headers of a download.
_DOWNLOAD_HEADERS = ("etag", "content-disposition")
_CACHE = "private, no-cache"


async def respond_with_message(match: Match, exchange: Exchange, response: bytes) -> None:
    """Responds with a message as JSON, as protobuf if the client accepts it, or with the bytes of an HttpBody."""
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


async def respond_with_bytes(exchange: Exchange, responses: ResponseStream) -> None:
    """Streams bytes. A download of one part gets a content length and an etag, and is not sent if the client has it already."""
    pieces = aiter(responses)
    first = HttpBody.FromString(await anext(pieces, b""))
    metadata = await responses.headers()
    headers = {name: metadata[name] for name in _DOWNLOAD_HEADERS if name in metadata}
    headers |= {"content-type": first.content_type or OCTETS, "cache-control": _CACHE}
    known_etags = exchange.headers.get("if-none-match", "")
    if matches(known_etags, headers.get("etag", "")):
        await exchange.respond(304, headers, b"")
        return
    second = await anext(pieces, None)
    if second is None:
        headers.setdefault("etag", f'"{hashlib.sha256(first.data).hexdigest()[:32]}"')
        if matches(known_etags, headers["etag"]):
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


async def respond_with_events(match: Match, exchange: Exchange, responses: ResponseStream) -> None:
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
        await exchange.write(b": connected\n\n")
        while True:
            done, _ = await asyncio.wait((following,), timeout=KEEPALIVE_INTERVAL.total_seconds())
            if not done:
                await exchange.write(b": keepalive\n\n")
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
