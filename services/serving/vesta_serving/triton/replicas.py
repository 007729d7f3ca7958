"""Treats several Triton servers as one: a model is ready when every server has loaded it, and requests are distributed round-robin.

A server that fails is used last, and its requests go to another server. A change does not wait for a server that has been unavailable for
more than `UNAVAILABLE_MAX`. When it is available again, or when a new server joins, the deployer loads the models before it is used.
"""

import itertools
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from datetime import timedelta
from typing import TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray
from vesta_common.errors import Unavailable

from vesta_serving.triton.batching import Batching
from vesta_serving.triton.client import ModelMissing, Triton
from vesta_serving.triton.model import BATCH_MAX, Outputs, TritonModel

RESOLVE_INTERVAL = timedelta(seconds=5)
RESOLVE_INTERVAL_FAILING = timedelta(seconds=1)
"""While all known servers fail."""
RETIRED_OPEN = timedelta(seconds=150)
"""The channel to a server that is gone stays open for longer than any call, so that another server repeats the calls that fail."""
UNAVAILABLE_MAX = timedelta(seconds=60)
THREADS = 8
BATCH_THREADS = 16
CALLS_PER_INSTANCE = 2
"""One call runs while the next one waits in Triton."""

T = TypeVar("T")

log = structlog.get_logger()


class Replica:
    """One Triton server.

    Attributes:
        address: HOST:PORT.
        triton: the client.
        is_current: whether it is known to have loaded every needed model.
    """

    def __init__(self, address: str, triton: Triton, monotonic: Callable[[], float]) -> None:
        self.address = address
        self.triton = triton
        self.is_current = False
        self._monotonic = monotonic
        self._unavailable_since: float | None = None

    @property
    def is_available(self) -> bool:
        """False after a failed call, until a call succeeds."""
        return self._unavailable_since is None

    @property
    def is_long_unavailable(self) -> bool:
        """Whether it has been unavailable for so long that changes do not wait for it."""
        since = self._unavailable_since
        return since is not None and self._monotonic() - since > UNAVAILABLE_MAX.total_seconds()

    def is_live(self) -> bool:
        """Checks whether the server responds."""
        is_live = self.triton.is_live()
        self._record(is_available=is_live)
        return is_live

    @contextmanager
    def call(self) -> Iterator[Triton]:
        """Yields the client and records whether the call succeeds.

        Raises:
            Unavailable: contains the address of the server.
        """
        try:
            yield self.triton
        except ModelMissing as error:
            self.is_current = False
            raise ModelMissing(f"{self.address}: {error.message}", reason=error.reason) from error
        except Unavailable as error:
            self._record(is_available=False)
            raise Unavailable(f"{self.address}: {error.message}", reason=error.reason) from error
        self._record(is_available=True)

    def _record(self, *, is_available: bool) -> None:
        if is_available and self._unavailable_since is not None:
            self._unavailable_since = None
            log.info("triton_recovered", address=self.address)
        elif not is_available and self._unavailable_since is None:
            self._unavailable_since = self._monotonic()
            self.is_current = False
            log.warning("triton_unavailable", address=self.address)


