"""Web servers over fsspec and aiohttp: every connection, also that of a redirect, goes to an address that was checked.

Imported only where the operator allows http or https; fsspec needs aiohttp for them, which is installed with `vesta-connection[web]`.
"""

import asyncio
import socket
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from fsspec.implementations.http import HTTPFileSystem

from vesta_connection.sources.pinned_addresses import Pins


def open_web(pins: Pins) -> HTTPFileSystem:
    """A file system of web servers."""

    async def get_client(**options: Any) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=_PinnedResolver(pins), use_dns_cache=False, socket_factory=lambda info: _checked_socket(pins, info)
        )
        return aiohttp.ClientSession(connector=connector, **options)

    return HTTPFileSystem(get_client=get_client, use_listings_cache=False, skip_instance_cache=True)


class _PinnedResolver(AbstractResolver):
    """Answers names with pinned addresses."""

    def __init__(self, pins: Pins) -> None:
        self._pins = pins

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - those of both families
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
        """Has nothing open."""


def _checked_socket(pins: Pins, info: Any) -> socket.socket:
    """A socket for an address, which may come from a URL and never went through the resolver."""
    family, kind, protocol, _, (address, port, *_) = info
    pins.check_address(address, port)
    return socket.socket(family, kind, protocol)
