"""The Python packages that customers install: `pip install -r http://GATEWAY/simple/requirements.txt`, and a simple index (PEP 503).

It offers the wheels of one folder, to everybody and without a key. A request's path is only ever compared with the names of those
wheels, so that no path leads to another file. The folder is read again for each request: new wheels need no restart.

The requirements file names each wheel by its address and hash. With an index beside others, pip takes the highest version of a name from
any of them, and a package of one of our names may be on another index.
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
from vesta_gateway.rest.pages import Answer
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
    """One file of the index.

    Attributes:
        project: its normalised name, such as `vesta-client`.
        requires_python: as the wheel's metadata says it; empty where it says nothing.
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
        folder: of the wheels; None where nothing is offered.
        monotonic: seconds of a clock that never turns back.
    """

    def __init__(self, folder: Path | None, monotonic: Callable[[], float]) -> None:
        self._folder = folder
        self._known: dict[Path, tuple[tuple[int, int], Wheel]] = {}
        self._requests = TokenBuckets("package requests", REQUESTS_PER_SECOND, REQUESTS_BURST, monotonic)

    @staticmethod
    def has(path: str) -> bool:
        """Whether a request for this path is for the index."""
        return path == PREFIX or path.startswith(f"{PREFIX}/")

    async def answer(self, verb: str, path: str, address: str, headers: Mapping[str, str], scheme: str) -> Answer:
        """Answers a request for a path of the index; a refusal is an answer too.

        Args:
            address: whose requests are counted.
            scheme: http or https, as the client came.
        """
        try:
            if verb not in {"GET", "HEAD"}:
                raise InvalidArgument(f"{verb} is not for this path; what is: GET", reason="METHOD_NOT_ALLOWED")
            self._requests.take(address)
            wheels = await asyncio.to_thread(self._read)
            below = path.removeprefix(PREFIX)
            if below == REQUIREMENTS:
                return _requirements(wheels, scheme, headers)
            return _answer(wheels, below, headers)
        except VestaError as error:
            problem = problem_of(to_status(error))
            allowed = {"allow": "GET, HEAD"} if error.reason == "METHOD_NOT_ALLOWED" else {}
            return problem.http_status, {"content-type": JSON, **problem.headers, **allowed}, problem.body

    def _read(self) -> list[Wheel]:
        """The folder's wheels, in order of their names; those that did not change are not read again."""
        paths = sorted(self._folder.glob("*.whl"))[:WHEELS_MAX] if self._folder else []
        known = {}
        for path in paths:
            try:
                status = path.stat()
                version = (status.st_mtime_ns, status.st_size)
                before = self._known.get(path)
                known[path] = before if before and before[0] == version else (version, _read_wheel(path, *version))
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                log.warning("wheel_not_offered", file=path.name, error=str(error))
        self._known = known
        return [wheel for _, wheel in known.values()]


def normalised(name: str) -> str:
    """A project's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _read_wheel(path: Path, modified_ns: int, size: int) -> Wheel:
    """Raises OSError, BadZipFile, ValueError or KeyError where the file is no wheel that can be offered."""
    named = _WHEEL.fullmatch(path.name)
    if named is None:
        raise ValueError("its name is not a wheel's")
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


def _requirements(wheels: list[Wheel], scheme: str, headers: Mapping[str, str]) -> Answer:
    """The newest wheel of each project, by the address under which the client knows this gateway.

    Raises:
        InvalidArgument: the request names no such address.
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


def _answer(wheels: list[Wheel], below: str, headers: Mapping[str, str]) -> Answer:
    """Answers a path below the prefix.

    Raises:
        NotFound: the index has no such project or file.
    """
    projects = sorted({wheel.project for wheel in wheels})
    if below == "/":
        return _page("Simple index", [f'<a href="{name}/">{name}</a>' for name in projects], headers)
    _, _, rest = below.partition("/")
    name, slash, filename = rest.partition("/")
    project = normalised(name)
    if below and project not in projects:
        offered = f"it offers {', '.join(projects)}" if projects else "VESTA_GATEWAY_WHEELS_FOLDER names none"
        raise NotFound(f"this index has no such package; {offered}", reason="PACKAGE_UNKNOWN")
    if not slash or name != project:
        return 301, {"location": f"{PREFIX}/{project}/{filename if slash else ''}" if below else f"{PREFIX}/"}, b""
    files = [wheel for wheel in wheels if wheel.project == project]
    if not filename:
        return _page(f"Links for {project}", [_link(wheel) for wheel in files], headers)
    # pip sends the "!" of a version's epoch as %21.
    found = next((wheel for wheel in files if wheel.filename == unquote(filename)), None)
    if found is None:
        raise NotFound(f"there is no such file of {project}; see {PREFIX}/{project}/", reason="PACKAGE_UNKNOWN")
    return _cached(_BYTES, found.content, found.sha256, headers)


def _link(wheel: Wheel) -> str:
    requires = f' data-requires-python="{escape(wheel.requires_python)}"' if wheel.requires_python else ""
    return f'<a href="{wheel.filename}#sha256={wheel.sha256}"{requires}>{wheel.filename}</a>'


def _page(title: str, links: list[str], headers: Mapping[str, str]) -> Answer:
    head = f'<meta name="pypi:repository-version" content="1.0"><title>{title}</title>'
    body = "".join(f"{link}<br>\n" for link in links)
    page = f"<!DOCTYPE html>\n<html><head>{head}</head><body>\n{body}</body></html>\n".encode()
    return _cached(_HTML, page, hashlib.sha256(page).hexdigest(), headers)


def _cached(content_type: str, body: bytes, digest: str, headers: Mapping[str, str]) -> Answer:
    """A body, or 304 where the client has it: the same file name may stand for newer content after an update."""
    etag = f'"{digest[:32]}"'
    told = {"content-type": content_type, "etag": etag, "cache-control": "no-cache"}
    return (304, told, b"") if matches(headers.get("if-none-match", ""), etag) else (200, told, body)
