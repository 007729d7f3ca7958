"""The call pipeline of both APIs: authentication, limits, authorization, forwarding, audit."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from google.protobuf.message import DecodeError, Message
from vesta_common import trace
from vesta_common.errors import InvalidArgument, Unauthenticated
from vesta_common.rpc.outline import find_outline

from vesta_gateway.access.authentication import Authenticator
from vesta_gateway.access.authorization import authorize, authorize_more, project_of_request
from vesta_gateway.access.caller import Caller, role_word
from vesta_gateway.access.key_secrets import presented_secret
from vesta_gateway.access.limits import Slots, TokenBuckets
from vesta_gateway.access.throttle import Throttle
from vesta_gateway.audit.audit_log import AuditLog
from vesta_gateway.audit.entries import Origin
from vesta_gateway.calls.backends import CALLER_KEY, ROLE_KEY, Backend, Metadata, ResponseStream
from vesta_gateway.calls.projects import Projects
from vesta_gateway.contracts.methods import Rpc
from vesta_gateway.problems import overload_of


@dataclass(frozen=True)
class Session:
    """An authenticated caller, its API key, which is checked again during a stream, and the origin of the call."""

    caller: Caller
    secret: str
    origin: Origin


class Request(NamedTuple):
    """A request to a service.

    Attributes:
        message: the request, or its outline without large files (`vesta_common.rpc.outline`), for checks.
        raw: the serialized request, if `message` is an outline.
    """

    message: Message
    raw: bytes | None = None

    def serialized(self) -> bytes:
        """Returns the serialized request."""
        return self.message.SerializeToString() if self.raw is None else self.raw


@dataclass(frozen=True)
class Limits:
    """The limits of the gateway.

    Attributes:
        requests: requests per second, by key.
        unauthenticated: requests without a valid API key, per second, by address.
        calls: concurrent unary calls.
        transfers: concurrent uploads and downloads, each of which occupies a thread of a service.
        watchers: concurrent other streaming calls, which occupy no thread.
        throttle: adaptive throttling of overloaded services.
        timeout: maximum duration of a unary call.
        recheck: interval at which the API key of a stream is checked again.
    """

    requests: TokenBuckets
    unauthenticated: TokenBuckets
    calls: Slots
    transfers: Slots
    watchers: Slots
    throttle: Throttle
    timeout: timedelta
    recheck: timedelta


class CallPipeline:
    """Runs calls from the REST and gRPC servers to the backend services.

    Args:
        backends: backends by service name.
        audit: records calls that may have changed something, and rejected calls.
    """

    def __init__(
        self,
        backends: Mapping[str, Backend],
        authenticator: Authenticator,
        projects: Projects,
        limits: Limits,
        audit: AuditLog,
    ) -> None:
        self._backends = backends
        self._authenticator = authenticator
        self._projects = projects
        self._limits = limits
        self._audit = audit

    async def enter(self, rpc: Rpc, headers: Mapping[str, str], origin: Origin) -> Session:
        """Authenticates a call.

        Args:
            headers: headers of the HTTP or gRPC request, with lower-case names.
            rpc: the called RPC.
            origin: the origin of the call.

        Raises:
            Unauthenticated: the API key is missing, unknown or expired.
            ResourceExhausted: RATE_LIMITED, too many requests.
        """
        secret = presented_secret(headers)
        try:
            caller = await self._authenticator.authenticate(
                secret, lambda: self._limits.unauthenticated.check(origin.address)
            )
        except Unauthenticated as error:
            # Counted only after a failure, so that valid keys behind the same address are not affected.
            self._limits.unauthenticated.take(origin.address)
            if secret:
                self._audit.record_denied(rpc, error, origin)
            raise
        self._limits.requests.take(caller.key)
        return Session(caller, secret, origin)

    def hold(self, session: Session, rpc: Rpc) -> AbstractContextManager[None]:
        """Returns a context manager that holds a concurrency slot. Hold it for the whole call, including reading the body.

        Raises:
            ResourceExhausted: no slot is free, or the service is overloaded.
        """
        if rpc.is_unary:
            slots = self._limits.calls
        else:
            slots = self._limits.transfers if rpc.is_transfer else self._limits.watchers
        held = slots.hold(session.caller.key)
        self._limits.throttle.check(rpc.full_name)
        return held

    async def unary(self, session: Session, rpc: Rpc, request: Request, timeout_seconds: float | None = None) -> bytes:
        """Makes a unary call. Returns the serialized response.

        Args:
            timeout_seconds: the client's timeout; limited by the gateway's maximum.

        Raises:
            VestaError: the gateway rejected the call.
            AioRpcError: the backend rejected the call, or the call failed.
        """
        caller = session.caller
        message = request.message
        async with self._audit.around(rpc, caller, message, session.origin) as responses:
            acting = authorize(caller, rpc, message)
            self._projects.check_open(rpc, message)
            self._projects.restrict_list(caller, message)
            longest = self._limits.timeout.total_seconds()
            timeout = longest if timeout_seconds is None else min(longest, timeout_seconds)
            with trace.calling(acting, role_word(caller.role)):
                with self._throttled(rpc):
                    sent = self._backends[rpc.backend].unary(rpc, request.serialized(), _metadata(), timeout)
                    responses.append(await sent)
                await self._projects.process_response(rpc, responses[0])
        return responses[0]

    @asynccontextmanager
    async def stream(
        self,
        session: Session,
        rpc: Rpc,
        first: Request,
        later: AsyncIterator[bytes],
        timeout_seconds: float | None = None,
    ) -> AsyncIterator[ResponseStream]:
        """Makes a streaming call for the duration of the block, while the API key is valid.

        Args:
            first: the first request.
            later: the following requests, serialized.

        Raises:
            VestaError: the gateway rejected the call, at the start or during the stream.
            AioRpcError: the backend rejected the call, or the call failed.
        """
        async with (
            self._audit.around(rpc, session.caller, first.message, session.origin),
            self._streaming(session, rpc, first, later, timeout_seconds) as responses,
        ):
            yield responses

    @asynccontextmanager
    async def _streaming(
        self, session: Session, rpc: Rpc, first: Request, later: AsyncIterator[bytes], timeout_seconds: float | None
    ) -> AsyncIterator[ResponseStream]:
        caller = session.caller
        acting = authorize(caller, rpc, first.message)
        self._projects.check_open(rpc, first.message)
        requests = _Requests(caller, rpc, first, later)
        with trace.calling(acting, role_word(caller.role)):
            responses = self._backends[rpc.backend].stream(rpc, requests.read(), _metadata(), timeout_seconds)
        try:
            async with self._while_valid(session):
                with self._throttled(rpc):
                    yield responses
        except (Exception, asyncio.CancelledError):
            if requests.error is not None:  # gRPC cancels a call if its request iterator fails
                raise requests.error from None
            raise
        finally:
            responses.cancel()

    @contextmanager
    def _throttled(self, rpc: Rpc) -> Iterator[None]:
        """Reports overload errors of the backend to the throttle."""
        try:
            yield
        except Exception as error:
            overload = overload_of(error)
            if overload is not None:
                self._limits.throttle.record_rejection(rpc.full_name, overload.retry_after)
            raise

    @asynccontextmanager
    async def _while_valid(self, session: Session) -> AsyncIterator[None]:
        """Ends the block with `Unauthenticated` when its API key is revoked, expires, or gets another role."""
        task = asyncio.current_task()
        assert task is not None
        revoked: list[Unauthenticated] = []

        async def watch() -> None:
            while not revoked:
                await asyncio.sleep(self._limits.recheck.total_seconds())
                try:
                    if await self._authenticator.authenticate(session.secret) != session.caller:
                        revoked.append(
                            Unauthenticated(
                                "the permissions of this key have changed; retry the call", reason="KEY_CHANGED"
                            )
                        )
                except Unauthenticated as error:
                    revoked.append(error)
                except Exception:  # noqa: BLE001, S112 - PostgreSQL is unavailable: running streams continue
                    continue
            task.cancel()

        watcher = asyncio.create_task(watch())
        try:
            yield
        except asyncio.CancelledError:
            if revoked and task.uncancel() == 0:
                raise revoked[0] from None
            raise
        finally:
            watcher.cancel()


class _Requests:
    """The requests of a stream. Each is authorized before it is forwarded.

    Attributes:
        error: why a request was not forwarded.
    """

    def __init__(self, caller: Caller, rpc: Rpc, first: Request, later: AsyncIterator[bytes]) -> None:
        self._caller = caller
        self._rpc = rpc
        self._first = first
        self._later = later
        self.error: Exception | None = None

    async def read(self) -> AsyncIterator[bytes]:
        """Yields the serialized requests."""
        project = project_of_request(self._rpc, self._first.message) if self._rpc.scope else ""
        yield self._first.serialized()
        try:
            async for raw in self._later:
                request = read_message(self._rpc, raw)
                authorize_more(self._caller, project, request.message)
                yield request.serialized()
        except Exception as error:
            self.error = error
            raise


def read_message(rpc: Rpc, raw: bytes) -> Request:
    """Parses a request. Unknown fields are discarded, so that nothing unchecked is forwarded. A large file is not copied.

    Raises:
        InvalidArgument: BODY_MALFORMED.
    """
    outline = find_outline(rpc.request_type, raw)
    if outline is not None:
        return Request(outline.message, raw)
    message = rpc.request_type()
    try:
        message.MergeFromString(raw)
    except DecodeError as error:
        raise InvalidArgument(
            f"the request is not a valid {rpc.descriptor.input_type.full_name}", reason="BODY_MALFORMED"
        ) from error
    message.DiscardUnknownFields()
    return Request(message)


def _metadata() -> Metadata:
    """Returns the metadata for the backend: caller, role and trace context. Metadata of the client is not forwarded."""
    return [(CALLER_KEY, trace.caller()), (ROLE_KEY, trace.role()), *trace.carrier().items()]
