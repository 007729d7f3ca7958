"""The allow-list of folders and URLs that a Source may read. It is checked before anything is opened."""

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from vesta_common.errors import InvalidArgument

from vesta_connection.sources.pinned_addresses import PinnedAddresses

WEB = frozenset({"http", "https"})
# Addresses that contain an IPv4 address, which may be an internal one: those of a NAT64 gateway (RFC 6052, RFC 8215), and deprecated
# IPv4-compatible addresses (RFC 4291).
_EMBEDDED_IPV4 = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "::/96")))
# Metadata services of Oracle and Azure, which return credentials, have addresses in public ranges.
_METADATA_NETWORKS = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "168.63.129.16/32")))

Resolve = Callable[[str], Sequence[str]]
"""Resolves a host to addresses, as text."""


@dataclass(frozen=True)
class AllowList:
    """The allow-list of the operator.

    Attributes:
        folder_roots: folders that folder Sources may be below.
        protocols: fsspec protocols that bucket Sources may use, such as `s3`.
        inner_hosts: hosts, optionally with a port, that may be accessed although their address is private.
    """

    folder_roots: tuple[Path, ...]
    protocols: tuple[str, ...]
    inner_hosts: tuple[str, ...]

    def check_folder(self, path: str) -> Path:
        """Returns the resolved path of a folder, if it is below an allowed root.

        Raises:
            InvalidArgument: the path is not below an allowed root, or is not a folder. The error is the same for both, so that it
                does not reveal which paths exist.
        """
        real = Path(path).resolve()
        roots = [root.resolve() for root in self.folder_roots]
        if not any(real.is_relative_to(root) for root in roots) or not real.is_dir():
            allowed = ", ".join(map(str, roots)) or "none"
            raise InvalidArgument(
                f"{path} is not a folder below the allowed roots ({allowed}); ask an operator to allow it",
                reason="SOURCE_NOT_ALLOWED",
                metadata={"path": path},
            )
        return real

    def check_url(self, url: str, endpoint_url: str, resolve: Resolve | None = None) -> PinnedAddresses:
        """Rejects protocols and hosts that are not allowed: private, loopback, link-local and metadata addresses.

        Returns:
            The checked addresses to connect to: the host names may resolve to others later.

        Raises:
            InvalidArgument: contains the part that is not allowed.
        """
        if "::" in url:
            raise InvalidArgument(
                f"{url} is a chained URL; use the URL of the source itself",
                reason="SOURCE_NOT_ALLOWED",
                metadata={"url": url},
            )
        protocol = urlsplit(url).scheme
        if protocol not in self.protocols:
            raise InvalidArgument(
                f"the protocol {protocol}:// is not allowed; allowed protocols: {', '.join(self.protocols)}",
                reason="SOURCE_NOT_ALLOWED",
                metadata={"protocol": protocol},
            )
        pins = PinnedAddresses(partial(self.look_up, resolve=resolve or resolve_host))
        for address in (endpoint_url, url if protocol in WEB else ""):
            if address:
                pins.addresses(*_host_and_port(address))
        return pins

    def look_up(self, host: str, port: int, *, resolve: Resolve) -> list[str]:
        """Resolves a host to addresses for connections to a port.

        Raises:
            InvalidArgument: SOURCE_NOT_ALLOWED, an address is internal and the operator does not allow the host by name;
                SOURCE_UNREACHABLE, the host has no address.
        """
        addresses = [*resolve(host)]
        shown = f"[{host}]" if ":" in host else host
        if not {host, shown, f"{shown}:{port}"} & {*self.inner_hosts}:
            for address in addresses:
                if not is_public(address):
                    raise InvalidArgument(
                        f"{host} resolves to the private address {address}; ask an operator to allow the host",
                        reason="SOURCE_NOT_ALLOWED",
                        metadata={"host": host},
                    )
        if not addresses:
            raise _unresolvable(host, "it has no address")
        return addresses


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    try:
        port = (443 if parts.scheme == "https" else 80) if parts.port is None else parts.port
    except ValueError:
        port = 0
    if parts.scheme not in WEB or not parts.hostname or not port:
        raise InvalidArgument(
            f"{url} is not an http:// or https:// endpoint", reason="SOURCE_NOT_ALLOWED", metadata={"url": url}
        )
    return parts.hostname, port


def is_public(address: str) -> bool:
    """Whether the address belongs to a single host on the public internet."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour
        if embedded or any(ip in network for network in _EMBEDDED_IPV4):
            return False
    if any(ip in network for network in _METADATA_NETWORKS):
        return False
    return ip.is_global and not ip.is_multicast


def resolve_host(host: str) -> list[str]:
    """Returns the addresses of a host.

    Raises:
        InvalidArgument: the host cannot be resolved.
    """
    try:
        resolved = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise _unresolvable(host, str(error)) from error
    return sorted({str(entry[4][0]) for entry in resolved})


def _unresolvable(host: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"{host} cannot be resolved: {why}", reason="SOURCE_UNREACHABLE", metadata={"host": host})
