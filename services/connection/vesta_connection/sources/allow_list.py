"""Which folders and URLs a Source may read, decided before anything is opened."""

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from vesta_common.errors import InvalidArgument

from vesta_connection.sources.pinned_addresses import Pins

WEB = frozenset({"http", "https"})
# A translator behind these (RFC 6052, RFC 8215) makes an IPv4 address of them, and it may be an inner one; so does whoever still
# reads IPv4-compatible addresses (RFC 4291).
_TRANSLATED = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "::/96")))
# Addresses in public ranges at which clouds answer their machines with credentials: those of Oracle and Azure.
_OF_CLOUDS = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "168.63.129.16/32")))

Resolve = Callable[[str], Sequence[str]]
"""A host's addresses, as text."""


@dataclass(frozen=True)
class Places:
    """What the operator allows.

    Attributes:
        folder_roots: folders below which folder Sources may lie.
        protocols: fsspec protocols that bucket Sources may use, such as `s3`.
        inner_hosts: hosts, with their port where it matters, that may be reached although their address is private.
    """

    folder_roots: tuple[Path, ...]
    protocols: tuple[str, ...]
    inner_hosts: tuple[str, ...]

    def check_folder(self, path: str) -> Path:
        """The folder with every link followed, if it lies below an allowed root.

        Raises:
            InvalidArgument: it lies elsewhere, or is no folder. Both are told alike, so that nothing can be found out.
        """
        real = Path(path).resolve()
        roots = [root.resolve() for root in self.folder_roots]
        if not any(real.is_relative_to(root) for root in roots) or not real.is_dir():
            allowed = ", ".join(map(str, roots)) or "none"
            raise InvalidArgument(
                f"{path} is not a folder below those that the operator allows ({allowed})",
                reason="SOURCE_NOT_ALLOWED",
                metadata={"path": path},
            )
        return real

    def check_url(self, url: str, endpoint_url: str, resolve: Resolve | None = None) -> Pins:
        """Refuses protocols and hosts that the operator does not allow: private, loopback, link-local and metadata addresses.

        Returns:
            The addresses that were checked, to connect to: what the names lead to may be another one soon.

        Raises:
            InvalidArgument: says which part is not allowed.
        """
        if "::" in url:
            raise InvalidArgument(
                f"{url} chains one place to another; name the place itself",
                reason="SOURCE_NOT_ALLOWED",
                metadata={"url": url},
            )
        protocol = urlsplit(url).scheme
        if protocol not in self.protocols:
            raise InvalidArgument(
                f"{protocol}:// is not among the protocols that the operator allows ({', '.join(self.protocols)})",
                reason="SOURCE_NOT_ALLOWED",
                metadata={"protocol": protocol},
            )
        pins = Pins(partial(self.look_up, resolve=resolve or resolve_host))
        for address in (endpoint_url, url if protocol in WEB else ""):
            if address:
                pins.addresses(*_host_and_port(address))
        return pins

    def look_up(self, host: str, port: int, *, resolve: Resolve) -> list[str]:
        """The addresses of a host, for a connection to a port.

        Raises:
            InvalidArgument: SOURCE_NOT_ALLOWED, one of them is an inner one, and the operator does not allow the host by name;
                SOURCE_UNREACHABLE, there is none.
        """
        addresses = [*resolve(host)]
        shown = f"[{host}]" if ":" in host else host
        if not {host, shown, f"{shown}:{port}"} & {*self.inner_hosts}:
            for address in addresses:
                if not is_outside(address):
                    raise InvalidArgument(
                        f"{host} leads to the inner address {address}; the operator may allow it by name",
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
            f"{url} is no http:// or https:// endpoint", reason="SOURCE_NOT_ALLOWED", metadata={"url": url}
        )
    return parts.hostname, port


def is_outside(address: str) -> bool:
    """Whether an address is that of one machine on the public internet."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour
        if embedded or any(ip in network for network in _TRANSLATED):
            return False
    if any(ip in network for network in _OF_CLOUDS):
        return False
    return ip.is_global and not ip.is_multicast


def resolve_host(host: str) -> list[str]:
    """The addresses of a host.

    Raises:
        InvalidArgument: it has none.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise _unresolvable(host, str(error)) from error
    return sorted({str(entry[4][0]) for entry in found})


def _unresolvable(host: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"{host} cannot be resolved: {why}", reason="SOURCE_UNREACHABLE", metadata={"host": host})
