"""What lies at a Source: its files with a fingerprint each, which changes when the file does. Any place fsspec can read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import fsspec
from botocore.exceptions import BotoCoreError
from fsspec.implementations.local import LocalFileSystem
from vesta_common.errors import FailedPrecondition, InvalidArgument
from vesta_common.media.image_formats import IMAGE_BYTES_MAX
from vesta_contracts.connection.v1 import BucketSource, Source

from vesta_connection.sources.allow_list import WEB, Places, Resolve, resolve_host
from vesta_connection.sources.pinned_addresses import Pins
from vesta_connection.sources.s3 import S3FileSystem

NAME_CHARACTERS_MAX = 1024  # as `Provenance.file_name` has it
NAME_BYTES_MAX = 2048  # an index of PostgreSQL holds no more than 2,700
NAME_SHOWN_CHARACTERS = 200
_LINK = "links are not followed; put the file itself here"
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
        changed_time: when it was last changed there; None where the store does not say.
        unreadable: why it cannot be read, where the listing shows that already; empty for all others. A link, which may lead
            anywhere, is one, a folder that cannot be listed another.
    """

    file_name: str
    fingerprint: str
    path: str
    size_bytes: int | None
    changed_time: datetime | None = None
    unreadable: str = ""


class FileTree(Protocol):
    """An open source."""

    def files(self) -> Iterator[SourceFile]:
        """Its files, in the store's order."""
        ...

    def read(self, file: SourceFile) -> bytes:
        """A file's bytes, at most one more than `IMAGE_BYTES_MAX`, so that too large a file shows."""
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
        """Its files, folder by folder, each folder in order of name; a folder that cannot be listed is told as a file that cannot be read.

        Raises:
            FailedPrecondition: the place itself cannot be read; says why.
        """
        folders = [self._root]
        while folders:
            folder = folders.pop()
            try:
                entries = sorted(self._file_system.ls(folder, detail=True), key=lambda entry: str(entry["name"]))
            except OSError as error:
                if folder == self._root:
                    raise unreachable(self._root, error) from error
                yield self._file(folder, f"the folder cannot be listed: {error.strerror or error}")
                continue
            for entry in entries:
                path = str(entry["name"])
                if path.rstrip("/") == folder or not path.startswith(f"{self._root}/"):
                    continue  # itself, or a page's link to elsewhere
                if entry.get("type") == "directory" and not entry.get("islink"):
                    folders.append(path.rstrip("/"))
                elif is_wanted(entry):
                    yield self._file(path, _LINK if entry.get("islink") else "", entry)

    def read(self, file: SourceFile) -> bytes:
        """A file's bytes.

        Raises:
            PermissionError: its listing showed already that it cannot be read.
            InvalidArgument: a web server leads on to where nobody may go.
        """
        if file.unreadable:
            raise PermissionError(file.unreadable)
        try:
            with self._file_system.open(file.path, "rb") as opened:
                return bytes(opened.read(IMAGE_BYTES_MAX + 1))
        except FileNotFoundError as error:  # as fsspec's HTTP puts whatever went wrong
            refusal = _refusal_behind(error)
            if refusal:
                raise refusal from error
            raise

    def _file(self, path: str, unreadable: str, entry: dict[str, Any] | None = None) -> SourceFile:
        name = path.removeprefix(self._root).lstrip("/")
        shown = printable(name)
        if shown != name and not unreadable:
            unreadable = f"its name is longer than {NAME_CHARACTERS_MAX} characters or no UTF-8; rename it"
        said = entry or {"size": 0}
        return SourceFile(shown, fingerprint(said), path, said.get("size"), changed_time(said), unreadable)


class BucketTree(FsspecTree):
    """A source on S3, which lists all that lies below it in one go, folders or not."""

    def files(self) -> Iterator[SourceFile]:
        """Its files in the store's order.

        Raises:
            FailedPrecondition: the bucket cannot be read; says why.
        """
        try:
            for entry in self._file_system.objects(self._root):
                if is_wanted(entry):
                    yield self._file(str(entry["name"]), "", entry)
        except OSError as error:
            raise unreachable(self._root, error) from error


