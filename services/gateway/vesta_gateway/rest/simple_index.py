"""A Python package index (PEP 503) for client packages, and `pip install -r http://GATEWAY/simple/requirements.txt`.

It serves the wheels of one folder without authentication. A request path is only compared with the names of these wheels, so it cannot
reach other files. The folder is read for each request, so new wheels need no restart.

The requirements file pins each wheel by URL and hash. With additional indexes, pip would install the highest version from any of them, and
a public index could contain a package with one of these names (dependency confusion).
"""

import asyncio
import hashlib
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from html import escape
from pathlib import Path
from urllib.parse import unquote

import structlog
from vesta_common.errors import InvalidArgument, NotFound, VestaError, to_status

from vesta_gateway.access.limits import TokenBuckets
from vesta_gateway.problems import problem_of
from vesta_gateway.rest.headers import matches
from vesta_gateway.rest.pages import HttpResponse
from vesta_gateway.rest.transcoding import JSON

PREFIX = "/simple"
WHEELS_MAX = 100
WHEEL_BYTES_MAX = 16 * 1024 * 1024
METADATA_BYTES_MAX = 256 * 1024
REQUESTS_PER_SECOND = 20.0
REQUESTS_BURST = 200
_WHEEL = re.compile(
    r"(?P<project>[A-Za-z0-9_.]+)-[A-Za-z0-9_.!+]+(-\d\w*)?-[A-Za-z0-9_.]+-[A-Za-z0-9_.]+-[A-Za-z0-9_.]+\.whl"
)
REQUIREMENTS = "/requirements.txt"
_HOST = re.compile(r"[A-Za-z0-9.\-_:\[\]]{1,255}")
_TEXT = "text/plain; charset=utf-8"
_HTML = "text/html; charset=utf-8"
_BYTES = "application/octet-stream"

log = structlog.get_logger()


@dataclass(frozen=True)
class Wheel:
    """A wheel of the index.

    Attributes:
        project: the normalised project name, such as `vesta-client`.
        requires_python: from the wheel's metadata; empty if it has none.
    """

    project: str
    filename: str
    sha256: str
    requires_python: str
    content: bytes
    modified_ns: int


class SimpleIndex:
    """The pages and files below `/simple`.

    Args:
        folder: the folder with wheels; None for an empty index.
        monotonic: a monotonic clock in seconds.
    """

    def __init__(self, folder: Path | None, monotonic: Callable[[], float]) -> None:
        self._folder = folder
        self._known: dict[Path, tuple[tuple[int, int], Wheel]] = {}
        self._requests = TokenBuckets("package requests", REQUESTS_PER_SECOND, REQUESTS_BURST, monotonic)

    @staticmethod
    def has(path: str) -> bool:
        """Returns True if the path belongs to the index."""
        return path == PREFIX or path.startswith(f"{PREFIX}/")

    async def respond(
        self, verb: str, path: str, address: str, headers: Mapping[str, str], scheme: str
    ) -> HttpResponse:
        """Handles a request. Errors are returned as responses.

        Args:
            address: the client's address, for the rate limit.
            scheme: http or https, as used by the client.
        """
        try:
            if verb not in {"GET", "HEAD"}:
                raise InvalidArgument(
                    f"the method {verb} is not allowed for this path; allowed: GET", reason="METHOD_NOT_ALLOWED"
                )
            self._requests.take(address)
            wheels = await asyncio.to_thread(self._read)
            relative_path = path.removeprefix(PREFIX)
            if relative_path == REQUIREMENTS:
                return _requirements(wheels, scheme, headers)
            return _respond(wheels, relative_path, headers)
        except VestaError as error:
            problem = problem_of(to_status(error))
            allowed = {"allow": "GET, HEAD"} if error.reason == "METHOD_NOT_ALLOWED" else {}
            return problem.http_status, {"content-type": JSON, **problem.headers, **allowed}, problem.body

    def _read(self) -> list[Wheel]:
        """Returns the wheels of the folder, sorted by file name. Unchanged files are cached."""
        paths = sorted(self._folder.glob("*.whl"))[:WHEELS_MAX] if self._folder else []
        known = {}
        for path in paths:
            try:
                status = path.stat()
                version = (status.st_mtime_ns, status.st_size)
                before = self._known.get(path)
                known[path] = before if before and before[0] == version else (version, _read_wheel(path, *version))
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                log.warning("wheel_skipped", file=path.name, error=str(error))
        self._known = known
        return [wheel for _, wheel in known.values()]


