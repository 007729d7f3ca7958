"""Lists and reads the files of a Source through fsspec. Each file has a fingerprint, which changes when the file changes."""

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

from vesta_connection.sources.allow_list import WEB, AllowList, Resolve, resolve_host
from vesta_connection.sources.pinned_addresses import PinnedAddresses
from vesta_connection.sources.s3 import S3FileSystem

NAME_CHARACTERS_MAX = 1024  # the limit of `Provenance.file_name`
NAME_BYTES_MAX = 2048  # a PostgreSQL index entry can have at most about 2,700 bytes
NAME_SHOWN_CHARACTERS = 200
_LINK = "symbolic links are not followed; copy the file into the folder"
# Files that are certainly not images are not read. For all others, the content decides.
_IGNORED_SUFFIXES = (".txt", ".csv", ".json", ".xml", ".yaml", ".yml", ".md", ".html", ".zip", ".ds_store", ".db")


@dataclass(frozen=True)
class SourceFile:
    """A file at a source.

    Attributes:
        file_name: the path relative to the source's root.
        fingerprint: the store's etag, otherwise size and modification time.
        path: the path in the file system.
        size_bytes: None if unknown.
        changed_time: when the file was last modified; None if unknown.
        unreadable: why the file cannot be read, if the listing shows it; otherwise empty. This concerns links, which may point
            anywhere, and folders that cannot be listed.
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
        """Lists the files, in the store's order."""
        ...

    def read(self, file: SourceFile) -> bytes:
        """Returns a file's bytes, at most one more than `IMAGE_BYTES_MAX`, so that too large a file is detected."""
        ...


class FsspecTree:
    """A source that fsspec reads.

    Args:
        file_system: an fsspec file system.
        root: the path of the source's root in the file system.
    """

    def __init__(self, file_system: Any, root: str) -> None:
        self._file_system = file_system
        self._root = root.rstrip("/")

    def files(self) -> Iterator[SourceFile]:
        """Lists the files folder by folder, ordered by name within a folder. A folder that cannot be listed becomes an unreadable file.

        Raises:
            FailedPrecondition: the root cannot be listed; contains the reason.
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
                    continue  # the folder itself, or a link of a web page to another place
                if entry.get("type") == "directory" and not entry.get("islink"):
                    folders.append(path.rstrip("/"))
                elif is_wanted(entry):
                    yield self._file(path, _LINK if entry.get("islink") else "", entry)

    def read(self, file: SourceFile) -> bytes:
        """Returns a file's bytes.

        Raises:
            PermissionError: the listing showed that the file cannot be read.
            InvalidArgument: a web server redirects to a host that is not allowed.
        """
        if file.unreadable:
            raise PermissionError(file.unreadable)
        try:
            with self._file_system.open(file.path, "rb") as opened:
                return bytes(opened.read(IMAGE_BYTES_MAX + 1))
        except FileNotFoundError as error:  # fsspec's HTTP file system raises it for every error
            rejection = _rejection_behind(error)
            if rejection:
                raise rejection from error
            raise

    def _file(self, path: str, unreadable: str, entry: dict[str, Any] | None = None) -> SourceFile:
        name = path.removeprefix(self._root).lstrip("/")
        shown = printable(name)
        if shown != name and not unreadable:
            unreadable = f"its name is longer than {NAME_CHARACTERS_MAX} characters or not UTF-8; rename the file"
        details = entry or {"size": 0}
        return SourceFile(shown, fingerprint(details), path, details.get("size"), changed_time(details), unreadable)


class BucketTree(FsspecTree):
    """A source on S3, which lists all objects below a prefix in one operation."""

    def files(self) -> Iterator[SourceFile]:
        """Lists the files in the store's order.

        Raises:
            FailedPrecondition: the bucket cannot be listed; contains the reason.
        """
        try:
            for entry in self._file_system.objects(self._root):
                if is_wanted(entry):
                    yield self._file(str(entry["name"]), "", entry)
        except OSError as error:
            raise unreachable(self._root, error) from error


def _rejection_behind(error: BaseException) -> InvalidArgument | None:
    """Returns the InvalidArgument among the causes of an error, if any."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, InvalidArgument):
        cause = cause.__cause__ or cause.__context__
    return cause