def _refusal_behind(error: BaseException) -> InvalidArgument | None:
    """Our own refusal among the causes of an error."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, InvalidArgument):
        cause = cause.__cause__ or cause.__context__
    return cause


def unreachable(root: str, error: Exception) -> FailedPrecondition:
    """The error of a place that cannot be listed at all."""
    return FailedPrecondition(f"{root} cannot be listed: {error}", reason="SOURCE_UNREACHABLE", metadata={"root": root})


def is_wanted(entry: dict[str, Any]) -> bool:
    """Whether an entry may be an image: a file or a link, and no pipe, which would never end."""
    is_file = bool(entry.get("islink")) or entry.get("type", "file") == "file"
    return is_file and not str(entry["name"]).lower().endswith(_IGNORED_SUFFIXES)


def keepable(text: str) -> str:
    """The text itself where PostgreSQL and protobuf can hold it, else with what they cannot hold escaped."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def printable(name: str) -> str:
    """The name itself where it can be kept, else one that shows it: bytes that are no UTF-8 escaped, the middle of a long one left out."""
    shown = keepable(name)
    if len(shown) <= NAME_CHARACTERS_MAX and len(shown.encode()) <= NAME_BYTES_MAX:
        return shown
    return f"{shown[:NAME_SHOWN_CHARACTERS]}…{shown[-NAME_SHOWN_CHARACTERS:]}"


def changed_time(entry: dict[str, Any]) -> datetime | None:
    """When a store says that a file was last changed; None where it does not, or means no time."""
    changed = entry.get("mtime") or entry.get("LastModified") or entry.get("last_modified") or entry.get("modified")
    try:
        if isinstance(changed, int | float):
            return datetime.fromtimestamp(changed, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    if isinstance(changed, datetime):
        return changed.astimezone(UTC) if changed.tzinfo else changed.replace(tzinfo=UTC)
    return None


def fingerprint(entry: dict[str, Any]) -> str:
    """What tells one state of a file from the next: the etag where there is one, else size and time of change."""
    etag = entry.get("ETag") or entry.get("etag")
    changed = entry.get("mtime") or entry.get("LastModified") or entry.get("last_modified") or ""
    # `created` is a local file's ctime: it changes even where a copy keeps the older file's time.
    return str(etag).strip('"') if etag else f"{entry.get('size')}:{changed}:{entry.get('created', '')}"


def open_tree(source: Source, secret: str, places: Places, resolve: Resolve = resolve_host) -> FileTree:
    """Opens the place that a Source names, once more checked against what the operator allows; connections go where it was then.

    Raises:
        InvalidArgument: it is not allowed.
        FailedPrecondition: an upload source has nothing to list.
    """
    match source.WhichOneof("kind"):
        case "folder":
            root = places.check_folder(source.folder.path)
            return FsspecTree(LocalFileSystem(), str(root))
        case "bucket":
            bucket = source.bucket
            pins = places.check_url(bucket.url, bucket.endpoint_url, resolve)
            try:
                return _open_bucket(bucket, secret, pins)
            except (ValueError, ImportError, OSError, BotoCoreError) as error:
                raise unreachable(bucket.url, error) from error
        case _:
            raise FailedPrecondition(
                "an upload source has nothing to sync; upload its files", reason="SOURCE_NOT_SYNCABLE"
            )


def _open_bucket(bucket: BucketSource, secret: str, pins: Pins) -> FileTree:
    protocol, _, path = bucket.url.partition("://")
    if protocol == "s3":
        return BucketTree(S3FileSystem(bucket.endpoint_url, bucket.access_key_id, secret, pins), path)
    if protocol in WEB:
        from vesta_connection.sources.web import open_web

        return FsspecTree(open_web(pins), bucket.url)
    file_system, root = fsspec.core.url_to_fs(bucket.url, use_listings_cache=False)
    return FsspecTree(file_system, root)


def check_protocols(protocols: Sequence[str]) -> None:
    """Refuses what the operator allows but this process cannot open, or must not: its own files are no bucket.

    Raises:
        InvalidArgument: names the protocol.
    """
    for protocol in protocols:
        why = "" if protocol == "s3" else _unusable(protocol)
        if why:
            raise InvalidArgument(
                f"{protocol}:// cannot be allowed: {why}",
                reason="SOURCE_PROTOCOL_UNUSABLE",
                metadata={"protocol": protocol},
            )


def _unusable(protocol: str) -> str:
    try:
        is_local = issubclass(fsspec.get_filesystem_class(protocol), LocalFileSystem)
    except (ValueError, ImportError) as error:
        return str(error)
    return "the files of this machine are read by folder Sources alone" if is_local else ""