def normalised(name: str) -> str:
    """Returns a project name in the normalised form of PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _read_wheel(path: Path, modified_ns: int, size: int) -> Wheel:
    """Reads a wheel. Raises OSError, BadZipFile, ValueError or KeyError if the file is not a valid wheel."""
    named = _WHEEL.fullmatch(path.name)
    if named is None:
        raise ValueError("its name is not a wheel name")
    if size > WHEEL_BYTES_MAX:
        raise ValueError(f"it has more than {WHEEL_BYTES_MAX} bytes")
    with zipfile.ZipFile(path) as opened:
        (metadata,) = (info for info in opened.infolist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", info.filename))
        if metadata.file_size > METADATA_BYTES_MAX:
            raise ValueError(f"its metadata has more than {METADATA_BYTES_MAX} bytes")
        requires_python = BytesHeaderParser().parsebytes(opened.read(metadata)).get("Requires-Python", "")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return Wheel(normalised(named["project"]), path.name, digest, str(requires_python), content, modified_ns)


def _requirements(wheels: list[Wheel], scheme: str, headers: Mapping[str, str]) -> HttpResponse:
    """Returns the requirements file with the newest wheel of each project. URLs use the host that the client has called.

    Raises:
        InvalidArgument: HTTP_MALFORMED, the Host header is missing or malformed.
    """
    host = headers.get("host", "")
    if not _HOST.fullmatch(host):
        raise InvalidArgument("the Host header is missing or malformed; send HOST:PORT", reason="HTTP_MALFORMED")
    newest = {wheel.project: wheel for wheel in sorted(wheels, key=lambda wheel: wheel.modified_ns)}
    lines = [
        f"{project} @ {scheme}://{host}{PREFIX}/{project}/{wheel.filename}#sha256={wheel.sha256}\n"
        for project, wheel in sorted(newest.items())
    ]
    text = "".join(lines).encode()
    return _cached(_TEXT, text, hashlib.sha256(text).hexdigest(), headers)


def _respond(wheels: list[Wheel], relative_path: str, headers: Mapping[str, str]) -> HttpResponse:
    """Returns the response for a path below the prefix.

    Raises:
        NotFound: PACKAGE_UNKNOWN.
    """
    projects = sorted({wheel.project for wheel in wheels})
    if relative_path == "/":
        return _page("Simple index", [f'<a href="{name}/">{name}</a>' for name in projects], headers)
    _, _, rest = relative_path.partition("/")
    name, slash, filename = rest.partition("/")
    project = normalised(name)
    if relative_path and project not in projects:
        offered = f"available packages: {', '.join(projects)}" if projects else "VESTA_GATEWAY_WHEELS_FOLDER is not set"
        raise NotFound(f"unknown package; {offered}", reason="PACKAGE_UNKNOWN")
    if not slash or name != project:
        return (
            301,
            {"location": f"{PREFIX}/{project}/{filename if slash else ''}" if relative_path else f"{PREFIX}/"},
            b"",
        )
    files = [wheel for wheel in wheels if wheel.project == project]
    if not filename:
        return _page(f"Links for {project}", [_link(wheel) for wheel in files], headers)
    # pip encodes the "!" of a version's epoch as %21.
    requested = next((wheel for wheel in files if wheel.filename == unquote(filename)), None)
    if requested is None:
        raise NotFound(f"unknown file of {project}; see {PREFIX}/{project}/", reason="PACKAGE_UNKNOWN")
    return _cached(_BYTES, requested.content, requested.sha256, headers)


def _link(wheel: Wheel) -> str:
    requires = f' data-requires-python="{escape(wheel.requires_python)}"' if wheel.requires_python else ""
    return f'<a href="{wheel.filename}#sha256={wheel.sha256}"{requires}>{wheel.filename}</a>'


def _page(title: str, links: list[str], headers: Mapping[str, str]) -> HttpResponse:
    head = f'<meta name="pypi:repository-version" content="1.0"><title>{title}</title>'
    body = "".join(f"{link}<br>\n" for link in links)
    page = f"<!DOCTYPE html>\n<html><head>{head}</head><body>\n{body}</body></html>\n".encode()
    return _cached(_HTML, page, hashlib.sha256(page).hexdigest(), headers)


def _cached(content_type: str, body: bytes, digest: str, headers: Mapping[str, str]) -> HttpResponse:
    """Returns the body, or 304 if the client has it. Clients revalidate, because a file name may have new content after an update."""
    etag = f'"{digest[:32]}"'
    sent_headers = {"content-type": content_type, "etag": etag, "cache-control": "no-cache"}
    return (304, sent_headers, b"") if matches(headers.get("if-none-match", ""), etag) else (200, sent_headers, body)
