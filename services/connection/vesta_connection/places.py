"""Which folders and URLs a Source may read, decided before anything is opened."""

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from vesta_common.errors import InvalidArgument

WEB = frozenset({"http", "https"})
# A translator behind these (RFC 6052, RFC 8215) makes an IPv4 address of them, and it may be an inner one.
_TRANSLATED = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))

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

    def check_url(self, url: str, endpoint_url: str, resolve: Resolve | None = None) -> None:
        """Refuses protocols and hosts that the operator does not allow: private, loopback, link-local and metadata addresses.

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
        for address in (endpoint_url, url if protocol in WEB else ""):
            if address:
                self._check_host(address, resolve or resolve_host)

    def _check_host(self, url: str, resolve: Resolve) -> None:
        parts = urlsplit(url)
        if parts.scheme not in WEB or not parts.hostname:
            raise InvalidArgument(
                f"{url} is no http:// or https:// endpoint", reason="SOURCE_NOT_ALLOWED", metadata={"url": url}
            )
        if parts.hostname in self.inner_hosts or parts.netloc in self.inner_hosts:
            return
        for address in resolve(parts.hostname):
            if not is_outside(address):
                raise InvalidArgument(
                    f"{parts.hostname} leads to the inner address {address}; the operator may allow it by name",
                    reason="SOURCE_NOT_ALLOWED",
                    metadata={"host": parts.hostname},
                )


def is_outside(address: str) -> bool:
    """Whether an address is that of one machine on the public internet."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour
        if embedded or any(ip in network for network in _TRANSLATED):
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
        raise InvalidArgument(
            f"{host} cannot be resolved: {error}", reason="SOURCE_UNREACHABLE", metadata={"host": host}
        ) from error
    return sorted({str(entry[4][0]) for entry in found})
