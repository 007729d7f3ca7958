"""Addresses of peers: one address, several, or a DNS name with several addresses. Calls are balanced over all of them."""

from contextlib import suppress
from ipaddress import ip_address
from typing import Annotated

from pydantic import AfterValidator


def target_of(address: str) -> str:
    """Converts an address to a gRPC target. A list of addresses becomes `ipv4:…,…` or `ipv6:…,…`; other addresses are unchanged.

    Args:
        address: `HOST:PORT`; several IP addresses with ports, separated by commas; or a gRPC target, such as `dns:///NAME:PORT`.

    Raises:
        ValueError: an entry of a list is not an IP address with a port, or the list mixes IPv4 and IPv6.
    """
    parts = [part.strip() for part in address.split(",") if part.strip()]
    if len(parts) < 2 or address.startswith(("ipv4:", "ipv6:")):
        return address.strip().strip(",")
    versions = {_version(part, address) for part in parts}
    if len(versions) > 1:
        raise ValueError(f"{address!r} mixes IPv4 and IPv6 addresses; list addresses of one family")
    return f"ipv{versions.pop()}:{','.join(parts)}"


def _version(part: str, address: str) -> int:
    host, _, port = part.rpartition(":")
    with suppress(ValueError):
        if port.isdigit():
            return ip_address(host.strip("[]")).version
    raise ValueError(
        f"{part!r} in {address!r} is not an IP address with a port; list only IP addresses, "
        "or write dns:///NAME:PORT for a name with several addresses"
    )


def _checked(address: str) -> str:
    target_of(address)
    return address


PeerAddress = Annotated[str, AfterValidator(_checked)]
"""Type of settings that contain the address of a peer."""
