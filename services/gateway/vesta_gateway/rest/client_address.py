"""Whose call it is behind proxies: the last address of X-Forwarded-For that is none of a trusted proxy's."""

from collections.abc import Sequence
from ipaddress import ip_address, ip_network

EVERYBODY = "*"


class Proxies:
    """The proxies whose X-Forwarded-For is believed.

    Args:
        trusted: IP addresses and networks, separated by commas; `*` for everybody; empty for nobody.

    Raises:
        ValueError: one of them is neither.
    """

    def __init__(self, trusted: str) -> None:
        self._is_everybody = trusted.strip() == EVERYBODY
        parts = [part.strip() for part in trusted.split(",") if part.strip()]
        self._networks = [] if self._is_everybody else [ip_network(part, strict=False) for part in parts]

    def client_of(self, peer: str, forwarded: Sequence[str]) -> str:
        """The address that a call comes from.

        Args:
            peer: of the connection, without the port.
            forwarded: values of X-Forwarded-For in their order, each of which may list several addresses, the nearest last.
        """
        hops = [hop.strip() for value in forwarded for hop in value.split(",") if hop.strip()]
        client = peer
        while self._trusts(client) and hops:
            client = _without_port(hops.pop())
        return client

    def _trusts(self, address: str) -> bool:
        if self._is_everybody:
            return True
        try:
            found = ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._networks)


def _without_port(hop: str) -> str:
    """`10.0.0.7` of `10.0.0.7:4711`, `::1` of `[::1]:4711`; IPv6 without brackets as it is."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