class Tritons:
    """All Triton servers of an address. Thread-safe.

    Args:
        address: HOST:PORT, or several separated by commas; a name may resolve to several servers.
        connect: opens a client for one HOST:PORT.
        instance_count: of each model in each server.
    """

    def __init__(
        self,
        address: str,
        connect: Callable[[str], Triton] = Triton,
        monotonic: Callable[[], float] = time.monotonic,
        instance_count: int = 2,
    ) -> None:
        self._parts = [part.strip() for part in address.split(",") if part.strip()]
        self._connect = connect
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._resolved = -RESOLVE_INTERVAL.total_seconds()
        self._replicas: dict[str, Replica] = {}
        self._retired: deque[tuple[float, Triton]] = deque()  # with the time at which they were gone
        self._next_start = itertools.count()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="triton")
        self._batches = ThreadPoolExecutor(BATCH_THREADS, thread_name_prefix="batch")
        self._calls_per_server = CALLS_PER_INSTANCE * instance_count
        self._batching = Batching(self._infer_batch, lambda: self._calls_per_server * max(1, len(self._replicas)))

    def replicas(self) -> list[Replica]:
        """Returns the current servers. If a name does not resolve, returns the known ones."""
        with self._lock:
            self._resolve_after(RESOLVE_INTERVAL)
            return list(self._replicas.values())

    def count(self, *, available: bool) -> int:
        """Returns the number of servers that respond, or that do not; for metrics."""
        with self._lock:
            return sum(replica.is_available == available for replica in self._replicas.values())

    def check(self) -> None:
        """Checks that at least one server responds.

        Raises:
            Unavailable: no server responds.
        """
        if not any([*self._pool.map(Replica.is_live, self.replicas())]):
            raise Unavailable(f"no Triton responds at {', '.join(self._parts)}", reason="TRITON_UNAVAILABLE")

    def load(self, name: str) -> None:
        """Loads or reloads a model on every server.

        Raises:
            Unavailable: a server does not respond, or rejects the model; contains its address and the reason.
        """
        self._each(lambda triton: triton.load(name))

    def unload(self, name: str) -> None:
        """Unloads a model on every server.

        Raises:
            Unavailable: a server does not respond; the others have unloaded the model.
        """
        self._each(lambda triton: triton.unload(name))

    def probe(self, model: TritonModel) -> None:
        """Probes a model on every server with a real inference.

        Raises:
            Unavailable: a probe failed; contains the address of the server.
        """
        self._each(lambda triton: triton.probe(model))

    def is_live(self) -> bool:
        """Whether all servers respond, except those that are unavailable for long."""
        return all(self._pool.map(Replica.is_live, self._required()))

    def loaded(self) -> set[str]:
        """Returns the models that at least one server has loaded."""
        return set[str]().union(*self._each(Triton.loaded))

    def infer(self, name: str, pixels: NDArray[np.uint8], outputs: Sequence[str]) -> Outputs:
        """Runs a model on N images, in batches of at most `BATCH_MAX`, concurrently over the instances of all servers. While all of them
        are busy, the images of several callers share batches.

        Args:
            pixels: `(N, height, width, 3)` in the form of the model's input, N at least 1.
            outputs: the names of the outputs to return.

        Raises:
            ModelMissing: all servers failed, and at least one of them has not loaded the model.
            Unavailable: all servers failed.
            DeadlineExceeded: the deadline of the call that is being handled has passed.
        """
        if len(pixels) <= BATCH_MAX:
            return self._batching.infer(name, pixels, outputs)
        first, *others = (pixels[start : start + BATCH_MAX] for start in range(0, len(pixels), BATCH_MAX))
        # Each batch runs in a copy of the caller's context, so that it has the caller's trace and deadline.
        futures = [
            self._batches.submit(copy_context().run, self._batching.infer, name, batch, outputs) for batch in others
        ]
        parts = [self._batching.infer(name, first, outputs), *(future.result() for future in futures)]
        return {output: np.concatenate([part[output] for part in parts]) for output in outputs}

    def _infer_batch(self, name: str, pixels: NDArray[np.uint8], outputs: Sequence[str]) -> Outputs:
        """Runs `Triton.infer` on the next server in round-robin order, or on another one if it fails; at last on one that is new."""
        failure: Unavailable | None = None
        for replica in itertools.chain(self._round_robin(), self._newcomers()):
            try:
                with replica.call() as triton:
                    return triton.infer(name, pixels, outputs)
            except Unavailable as error:
                if failure is None or isinstance(error, ModelMissing):
                    failure = error
        raise failure or _no_address(self._parts)

    def _round_robin(self) -> list[Replica]:
        """Returns the servers in the order to use: those with all models, then those without, last those that do not respond."""
        replicas = self.replicas()
        start = next(self._next_start) % len(replicas) if replicas else 0
        rotated = replicas[start:] + replicas[:start]
        return sorted(rotated, key=lambda replica: (not replica.is_available, not replica.is_current))

    def _newcomers(self) -> Iterator[Replica]:
        """Yields the servers that the address resolves to only now: the known ones have failed, and may have been replaced."""
        with self._lock:
            known = set(self._replicas)
            self._resolve_after(RESOLVE_INTERVAL_FAILING)
            found = [replica for address, replica in self._replicas.items() if address not in known]
        yield from found

    def _required(self) -> list[Replica]:
        """Returns the servers that a change waits for; all servers if all are."""
        replicas = self.replicas()
        return [replica for replica in replicas if not replica.is_long_unavailable] or replicas

    def _each(self, act: Callable[[Triton], T]) -> list[T]:
        """Calls all servers concurrently and returns their results. Raises the first error after all calls have ended."""

        def call(replica: Replica) -> T:
            with replica.call() as triton:
                return act(triton)

        replicas = self._required()
        if not replicas:
            raise _no_address(self._parts)
        futures = [self._pool.submit(call, replica) for replica in replicas]
        for future in futures:
            future.exception()
        return [future.result() for future in futures]

    def _resolve_after(self, interval: timedelta) -> None:
        if self._monotonic() - self._resolved >= interval.total_seconds():
            self._resolve()
            self._resolved = self._monotonic()

    def _resolve(self) -> None:
        addresses: set[str] = set()
        for part in self._parts:
            try:
                addresses.update(addresses_of(part))
            except OSError as error:
                log.warning("triton_resolution_failed", address=part, error=str(error))
                addresses.update(self._replicas)
        for address in sorted(addresses - self._replicas.keys()):
            self._replicas[address] = Replica(address, self._connect(address), self._monotonic)
        now = self._monotonic()
        for address in self._replicas.keys() - addresses:
            self._retired.append((now, self._replicas.pop(address).triton))
        while self._retired and now - self._retired[0][0] >= RETIRED_OPEN.total_seconds():
            with suppress(Exception):
                self._retired.popleft()[1].close()


def addresses_of(part: str) -> Sequence[str]:
    """Returns `HOST:PORT` for each address of a host: the IPv4 addresses if there are any, otherwise the IPv6 addresses.

    Raises:
        OSError: the name does not resolve.
    """
    host, _, port = part.removeprefix("dns:///").rpartition(":")
    resolved = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    families = {family for family, *_ in resolved}
    chosen_family = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
    hosts = sorted({str(address[0]) for family, _, _, _, address in resolved if family == chosen_family})
    return [f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address in hosts]


def _no_address(parts: Sequence[str]) -> Unavailable:
    return Unavailable(f"{', '.join(parts)} resolves to no address of Triton", reason="TRITON_UNAVAILABLE")