def unreachable(root: str, error: Exception) -> FailedPrecondition:
    """Returns the error for a source whose root cannot be listed."""
    return FailedPrecondition(f"{root} cannot be listed: {error}", reason="SOURCE_UNREACHABLE", metadata={"root": root})


def is_wanted(entry: dict[str, Any]) -> bool:
    """Whether an entry may be an image: a regular file or a link. Excludes pipes, which never end."""
    is_file = bool(entry.get("islink")) or entry.get("type", "file") == "file"
    return is_file and not str(entry["name"]).lower().endswith(_IGNORED_SUFFIXES)


def storable(text: str) -> str:
    """Returns the text with characters escaped that PostgreSQL or protobuf cannot store."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def printable(name: str) -> str:
    """Returns the name in a form that can be stored: escapes bytes that are not UTF-8, and shortens a long name in the middle."""
    shown = storable(name)
    if len(shown) <= NAME_CHARACTERS_MAX and len(shown.encode()) <= NAME_BYTES_MAX:
        return shown
    return f"{shown[:NAME_SHOWN_CHARACTERS]}…{shown[-NAME_SHOWN_CHARACTERS:]}"


def changed_time(entry: dict[str, Any]) -> datetime | None:
    """Returns the modification time of a file; None if it is unknown or invalid."""
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
    """Returns a string that changes when the file changes: the etag if there is one, otherwise size and modification time."""
    etag = entry.get("ETag") or entry.get("etag")
    changed = entry.get("mtime") or entry.get("LastModified") or entry.get("last_modified") or ""
    # `created` is the ctime of a local file: it changes even if a copy preserves an older modification time.
    return str(etag).strip('"') if etag else f"{entry.get('size')}:{changed}:{entry.get('created', '')}"


def open_tree(source: Source, secret: str, allow_list: AllowList, resolve: Resolve = resolve_host) -> FileTree:
    """Opens a Source after checking it against the allow-list again. Connections use only the addresses that were checked.

    Raises:
        InvalidArgument: the allow-list does not permit the Source.
        FailedPrecondition: an upload source has no files to list.
    """
    match source.WhichOneof("kind"):
        case "folder":
            root = allow_list.check_folder(source.folder.path)
            return FsspecTree(LocalFileSystem(), str(root))
        case "bucket":
            bucket = source.bucket
            pins = allow_list.check_url(bucket.url, bucket.endpoint_url, resolve)
            try:
                return _open_bucket(bucket, secret, pins)
            except (ValueError, ImportError, OSError, BotoCoreError) as error:
                raise unreachable(bucket.url, error) from error
        case _:
            raise FailedPrecondition(
                "a source of kind upload cannot be synced; upload files instead", reason="SOURCE_NOT_SYNCABLE"
            )


def _open_bucket(bucket: BucketSource, secret: str, pins: PinnedAddresses) -> FileTree:
    protocol, _, path = bucket.url.partition("://")
    if protocol == "s3":
        return BucketTree(S3FileSystem(bucket.endpoint_url, bucket.access_key_id, secret, pins), path)
    if protocol in WEB:
        from vesta_connection.sources.web import open_web

        return FsspecTree(open_web(pins), bucket.url)
    file_system, root = fsspec.core.url_to_fs(bucket.url, use_listings_cache=False)
    return FsspecTree(file_system, root)


def check_protocols(protocols: Sequence[str]) -> None:
    """Checks that each allowed protocol can be opened by this process and does not read its local files.

    Raises:
        InvalidArgument: contains the protocol.
    """
    for protocol in protocols:
        why = "" if protocol == "s3" else _unusable(protocol)
        if why:
            raise InvalidArgument(
                f"the protocol {protocol}:// cannot be allowed: {why}",
                reason="SOURCE_PROTOCOL_UNUSABLE",
                metadata={"protocol": protocol},
            )


def _unusable(protocol: str) -> str:
    try:
        is_local = issubclass(fsspec.get_filesystem_class(protocol), LocalFileSystem)
    except (ValueError, ImportError) as error:
        return str(error)
    return "only Sources of kind folder read files of this machine" if is_local else ""
