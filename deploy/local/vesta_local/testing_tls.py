"""TLS for tests: a certificate authority, and a TLS-terminating proxy for servers without TLS."""

import asyncio
import datetime as dt
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization

from vesta_local.ports import HOST

VALID_FOR = dt.timedelta(days=1)
# https://www.postgresql.org/docs/current/protocol-message-formats.html, SSLRequest: length 8, code 80877103
_POSTGRES_ASKS_FOR_TLS = bytes([0, 0, 0, 8, 4, 210, 22, 47])
_CHUNK_BYTES = 64 * 1024
_ROUNDS_TO_CLOSE = 10  # iterations of the event loop until aborted connections are closed


@dataclass(frozen=True)
class Authority:
    """A certificate authority; its own certificate is in `ca.pem`."""

    folder: Path
    ca: trustme.CA

    @property
    def ca_file(self) -> str:
        """The PEM file of the authority's certificate."""
        return str(self.folder / "ca.pem")

    def issue(self, name: str, valid_for: dt.timedelta = VALID_FOR) -> Path:
        """Issues a certificate for the address of this machine; writes it with its key to `NAME.pem`.

        Args:
            valid_for: the lifetime from now; negative for an expired certificate.
        """
        issued = self.ca.issue_cert(HOST, common_name=name, not_after=dt.datetime.now(dt.UTC) + valid_for)
        path = self.folder / f"{name}.pem"
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        path.write_bytes(_pkcs8(issued.private_key_pem.bytes()) + chain + self.ca.cert_pem.bytes())
        return path


def _pkcs8(key: bytes) -> bytes:
    """Converts a PEM key to PKCS #8, the only format that Java reads too."""
    loaded = serialization.load_pem_private_key(key, None)
    return loaded.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def an_authority(folder: Path) -> Authority:
    """Creates an authority with its files in the folder."""
    authority = Authority(folder, trustme.CA())
    authority.ca.cert_pem.write_to_path(authority.ca_file)
    return authority


class TlsProxy:
    """A proxy that terminates TLS and forwards to a server without TLS. Runs in a thread.

    Args:
        certificate: the file with its certificate and key.
        address: HOST:PORT of the server.
        is_postgres: whether clients begin with PostgreSQL's SSLRequest.
    """

    def __init__(self, certificate: Path, address: str, *, is_postgres: bool = False) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.use(certificate)
        self._host, _, self._port = address.rpartition(":")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        serve = self._serve_postgres if is_postgres else self._serve
        starting = asyncio.start_server(serve, HOST, 0, ssl=None if is_postgres else self._context)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()

    @property
    def address(self) -> str:
        """HOST:PORT of the proxy."""
        return f"{HOST}:{self._server.sockets[0].getsockname()[1]}"

    def use(self, certificate: Path) -> None:
        """Uses this certificate for new connections."""
        self._context.load_cert_chain(certificate)

    def close(self) -> None:
        """Closes all connections and stops listening."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(_ROUNDS_TO_CLOSE):
            await asyncio.sleep(0)

    async def _serve_postgres(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                if await reader.readexactly(len(_POSTGRES_ASKS_FOR_TLS)) == _POSTGRES_ASKS_FOR_TLS:
                    writer.write(b"S")
                    await writer.start_tls(self._context)
                    await self._serve(reader, writer)
        finally:
            _abort(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):
                far_reader, far_writer = await asyncio.open_connection(self._host, int(self._port))
                try:
                    await asyncio.gather(_pass_on(reader, far_writer), _pass_on(far_reader, writer))
                finally:
                    _abort(far_writer)
        finally:
            _abort(writer)


def _abort(writer: asyncio.StreamWriter) -> None:
    with suppress(AttributeError):  # Python 3.11 raises it if TLS has already ended
        writer.transport.abort()


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await source.read(_CHUNK_BYTES):
            target.write(chunk)
            await target.drain()
    target.close()


@contextmanager
def tls_proxy(certificate: Path, address: str, *, is_postgres: bool = False) -> Iterator[TlsProxy]:
    """Runs a proxy for the server at HOST:PORT during the block."""
    proxy = TlsProxy(certificate, address, is_postgres=is_postgres)
    try:
        yield proxy
    finally:
        proxy.close()
