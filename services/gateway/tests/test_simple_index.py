"""The index of packages: links with hashes that pip can follow, files as they lie in the folder, and nothing else of the disk."""

import asyncio
import hashlib
import http.client
import json
import os
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
from vesta_gateway.rest.simple_index import REQUESTS_BURST, WHEEL_BYTES_MAX, SimpleIndex, normalised

NAME = "vesta_client-0.1.0-py3-none-any.whl"


def a_wheel(folder: Path, name: str = NAME, requires: str = ">=3.11", content: str = "answer = 42\n") -> Path:
    """A wheel with one module."""
    project, version = name.split("-")[:2]
    path = folder / name
    info = f"{project}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(f"{project}_module.py", content)
        packed.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\nRequires-Python: {requires}\n\n",
        )
        packed.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr(f"{info}/RECORD", "")
    return path


class Links(HTMLParser):
    """The links of a page, as pip reads them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "a":
            self.found.append(dict(attrs))


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder of wheels beside a file that is nobody's business."""
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "dist"
    folder.mkdir()
    return folder


@pytest.fixture
def index(start_gateway, wheels: Path) -> str:
    """The address of a gateway that offers the folder."""
    return start_gateway(wheels_folder=wheels).url + "/simple/"


def test_every_link_of_the_index_leads_to_a_file_with_its_hash_without_a_key(index: str, wheels: Path) -> None:
    wheel = a_wheel(wheels)
    a_wheel(wheels, "vesta_contracts-0.1.0-py3-none-any.whl")
    root = httpx.get(index)
    assert root.headers["content-type"] == "text/html; charset=utf-8"
    projects = [urljoin(index, link["href"]) for link in Links(root.text).found]
    assert projects == [f"{index}vesta-client/", f"{index}vesta-contracts/"]
    page = httpx.get(projects[0])
    (link,) = Links(page.text).found
    address, _, digest = urljoin(projects[0], link["href"]).partition("#sha256=")
    assert link["data-requires-python"] == ">=3.11"
    file = httpx.get(address)
    assert file.content == wheel.read_bytes()
    assert hashlib.sha256(file.content).hexdigest() == digest
    assert file.headers["content-type"] == "application/octet-stream"
    assert file.headers["x-content-type-options"] == "nosniff"


def test_pip_installs_from_the_index(index: str, wheels: Path, tmp_path: Path) -> None:
    a_wheel(wheels)
    pip = [sys.executable, "-m", "pip", "--isolated", "install", "--no-cache-dir", "--index-url", index]
    subprocess.run([*pip, "--target", str(tmp_path / "there"), "Vesta.Client"], check=True, timeout=120)
    assert (tmp_path / "there" / "vesta_client_module.py").read_text() == "answer = 42\n"


def test_pip_installs_the_requirements_file_and_takes_no_newer_package_of_that_name_from_another_index(
    index: str, start_gateway, wheels: Path, tmp_path: Path
) -> None:
    a_wheel(wheels)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    a_wheel(elsewhere, "vesta_client-9.0.0-py3-none-any.whl", content="answer = 'a stranger'\n")
    other = start_gateway(wheels_folder=elsewhere).url + "/simple/"
    pip = [sys.executable, "-m", "pip", "--isolated", "install", "--no-cache-dir", "--index-url", other]
    there = tmp_path / "there"
    subprocess.run([*pip, "--target", there, "-r", f"{index}requirements.txt"], check=True, timeout=120)
    assert (there / "vesta_client_module.py").read_text() == "answer = 42\n"


def test_the_requirements_file_names_the_newest_wheels_by_the_address_that_the_client_used(
    index: str, wheels: Path
) -> None:
    os.utime(a_wheel(wheels, "vesta_client-0.2.0-py3-none-any.whl"), (1, 1))
    newest = a_wheel(wheels)
    answer = httpx.get(f"{index}requirements.txt", headers={"host": "vision.example:8443"})
    digest = hashlib.sha256(newest.read_bytes()).hexdigest()
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == f"vesta-client @ http://vision.example:8443/simple/vesta-client/{NAME}#sha256={digest}\n"
    refused = httpx.get(f"{index}requirements.txt", headers={"host": "a b\tc"})
    assert (refused.status_code, refused.json()["error"]["details"][0]["reason"]) == (400, "HTTP_MALFORMED")


