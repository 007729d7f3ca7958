"""Several Tritons as one: a model is ready when each has loaded it, and images go to each in turn.

One that fails is asked last, and its images go to another. One that does not answer for `AWAY_MAX` is no longer waited for; the deployer
brings it up to date when it is back, as it does those that join, and only then is it asked in its turn again.
"""

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray
from vesta_common.errors import Unavailable

from vesta_serving.triton.client import ModelMissing, Scores, Triton

RESOLVE_INTERVAL = timedelta(seconds=5)
AWAY_MAX = timedelta(seconds=60)
THREADS = 8

T = TypeVar("T")

log = structlog.get_logger()


class Replica:
    """One of them.

    Attributes:
        address: HOST:PORT.
        triton: asks it.
        is_current: True once it has every model that is needed, as far as is known.
    """

    def __init__(self, address: str, triton: Triton, monotonic: Callable[[], float]) -> None:
        self.address = address
        self.triton = triton
        self.is_current = False
        self._monotonic = monotonic
        self._away_since: float | None = None

    @property
    def is_answering(self) -> bool:
        """False since the last call to it that failed, until one succeeds."""
        return self._away_since is None

    @property
    def is_given_up(self) -> bool:
        """True where it has not answered for so long that nobody waits for it."""
        since = self._away_since
        return since is not None and self._monotonic() - since > AWAY_MAX.total_seconds()

    def is_live(self) -> bool:
        """Asks whether the server itself answers."""
        found = self.triton.is_live()
        self._note(is_answering=found)
        return found

    @contextmanager
    def asked(self) -> Iterator[Triton]:
        """The server, while it is asked something.

        Raises:
            Unavailable: names the replica.
        """
        try:
            yield self.triton
        except ModelMissing as error:
            self.is_current = False
            raise ModelMissing(f"{self.address}: {error.message}", reason=error.reason) from error
        except Unavailable as error:
            self._note(is_answering=False)
            raise Unavailable(f"{self.address}: {error.message}", reason=error.reason) from error
        self._note(is_answering=True)

    def _note(self, *, is_answering: bool) -> None:
        if is_answering and self._away_since is not None:
            self._away_since = None
            log.info("triton_back", address=self.address)
        elif not is_answering and self._away_since is None:
            self._away_since = self._monotonic()
            self.is_current = False
            log.warning("triton_away", address=self.address)


class Tritons:
    """Every Triton that an address stands for. Safe to share between threads.

    Args:
        address: HOST:PORT, or several separated by commas; a name that resolves to several IP addresses stands for all of them.
        connect: to one HOST:PORT.
    """

    def __init__(
        self, address: str, connect: Callable[[str], Triton] = Triton, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._parts = [part.strip() for part in address.split(",") if part.strip()]
        self._connect = connect
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._resolved = -RESOLVE_INTERVAL.total_seconds()
        self._replicas: dict[str, Replica] = {}
        self._turn = itertools.count()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="triton")

    def replicas(self) -> list[Replica]:
        """All there are by now. Where a name does not resolve, those that were known."""
        with self._lock:
            if self._monotonic() - self._resolved >= RESOLVE_INTERVAL.total_seconds():
                self._resolve()
                self._resolved = self._monotonic()
            return list(self._replicas.values())

    def count(self, *, answering: bool) -> int:
        """How many answer, or do not; for the metrics."""
        with self._lock:
            return sum(replica.is_answering == answering for replica in self._replicas.values())

    def check(self) -> None:
        """Asks each whether it answers.

        Raises:
            Unavailable: none does.
        """
        if not any([*self._pool.map(Replica.is_live, self.replicas())]):
            raise Unavailable(f"no Triton answers at {', '.join(self._parts)}", reason="TRITON_UNAVAILABLE")

    def load(self, name: str) -> None:
        """Loads a model, or loads it anew, into each.

        Raises:
            Unavailable: one does not answer, or refuses it; says which and why.
        """
        self._each(lambda triton: triton.load(name))

    def unload(self, name: str) -> None:
        """Forgets a model, each.

        Raises:
            Unavailable: one does not answer; the others have forgotten it.
        """
        self._each(lambda triton: triton.unload(name))

    def probe(self, name: str, *, classifies: bool) -> None:
        """Asks each a real question.

        Raises:
            Unavailable: the model does not answer there as it should; says where.
        """
        self._each(lambda triton: triton.probe(name, classifies=classifies))

    def is_live(self) -> bool:
        """True where all that are waited for answer."""
        return all(self._pool.map(Replica.is_live, self._awaited()))

    def loaded(self) -> set[str]:
        """The models that any of them holds."""
        return set[str]().union(*self._each(Triton.loaded))

    def infer(self, name: str, pixels: NDArray[np.uint8], *, classifies: bool, embeds: bool) -> Scores:
        """Asks one of them, each in its turn, as `Triton.infer`; the next where one fails.

        Raises:
            ModelMissing: none answers, and one of them has not loaded the model.
            Unavailable: none answers.
        """
        failure: Unavailable | None = None
        for replica in self._in_turn():
            try:
                with replica.asked() as triton:
                    return triton.infer(name, pixels, classifies=classifies, embeds=embeds)
            except Unavailable as error:
                if failure is None or isinstance(error, ModelMissing):
                    failure = error
        raise failure or _nowhere(self._parts)

    def _in_turn(self) -> list[Replica]:
        """The order in which to ask: those that are up to date, then those that are not, and last those that do not answer."""
        found = self.replicas()
        start = next(self._turn) % len(found) if found else 0
        turned = found[start:] + found[:start]
        return sorted(turned, key=lambda replica: (not replica.is_answering, not replica.is_current))

    def _awaited(self) -> list[Replica]:
        """Those that a change waits for; all where all have been given up."""
        found = self.replicas()
        return [replica for replica in found if not replica.is_given_up] or found

    def _each(self, act: Callable[[Triton], T]) -> list[T]:
        """What each one answers, asked at once; the first failure when all have been asked."""

        def ask(replica: Replica) -> T:
            with replica.asked() as triton:
                return act(triton)

        replicas = self._awaited()
        if not replicas:
            raise _nowhere(self._parts)
        asked = [self._pool.submit(ask, replica) for replica in replicas]
        for future in asked:
            future.exception()
        return [future.result() for future in asked]

    def _resolve(self) -> None:
        addresses: set[str] = set()
        for part in self._parts:
            try:
                addresses.update(addresses_of(part))
            except OSError as error:
                log.warning("triton_not_resolved", address=part, error=str(error))
                addresses.update(self._replicas)
        for address in sorted(addresses - self._replicas.keys()):
            self._replicas[address] = Replica(address, self._connect(address), self._monotonic)
        for address in self._replicas.keys() - addresses:
            with suppress(Exception):  # calls may be under way: they fail, and go elsewhere
                self._replicas.pop(address).triton.close()


def addresses_of(part: str) -> Sequence[str]:
    """`HOST:PORT` for each address of a host: those of IPv4 where there are any.

    Raises:
        OSError: the name does not resolve.
    """
    host, _, port = part.removeprefix("dns:///").rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    families = {family for family, *_ in found}
    wanted = socket.AF_INET if socket.AF_INET in families else socket.AF_INET6
    hosts = sorted({str(address[0]) for family, _, _, _, address in found if family == wanted})
    return [f"[{one}]:{port}" if ":" in one else f"{one}:{port}" for one in hosts]


def _nowhere(parts: Sequence[str]) -> Unavailable:
    return Unavailable(f"{', '.join(parts)} resolves to no Triton", reason="TRITON_UNAVAILABLE")
