"""Connections go to the checked addresses: not to where DNS points later, nor to where a redirect leads."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from connection_builders import Connection, a_jpeg
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from vesta_common.errors import FailedPrecondition, InvalidArgument
from vesta_common.storage.objects import ObjectStore
from vesta_connection.ingest import Arrival, RejectedFile
from vesta_connection.settings import Settings
from vesta_connection.sources.allow_list import AllowList
from vesta_connection.sources.listing import FileTree, open_tree
from vesta_connection.sources.pinned_addresses import PinnedAddresses
from vesta_connection.syncs.worker import read_or_reject
from vesta_contracts.connection.v1 import BucketSource, Source

NAME = "photos.example.test"


class Flipping:
    """A resolver of an attacker: its first result is allowed, all later ones are not."""

    def __init__(self, first: str, later: str) -> None:
        self.answers = [first]
        self.later = later

    def __call__(self, host: str) -> list[str]:
        if host[0].isdigit():
            return [host]
        return [self.answers.pop() if self.answers else self.later]


class Web:
    """A web server with responses by path, which records its requests."""

    def __init__(self, address: str, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.pages: dict[str, bytes | str] = {}
        self.asked: list[tuple[str, str]] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                web.asked.append((self.headers["Host"], path))
                page = web.pages.get(path)
                self.send_response(404 if page is None else 200 if isinstance(page, bytes) else 302)
                if isinstance(page, str):
                    self.send_header("Location", page)
                body = page if isinstance(page, bytes) else b""
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Suppresses the log."""

        self._server = ThreadingHTTPServer((address, port), Handler)
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


