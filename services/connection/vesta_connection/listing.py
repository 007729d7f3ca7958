"""What lies at a Source: its files with a fingerprint each, which changes when the file does. Any place fsspec can read."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import fsspec
from vesta_common.errors import FailedPrecondition
from vesta_contracts.connection.v1 import Source

from vesta_connection.places import Places
from vesta_connection.s3 import S3FileSystem

FILE_BYTES_MAX = 32 * 1024 * 1024
# What is certainly no image is not even read; what may be one is decided by its content.
_IGNORED_SUFFIXES = (".txt", ".csv", ".json", ".xml", ".yaml", ".yml", ".md", ".html", ".zip", ".ds_store", ".db")


@dataclass(frozen=True)
class SourceFile:
    """A file at a source.

    Attributes:
        file_name: its path below the source's root.
        fingerprint: the store's etag, or else size and time of change.
        path: how its file system calls it.
        size_bytes: None where the store does not say.
        is_link: True for a symbolic link, which is never followed: it may lead anywhere.
    """

    file_name: str
    fingerprint: str
    path: str
    size_bytes: int | None
    is_link: bool = False


class FileTree(Protocol):
    """An open source."""

    def files(self) -> Iterator[SourceFile]:
        """Its files, in the store's order."""
        ...

    def read(self, file: SourceFile) -> bytes:
        """A file's bytes, at most one more than `FILE_BYTES_MAX`, so that too large a file shows."""
        ...


class FsspecTree:
    """A source that fsspec reads.

    Args:
        file_system: an fsspec file system.
        root: the path below which the files lie, as the file system calls it.
    """

    def __init__(self, file_system: Any, root: str) -> None:
        self._file_system = file_system
        self._root = root.rstrip("/")

    def files(self) -> Iterator[SourceFile]:
        """Its files, folder by folder, each folder in order of name.

        Raises:
            FailedPrecondition: the place cannot be read; says why.
        """
        try:
            for _, _, files in self._file_system.walk(self._root, detail=True, on_error="raise"):
                for _, entry in sorted(files.items()):
                    path = str(entry["name"])
                    is_link = bool(entry.get("islink"))
                    is_file = is_link or entry.get("type", "file") == "file"  # and no pipe, which would never end
                    if is_file and not path.lower().endswith(_IGNORED_SUFFIXES):
                        name = path.removeprefix(self._root).lstrip("/")
                        yield SourceFile(name, fingerprint(entry), path, entry.get("size"), is_link)
        except OSError as error:
            raise FailedPrecondition(
                f"{self._root} cannot be listed: {error}", reason="SOURCE_UNREACHABLE", metadata={"root": self._root}
            ) from error

    def read(self, file: SourceFile) -> bytes:
        """A file's bytes.

        Raises:
            PermissionError: it is a link.
        """
        if file.is_link:
            raise PermissionError("links are not followed; put the file itself here")
        with self._file_system.open(file.path, "rb") as opened:
            return bytes(opened.read(FILE_BYTES_MAX + 1))


def fingerprint(entry: dict[str, Any]) -> str:
    """What tells one state of a file from the next: the etag where there is one, else size and time of change."""
    etag = entry.get("ETag") or entry.get("etag")
    changed = entry.get("mtime") or entry.get("LastModified") or entry.get("last_modified") or ""
    # `created` is a local file's ctime: it changes even where a copy keeps the older file's time.
    return str(etag).strip('"') if etag else f"{entry.get('size')}:{changed}:{entry.get('created', '')}"


def open_tree(source: Source, secret: str, places: Places) -> FileTree:
    """Opens the place that a Source names, once more checked against what the operator allows.

    Raises:
        InvalidArgument: it is not allowed.
        FailedPrecondition: an upload source has nothing to list.
    """
    match source.WhichOneof("kind"):
        case "folder":
            root = places.check_folder(source.folder.path)
            return FsspecTree(fsspec.filesystem("file"), str(root))
        case "bucket":
            bucket = source.bucket
            places.check_url(bucket.url, bucket.endpoint_url)
            protocol, _, path = bucket.url.partition("://")
            if protocol == "s3":
                file_system: Any = S3FileSystem(
                    endpoint_url=bucket.endpoint_url, access_key_id=bucket.access_key_id, secret_access_key=secret
                )
            else:
                file_system = fsspec.filesystem(protocol)
            return FsspecTree(file_system, path)
        case _:
            raise FailedPrecondition(
                "an upload source has nothing to sync; upload its files", reason="SOURCE_NOT_SYNCABLE"
            )
