"""Web servers as an fsspec file system based on aiohttp. Every connection, including redirects, goes to a checked address.

Imported only if the operator allows http or https. fsspec needs aiohttp for them, which `vesta-connection[web]` installs.
"""

import asyncio
import socket
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from fsspec.implementations.http import HTTPFileSystem

from vesta_connection.sources.pinned_addresses import PinnedAddresses


def open_web(pins: PinnedAddresses) -> HTTPFileSystem:
    """Returns a file system for web servers."""

    async def get_client(**options: Any) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=_PinnedResolver(pins), use_dns_cache=False, socket_factory=lambda info: _checked_socket(pins, info)
        )
        return aiohttp.ClientSession(connector=connector, **options)

    return HTTPFileSystem(get_client=get_client, use_listings_cache=False, skip_instance_cache=True)


class _PinnedResolver(AbstractResolver):
    """Resolves host names to pinned addresses."""

    def __init__(self, pins: PinnedAddresses) -> None:
        self._pins = pins

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - returns addresses of both families
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in await asyncio.to_thread(self._pins.addresses, host, port)
        ]

    async def close(self) -> None:
        """Does nothing: there is nothing to close."""


def _checked_socket(pins: PinnedAddresses, info: Any) -> socket.socket:
    """Creates a socket after checking the address, which may come from a URL and then has not passed through the resolver."""
    family, kind, protocol, _, (address, port, *_) = info
    pins.check_address(address, port)
    return socket.socket(family, kind, protocol)