Serve = Callable[..., Web]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as open_servers:

        def start(address: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> Web:
            web = Web(address, port, tls)
            open_servers.callback(web.close)
            return web

        yield start


def s3_listing(*keys: str) -> bytes:
    entries = "".join(
        f"<Contents><Key>{key}</Key><Size>1</Size><ETag>e</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        for key in keys
    )
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode()


def names_of(tree: FileTree) -> list[str]:
    return [file.file_name for file in tree.files()]


def test_a_bucket_is_read_at_the_checked_address_after_its_name_resolves_to_another(serve: Serve) -> None:
    sound = serve("127.0.0.2")
    victim = serve("127.0.0.1", sound.port)
    for web in (sound, victim):
        web.pages = {"/photos": s3_listing("a.jpg"), "/photos/a.jpg": b"picture"}
    host = f"{NAME}:{sound.port}"
    source = Source(bucket=BucketSource(url="s3://photos", endpoint_url=f"http://{host}"))

    tree = open_tree(source, "", AllowList((), ("s3",), (host,)), Flipping("127.0.0.2", later="127.0.0.1"))

    assert [tree.read(file) for file in tree.files()] == [b"picture"]
    assert (sound.asked, victim.asked) == ([(host, "/photos"), (host, "/photos/a.jpg")], [])


def test_a_name_that_resolves_to_an_internal_address_is_rejected_before_any_request(serve: Serve) -> None:
    victim = serve()
    resolve = Flipping("93.184.216.34", later="127.0.0.1")
    allow_list = AllowList((), ("s3",), ())
    endpoint = f"http://{NAME}:{victim.port}"
    allow_list.check_url("s3://photos", endpoint, resolve)  # as when the source is created
    with pytest.raises(InvalidArgument) as caught:
        open_tree(Source(bucket=BucketSource(url="s3://photos", endpoint_url=endpoint)), "", allow_list, resolve)
    assert (caught.value.reason, victim.asked) == ("SOURCE_NOT_ALLOWED", [])


def test_a_name_is_resolved_once_for_all_connections() -> None:
    pins = AllowList((), ("s3",), ()).check_url(
        "s3://p", f"https://{NAME}", Flipping("93.184.216.34", later="10.0.0.7")
    )
    assert {pins.addresses(NAME, 443), pins.addresses(f"{NAME.upper()}.", 443)} == {("93.184.216.34",)}


def test_the_second_address_is_tried_if_the_first_does_not_respond(serve: Serve) -> None:
    web = serve("127.0.0.2")
    web.pages = {"/photos": s3_listing("a.jpg")}
    host = f"{NAME}:{web.port}"
    source = Source(bucket=BucketSource(url="s3://photos", endpoint_url=f"http://{host}"))
    tree = open_tree(source, "", AllowList((), ("s3",), (host,)), lambda _: ["127.0.0.3", "127.0.0.2"])
    assert names_of(tree) == ["a.jpg"]


def test_a_name_without_an_address_is_unreachable() -> None:
    with pytest.raises(InvalidArgument) as caught:
        AllowList((), ("s3",), ()).check_url("s3://photos", f"http://{NAME}", lambda _: [])
    assert caught.value.reason == "SOURCE_UNREACHABLE"


@pytest.mark.parametrize(
    "endpoint", ["http://photos:0", "http://photos:port", "http://photos:99999", "http://", "photos:80"]
)
def test_an_invalid_endpoint_is_not_allowed(endpoint: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        AllowList((), ("s3",), ()).check_url("s3://photos", endpoint, lambda _: ["93.184.216.34"])
    assert caught.value.reason == "SOURCE_NOT_ALLOWED"


def tls_of(name: str, folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Creates a server's certificate for a name; returns it with the CA file for clients."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    trusted, private = folder / "certificate.pem", folder / "key.pem"
    trusted.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, private)
    return context, trusted


@pytest.mark.parametrize("certified", [NAME, "other.example.test"])
def test_tls_verifies_the_name_although_the_address_is_pinned(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certified: str
) -> None:
    tls, trusted = tls_of(certified, tmp_path)
    asked: list[str] = []
    tls.sni_callback = lambda _, name, __: asked.append(name)
    web = serve(tls=tls)
    web.pages = {"/photos": s3_listing("a.jpg")}
    monkeypatch.setenv("AWS_CA_BUNDLE", str(trusted))
    host = f"{NAME}:{web.port}"
    source = Source(bucket=BucketSource(url="s3://photos", endpoint_url=f"https://{host}"))
    tree = open_tree(source, "", AllowList((), ("s3",), (host,)), lambda _: ["127.0.0.1"])
    if certified == NAME:
        assert names_of(tree) == ["a.jpg"]
        assert web.asked == [(host, "/photos")]
    else:
        with pytest.raises(FailedPrecondition, match="SSL validation failed"):
            names_of(tree)
    assert set(asked) == {NAME}


@pytest.fixture
def site(serve: Serve) -> tuple[Web, Web, FileTree]:
    """A web server with redirects to allowed and other hosts, an internal server, and the tree of the first."""
    site, victim = serve(), serve()
    here, there = f"http://127.0.0.1:{site.port}", f"127.0.0.1:{victim.port}"
    victim.pages = {"/secret.jpg": b"secret"}
    site.pages = {
        "/photos/plain.jpg": b"plain",
        "/photos/moved.jpg": f"{here}/photos/plain.jpg",
        "/photos/by-address.jpg": f"http://{there}/secret.jpg",
        "/photos/by-name.jpg": f"http://localhost:{victim.port}/secret.jpg",
        "/photos/twice.jpg": f"{here}/photos/by-address.jpg",
        "/photos/mapped.jpg": f"http://[::ffff:127.0.0.1]:{victim.port}/secret.jpg",
    }
    links = "".join(f'<a href="{here}{path}">x</a>' for path in site.pages)
    site.pages |= {"/photos": f"{here}/photos/", "/photos/": links.encode()}
    allow_list = AllowList((), ("http",), (f"127.0.0.1:{site.port}",))
    return site, victim, open_tree(Source(bucket=BucketSource(url=f"{here}/photos/")), "", allow_list)


def test_redirects_are_followed_only_to_public_addresses(
    site: tuple[Web, Web, FileTree],
) -> None:
    _, victim, tree = site
    read = {file.file_name: read_or_reject(tree, file) for file in tree.files()}
    assert {name for name, found in read.items() if isinstance(found, Arrival)} == {"plain.jpg", "moved.jpg"}
    refused = {name: found.reason for name, found in read.items() if isinstance(found, RejectedFile)}
    assert refused == dict.fromkeys(("by-address.jpg", "by-name.jpg", "twice.jpg", "mapped.jpg"), "SOURCE_NOT_ALLOWED")
    assert victim.asked == []


def test_a_file_list_with_internal_addresses_is_rejected(serve: Serve) -> None:
    site, victim = serve(), serve()
    site.pages = {"/photos": f"http://127.0.0.1:{victim.port}/"}
    allow_list = AllowList((), ("http",), (f"127.0.0.1:{site.port}",))
    tree = open_tree(Source(bucket=BucketSource(url=f"http://127.0.0.1:{site.port}/photos")), "", allow_list)
    with pytest.raises(InvalidArgument) as caught:
        names_of(tree)
    assert (caught.value.reason, victim.asked) == ("SOURCE_NOT_ALLOWED", [])


def test_the_address_of_a_web_server_stays_pinned(serve: Serve) -> None:
    sound = serve("127.0.0.2")
    victim = serve("127.0.0.1", sound.port)
    host = f"{NAME}:{sound.port}"
    for web in (sound, victim):
        web.pages = {
            "/p": f'<a href="http://{host}/p/a.jpg">x</a>'.encode(),
            "/p/a.jpg": web._server.server_address[0].encode(),
        }
    allow_list = AllowList((), ("http",), (host,))
    source = Source(bucket=BucketSource(url=f"http://{host}/p/"))
    tree = open_tree(source, "", allow_list, Flipping("127.0.0.2", later="127.0.0.1"))
    assert [tree.read(file) for file in tree.files()] == [b"127.0.0.2"]
    assert victim.asked == []


def test_a_bucket_of_the_real_store_is_read_by_a_virtual_host_name(connection: Connection, settings: Settings) -> None:
    """Signatures cover the host name, and stay valid too."""
    ObjectStore.of(settings).put_named("photos/a.jpg", a_jpeg(1))
    port = settings.s3_endpoint_url.rpartition(":")[2]
    bucket = BucketSource(
        url=f"s3://{settings.s3_bucket}/{settings.s3_prefix}photos",
        endpoint_url=f"http://localhost:{port}",
        access_key_id=settings.s3_access_key,
        secret_access_key=settings.s3_secret_key.get_secret_value(),
    )
    connection.allow_list = AllowList((), ("s3",), (f"localhost:{port}",))
    tree = open_tree(Source(bucket=bucket), bucket.secret_access_key, connection.allow_list, lambda _: ["127.0.0.1"])
    assert [tree.read(file) for file in tree.files()] == [a_jpeg(1)]


def test_threads_share_the_pinned_address() -> None:
    asked = threading.Barrier(2)
    answers = iter([["93.184.216.34"], ["93.184.216.35"]])

    def look_up(host: str, port: int) -> list[str]:
        asked.wait(10)
        return next(answers)

    pins = PinnedAddresses(look_up)
    found: list[tuple[str, ...]] = []
    threads = [threading.Thread(target=lambda: found.append(pins.addresses(NAME, 80))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
