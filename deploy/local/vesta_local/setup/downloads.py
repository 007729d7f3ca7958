"""Plans the downloads of an installation: the pins that are not installed yet, with their sizes from the package index."""

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html.parser import HTMLParser
from importlib import metadata

TIMEOUT_SECONDS = 10.0
PAGE_BYTES_MAX = 64 * 1024 * 1024
LARGE_BYTES = 50 * 1000 * 1000
_CONNECTIONS = 12
_JSON = "application/vnd.pypi.simple.v1+json"
_ACCEPT = f"{_JSON}, text/html;q=0.1"
_UNREADABLE = (OSError, ValueError, KeyError)
_CUDA = re.compile(r"(nvidia|cuda)-.+|triton")


@dataclass(frozen=True)
class Pin:
    """A package with the version to install; the name is normalised (PEP 503)."""

    name: str
    version: str

    @property
    def is_cuda(self) -> bool:
        """Whether the package is a CUDA library: a dependency of PyPI's torch that CPU builds of torch do not have."""
        return _CUDA.fullmatch(self.name) is not None


@dataclass(frozen=True)
class IndexFile:
    """A file of a package index; the size in bytes is None if the index does not contain it."""

    filename: str
    url: str
    size: int | None


@dataclass(frozen=True)
class Download:
    """The download for a pin; the size is None if unknown."""

    pin: Pin
    size_bytes: int | None


def read_pins(lines: Iterable[str]) -> list[Pin]:
    """Parses the pins of a constraints file."""
    matches = (re.match(r"([A-Za-z0-9._-]+)\s*==\s*([^\s;#]+)", line) for line in lines)
    return [Pin(normalised(match[1]), match[2]) for match in matches if match]


def normalised(name: str) -> str:
    """Normalises a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_versions(folders: Sequence[str] = ()) -> dict[str, str]:
    """Returns the installed versions in this environment, or in these site-packages, by normalised name."""
    distributions = metadata.distributions(path=list(folders)) if folders else metadata.distributions()
    return {
        normalised(package.metadata["Name"]): package.version for package in distributions if package.metadata["Name"]
    }


def not_installed(pins: Iterable[Pin], installed: dict[str, str]) -> list[Pin]:
    """Returns the pins that are not installed in their version. A local version (`+cpu`) counts as installed."""
    return [pin for pin in pins if installed.get(pin.name, "").partition("+")[0] != pin.version.partition("+")[0]]


def index_url() -> str:
    """Returns the package index that pip uses, without a trailing slash."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    configured = dict(re.findall(r"^(.+?)\.index-url='(.+)'$", output, flags=re.MULTILINE))
    url = os.environ.get("PIP_INDEX_URL") or configured.get("install") or configured.get("global")
    return (url or _default_index_of_pip()).rstrip("/")


def _default_index_of_pip() -> str:
    program = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def files_of(index: str, name: str) -> list[IndexFile]:
    """Returns the files of a package on an index.

    Raises:
        OSError, ValueError, KeyError: the index does not respond, or the response is invalid.
    """
    request = urllib.request.Request(f"{index}/{name}/", headers={"Accept": _ACCEPT})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        url, kind, body = response.url, response.headers.get_content_type(), response.read(PAGE_BYTES_MAX)
    if kind == _JSON:
        return [
            IndexFile(file["filename"], urllib.parse.urljoin(url, file["url"]), file.get("size"))
            for file in json.loads(body)["files"]
        ]
    links = _Links()
    links.feed(body.decode())
    return [IndexFile(_name_of(link), urllib.parse.urljoin(url, link.partition("#")[0]), None) for link in links.found]


def _name_of(link: str) -> str:
    return urllib.parse.unquote(urllib.parse.urlsplit(link).path.rpartition("/")[2])


class _Links(HTMLParser):
    """Collects the links on a page of an index (PEP 503)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def wheel_of(files: Iterable[IndexFile], pin: Pin) -> IndexFile | None:
    """Returns the wheel that pip would choose for a pin on this machine, or the source archive if there is none."""
    from packaging.tags import sys_tags  # already installed at this point
    from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename
    from packaging.version import Version

    ranks = {tag: rank for rank, tag in enumerate(sys_tags())}
    best: tuple[int, IndexFile] | None = None
    for file in files:
        try:
            if file.filename.endswith(".whl"):
                _, version, _, tags = parse_wheel_filename(file.filename)
                rank = min((ranks[tag] for tag in tags if tag in ranks), default=None)
            else:
                _, version = parse_sdist_filename(file.filename)
                rank = len(ranks)
        except (InvalidWheelFilename, InvalidSdistFilename):
            continue
        if version == Version(pin.version) and rank is not None and (best is None or rank < best[0]):
            best = rank, file
    return best[1] if best else None


def plan_downloads(pins: Sequence[Pin], index_of: Callable[[Pin], str]) -> list[Download]:
    """Determines the download size of each pin from its index."""
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        return list(pool.map(lambda pin: Download(pin, _size(pin, index_of(pin))), pins))


def _size(pin: Pin, index: str) -> int | None:
    try:
        file = wheel_of(files_of(index, pin.name), pin)
        if file is None or file.size is not None:
            return file.size if file else None
        head = urllib.request.Request(file.url, method="HEAD")
        with urllib.request.urlopen(head, timeout=TIMEOUT_SECONDS) as response:
            return int(response.headers["Content-Length"])
    except (*_UNREADABLE, TypeError):
        return None


def format_plan(downloads: Sequence[Download], *, is_cpu_requested: bool = False) -> str:
    """Formats the plan: the total, the large packages by name, and the total of the others.

    Args:
        is_cpu_requested: whether the CPU build of torch was requested, so that the hint to it is left out.
    """
    known = [(download.size_bytes, download.pin) for download in downloads if download.size_bytes is not None]
    large = sorted(((size, pin) for size, pin in known if size >= LARGE_BYTES), key=lambda pair: -pair[0])
    small = sum(size for size, pin in known if size < LARGE_BYTES)
    unknown = len(downloads) - len(known)
    lines = [f"To download: {len(downloads)} packages, {format_size(sum(size for size, _ in known))}"]
    if unknown:
        lines[0] += f", and {unknown} of unknown size"
    lines += [f"  {pin.name:<28} {format_size(size):>8}" for size, pin in large]
    if len(known) > len(large):
        lines.append(f"  {f'{len(known) - len(large)} others':<28} {format_size(small):>8}")
    cuda = sum(size for size, pin in known if pin.is_cuda)
    if cuda:
        hint = "" if is_cpu_requested else ": `make setup torch=cpu` omits them"
        lines.append(f"{format_size(cuda)} of it are CUDA libraries, which require an NVIDIA GPU{hint}")
    return "\n".join(lines)


def format_size(size_bytes: int) -> str:
    """Formats a size, such as `1.2 GB` or `345 MB`."""
    if size_bytes >= 1000**3:
        return f"{size_bytes / 1000**3:.1f} GB"
    return f"{max(1, round(size_bytes / 1000**2))} MB" if size_bytes else "0 MB"