def test_a_new_wheel_is_listed_without_a_restart_and_an_unchanged_one_is_not_sent_again(
    index: str, wheels: Path
) -> None:
    address = f"{index}vesta-client/{NAME}"
    assert httpx.get(address).status_code == 404
    a_wheel(wheels)
    first = httpx.get(address)
    assert httpx.get(address, headers={"if-none-match": first.headers["etag"]}).status_code == 304
    a_wheel(wheels, content="answer = 'another one'\n")
    second = httpx.get(address, headers={"if-none-match": first.headers["etag"]})
    assert (second.status_code, second.content) == (200, (wheels / NAME).read_bytes())
    (wheels / NAME).unlink()
    assert httpx.get(address).status_code == 404


def test_a_version_with_an_epoch_is_found_by_the_name_that_pip_requests(index: str, wheels: Path) -> None:
    a_wheel(wheels, "vesta_client-1!0.1.0-py3-none-any.whl")
    for spelling in ("1!0.1.0", "1%210.1.0"):
        answer = httpx.get(f"{index}vesta-client/vesta_client-{spelling}-py3-none-any.whl")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/octet-stream")


@pytest.mark.parametrize(
    ("path", "to"),
    [
        ("/simple", "/simple/"),
        ("/simple/vesta-client", "/simple/vesta-client/"),
        ("/simple/Vesta_Client/", "/simple/vesta-client/"),
        (f"/simple/vesta.client/{NAME}", f"/simple/vesta-client/{NAME}"),
    ],
)
def test_other_spellings_are_redirected_to_the_normalised_one(index: str, wheels: Path, path: str, to: str) -> None:
    a_wheel(wheels)
    answer = httpx.get(urljoin(index, path))
    assert (answer.status_code, answer.headers["location"]) == (301, to)
    assert httpx.get(urljoin(index, to)).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "vesta-client/../../secret.txt",
        "vesta-client/..%2f..%2fsecret.txt",
        "vesta-client/%2e%2e/%2e%2e/secret.txt",
        "vesta-client//etc/passwd",
        "/etc/passwd",
        "%00",
        "vesta-client/secret.txt",
        "nothing/",
        "%C3%92/",
        f"vesta-client/{NAME}/",
        f"vesta-contracts/{NAME}",
        "x" * 5000,
    ],
)
def test_no_path_leads_to_anything_but_the_wheels(start_gateway, wheels: Path, path: str) -> None:
    a_wheel(wheels)
    connection = http.client.HTTPConnection(start_gateway(wheels_folder=wheels).gateway.rest_address, timeout=10)
    connection.request("GET", f"/simple/{path}")  # as it is: other clients tidy paths up before they send them
    answer = connection.getresponse()
    problem = json.loads(answer.read())["error"]
    connection.close()
    assert answer.status == 404
    assert problem["details"][0]["reason"] == "PACKAGE_UNKNOWN"
    assert "secret" not in problem["message"]


def test_invalid_wheels_are_not_listed_and_hide_no_others(index: str, wheels: Path) -> None:
    a_wheel(wheels)
    (wheels / "broken-1-py3-none-any.whl").write_bytes(b"no zip")
    (wheels / "nameless.whl").write_bytes(b"no name")
    (wheels / "folder-1-py3-none-any.whl").mkdir()
    zipfile.ZipFile(wheels / "empty-1-py3-none-any.whl", "w").close()
    with (wheels / "large-1-py3-none-any.whl").open("wb") as large:
        large.truncate(WHEEL_BYTES_MAX + 1)
    assert [link["href"] for link in Links(httpx.get(index).text).found] == ["vesta-client/"]


def test_the_index_is_read_only(index: str) -> None:
    answer = httpx.post(index, content=b"x")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert answer.json()["error"]["details"][0]["reason"] == "METHOD_NOT_ALLOWED"
    assert httpx.head(index).content == b""


def test_without_a_folder_the_error_names_the_setting(running) -> None:
    answer = httpx.get(f"{running.url}/simple/vesta-client/")
    assert answer.status_code == 404
    assert "VESTA_GATEWAY_WHEELS_FOLDER" in answer.json()["error"]["message"]


async def _statuses(index: SimpleIndex, address: str, count: int) -> list[int]:
    return [(await index.respond("GET", "/simple/", address, {}, "http"))[0] for _ in range(count)]


def test_too_many_requests_of_one_address_are_rejected_and_others_are_not(wheels: Path) -> None:
    index = SimpleIndex(wheels, monotonic=lambda: 1000.0)
    assert asyncio.run(_statuses(index, "203.0.113.9", REQUESTS_BURST + 1)) == [200] * REQUESTS_BURST + [429]
    assert asyncio.run(_statuses(index, "203.0.113.10", 1)) == [200]


def test_names_are_normalised_by_pep_503() -> None:
    assert {normalised(name) for name in ("Vesta-Client", "vesta_client", "VESTA.client", "vesta-_.client")} == {
        "vesta-client"
    }
