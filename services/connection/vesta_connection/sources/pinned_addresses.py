"""Pins the addresses of hosts for one Source: each host is resolved and checked once, and all connections use the result."""

import threading
from collections.abc import Callable, Sequence

Addresses = Callable[[str, int], Sequence[str]]
"""Returns the checked addresses of a host for connections to a port. Raises InvalidArgument if one of them is not allowed."""


class PinnedAddresses:
    """The pinned addresses. Pinning prevents DNS rebinding: a host that resolves to another address after the check.

    Thread-safe.

    Args:
        look_up: resolves a host and checks its addresses; see `AllowList.look_up`.
    """

    def __init__(self, look_up: Addresses) -> None:
        self._look_up = look_up
        self._known: dict[tuple[str, int], tuple[str, ...]] = {}
        self._lock = threading.Lock()

    def addresses(self, host: str, port: int) -> tuple[str, ...]:
        """Returns a host's addresses, at least one, as they were at the first call.

        Raises:
            InvalidArgument: SOURCE_NOT_ALLOWED, an address is internal; SOURCE_UNREACHABLE, the host has no address.
        """
        key = (host.lower().rstrip("."), port)
        with self._lock:
            addresses = self._known.get(key)
        if addresses is None:
            looked_up = tuple(self._look_up(host, port))
            with self._lock:
                addresses = self._known.setdefault(key, looked_up)
        return addresses

    def check_address(self, address: str, port: int) -> None:
        """Checks an address before a connection, for example one that a redirect contains instead of a host name.

        Raises:
            InvalidArgument: SOURCE_NOT_ALLOWED.
        """
        with self._lock:
            if any(address in pinned for (_, known_port), pinned in self._known.items() if known_port == port):
                return
        self.addresses(address, port)
