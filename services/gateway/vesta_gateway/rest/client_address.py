"""Determines the client's address behind proxies: the last address of X-Forwarded-For that is not a trusted proxy."""

from collections.abc import Sequence
from ipaddress import ip_address, ip_network

TRUST_ALL = "*"


class Proxies:
    """The proxies whose X-Forwarded-For header is trusted.

    Args:
        trusted: IP addresses and networks, separated by commas; `*` for all; empty for none.

    Raises:
        ValueError: an entry is neither an IP address nor a network.
    """

    def __init__(self, trusted: str) -> None:
        self._trusts_all = trusted.strip() == TRUST_ALL
        parts = [part.strip() for part in trusted.split(",") if part.strip()]
        self._networks = [] if self._trusts_all else [ip_network(part, strict=False) for part in parts]

    def client_of(self, peer: str, forwarded: Sequence[str]) -> str:
        """Returns the client's address.

        Args:
            peer: address of the connection, without port.
            forwarded: values of X-Forwarded-For in order. Each may list several addresses, the nearest last.
        """
        hops = [hop.strip() for value in forwarded for hop in value.split(",") if hop.strip()]
        client = peer
        while self._trusts(client) and hops:
            client = _without_port(hops.pop())
        return client

    def _trusts(self, address: str) -> bool:
        if self._trusts_all:
            return True
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._networks)


def _without_port(hop: str) -> str:
    """Removes the port: `10.0.0.7` for `10.0.0.7:4711`, `::1` for `[::1]:4711`. IPv6 without brackets is unchanged."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
