"""Which folders and URLs a Source may read, decided before anything is opened."""

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from vesta_common.errors import InvalidArgument

_WEB = frozenset({"http", "https"})

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
        protocol = urlsplit(url).scheme
        if protocol not in self.protocols:
            raise InvalidArgument(
                f"{protocol}:// is not among the protocols that the operator allows ({', '.join(self.protocols)})",
                reason="SOURCE_NOT_ALLOWED",
                metadata={"protocol": protocol},
            )
        for address in (endpoint_url, url if protocol in _WEB else ""):
            if address:
                self._check_host(address, resolve or resolve_host)

    def _check_host(self, url: str, resolve: Resolve) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _WEB or not parts.hostname:
            raise InvalidArgument(
                f"{url} is no http:// or https:// endpoint", reason="SOURCE_NOT_ALLOWED", metadata={"url": url}
            )
        if parts.hostname in self.inner_hosts or parts.netloc in self.inner_hosts:
            return
        for address in resolve(parts.hostname):
            if not ipaddress.ip_address(address).is_global:
                raise InvalidArgument(
                    f"{parts.hostname} leads to the inner address {address}; the operator may allow it by name",
                    reason="SOURCE_NOT_ALLOWED",
                    metadata={"host": parts.hostname},
                )


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
