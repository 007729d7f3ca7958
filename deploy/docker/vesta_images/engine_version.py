"""The version of the bundled engines' images. It changes with their contents only, so that an upgrade of Vesta does not restart them."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from vesta_images.catalogue import DOCKERFILE, REQUIREMENTS, ROOT

ENGINES = ("engines", "kafka")
FILE = ROOT / "deploy" / "docker" / "engines.version"  # the version, and the SHA-256 of what it consists of
_STAGES = re.compile(r"(base|builder|engines.*|kafka.*)")
_FOLDERS = ("deploy/docker/engines", "deploy/docker/kafka-files", "deploy/engines", "deploy/kafka")


def read() -> str:
    """Returns the version, which is the tag of the images: a number."""
    return _recorded()[0]


def is_current() -> bool:
    """Whether the version is that of the present contents."""
    return _recorded()[1] == _digest()


def write() -> None:
    """Gives the present contents the next version, unless they have one."""
    if not is_current():
        FILE.write_text(f"{int(read()) + 1} {_digest()}\n")


def _recorded() -> tuple[str, str]:
    version, digest = FILE.read_text().split()
    return version, digest


def _digest() -> str:
    """Returns the SHA-256 of the stages of these images, and of the files in them."""
    parts = [stage.encode() for stage in _stages()]
    for path in _files():
        parts += [str(path.relative_to(ROOT)).encode(), path.read_bytes()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _stages() -> Iterator[str]:
    for stage in re.split(r"^(?=FROM )", DOCKERFILE.read_text(), flags=re.MULTILINE):
        named = re.match(r"FROM \S+ AS (\S+)", stage)
        if named and _STAGES.fullmatch(named[1]):
            yield re.sub(r"^#.*\n", "", stage, flags=re.MULTILINE).strip()


def _files() -> list[Path]:
    pinned = [REQUIREMENTS / f"{name}.txt" for name in ENGINES]
    copied = [path for folder in _FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    return sorted(path for path in [*pinned, *copied] if "__pycache__" not in path.parts)
