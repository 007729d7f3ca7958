"""The addresses that connections for one Source may go to: each host is resolved once, checked, and stays where it was."""

import threading
from collections.abc import Callable, Sequence

Addresses = Callable[[str, int], Sequence[str]]
"""The checked addresses of a host, for a connection to a port. Raises where one of them is not allowed."""


class Pins:
    """What a name was resolved to when it was checked is where every connection goes, and nobody can move the name in between.

    Safe to share between threads.

    Args:
        look_up: resolves a host and checks its addresses; see `Places.look_up`.
    """

    def __init__(self, look_up: Addresses) -> None:
        self._look_up = look_up
        self._known: dict[tuple[str, int], tuple[str, ...]] = {}
        self._lock = threading.Lock()

    def addresses(self, host: str, port: int) -> tuple[str, ...]:
        """A host's addresses, at least one: a name's as they were when it was first asked for.

        Raises:
            InvalidArgument: SOURCE_NOT_ALLOWED, one is an inner one; SOURCE_UNREACHABLE, there is none.
        """
        key = (host.lower().rstrip("."), port)
        with self._lock:
            found = self._known.get(key)
        if found is None:
            looked_up = tuple(self._look_up(host, port))
            with self._lock:
                found = self._known.setdefault(key, looked_up)
        return found

    def check_address(self, address: str, port: int) -> None:
        """Checks an address that something is about to connect to, such as one that a redirect names without any name.

        Raises:
            InvalidArgument: SOURCE_NOT_ALLOWED.
        """
        with self._lock:
            if any(address in pinned for (_, known_port), pinned in self._known.items() if known_port == port):
                return
        self.addresses(address, port)
