"""S3 object storage: content-addressed objects, verified against their hash when they are read."""

import hashlib
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import boto3
from botocore.client import Config
from botocore.exceptions import BotoCoreError, ClientError

from vesta_common.errors import DataLoss, InvalidArgument, NotFound
from vesta_common.settings import EngineSettings
from vesta_common.storage.multipart import PART_BYTES, in_parts, upload_parts
from vesta_common.storage.object_errors import says_bucket_exists, says_object_exists, to_vesta_error
from vesta_common.storage.storage_guard import StorageGuard

CONNECT_TIMEOUT = timedelta(seconds=5)
READ_TIMEOUT = timedelta(seconds=60)
ATTEMPTS_MAX = 5
CONNECTIONS_MAX = 32
OBJECT_BYTES_MAX = 512 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class ObjectRef:
    """A stored object.

    Attributes:
        key: without the store's prefix.
        sha256: 64 lower-case hexadecimal digits.
    """

    key: str
    sha256: str
    size_bytes: int


def open_client(settings: EngineSettings, attempts_max: int = ATTEMPTS_MAX) -> Any:
    """Creates a boto3 client from the settings. Sends no request."""
    return boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint_url or None,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key or None,
        aws_secret_access_key=settings.s3_secret_key.get_secret_value() or None,
        verify=settings.s3_ca_file or None,
        config=Config(
            connect_timeout=CONNECT_TIMEOUT.total_seconds(),
            read_timeout=READ_TIMEOUT.total_seconds(),
            retries={"total_max_attempts": attempts_max, "mode": "standard"},
            max_pool_connections=CONNECTIONS_MAX,
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


class ObjectStore:
    """A bucket of the platform. Thread-safe.

    In addition to the documented errors, all methods raise Unavailable if the store does not respond after five attempts, and
    FailedPrecondition if it rejects the credentials. Methods that write raise ResourceExhausted (STORAGE_FULL) if the store is full.

    Args:
        client: a boto3 S3 client.
        prefix: prefix of every key in the bucket. Keys in the methods' parameters and results do not contain it.
        guard: checked before each write.
    """

    def __init__(self, client: Any, bucket: str, prefix: str = "", guard: StorageGuard | None = None) -> None:
        self._client = client
        self._guard = guard or StorageGuard(None)
        self._bucket = bucket
        self._prefix = prefix

    @classmethod
    def of(
        cls, settings: EngineSettings, guard: StorageGuard | None = None, *, attempts_max: int = ATTEMPTS_MAX
    ) -> "ObjectStore":
        """Creates the store from the settings, with the guard of its disk. Sends no request."""
        client = open_client(settings, attempts_max)
        return cls(client, settings.s3_bucket, settings.s3_prefix, guard or StorageGuard(settings.storage_folder))

    def ensure_bucket(self) -> bool:
        """Creates the bucket if it does not exist. Safe to call concurrently. Returns True if the bucket was created."""
        try:
            with self._translated(""):
                self._client.head_bucket(Bucket=self._bucket)
        except NotFound:
            try:
                self._client.create_bucket(Bucket=self._bucket)
            except ClientError as error:
                if not says_bucket_exists(error):
                    self._fail(error, "")
                return False
            return True
        return False

    def check(self, key: str) -> None:
        """Checks that the bucket exists and that the object `key` can be written and read. Overwrites that object.

        Raises:
            NotFound: the bucket does not exist.
        """
        try:
            with self._translated(""):
                self._client.head_bucket(Bucket=self._bucket)
        except NotFound as error:
            raise NotFound(f"the bucket {self._bucket} does not exist; `vesta-admin setup` creates it") from error
        self.put_named(key, b"check")
        self.get(key)

    def put(self, folder: str, content: bytes | Path) -> ObjectRef:
        """Stores content under `folder/<sha256>`. An existing object is not overwritten, even by a concurrent write.

        Args:
            content: bytes, or a file, which is streamed and may be larger than memory.
        """
        self._guard.check()
        digest, size_bytes = _measure(content)
        ref = ObjectRef(f"{folder}/{digest}", digest, size_bytes)
        if isinstance(content, Path) and size_bytes > PART_BYTES:
            return ref if self.exists(ref.key) else self.put_named(ref.key, content)
        body = content.read_bytes() if isinstance(content, Path) else content
        try:
            self._client.put_object(**self._where(ref.key), Body=body, IfNoneMatch="*")
        except ClientError as error:
            if not says_object_exists(error):
                self._fail(error, ref.key)
        except BotoCoreError as error:
            self._fail(error, ref.key)
        return ref

    def put_named(self, key: str, content: bytes | Path) -> ObjectRef:
        """Stores content under the given key. Overwrites an existing object."""
        if isinstance(content, Path):
            with content.open("rb") as file:
                pieces = iter(lambda: file.read(CHUNK_BYTES), b"")
                return self.put_stream(key, pieces, content.stat().st_size)
        self._guard.check()
        with self._translated(key):
            self._client.put_object(**self._where(key), Body=content)
        return ObjectRef(key, hashlib.sha256(content).hexdigest(), len(content))

    def put_stream(self, key: str, chunks: Iterable[bytes], size_bytes_max: int) -> ObjectRef:
        """Stores a stream under the given key. A failed upload leaves no object.

        Raises:
            InvalidArgument: OBJECT_TOO_LARGE, the stream exceeds `size_bytes_max`.
        """
        self._guard.check()
        digest, size_bytes = hashlib.sha256(), 0

        def checked() -> Iterator[bytes]:
            nonlocal size_bytes
            for chunk in chunks:
                size_bytes += len(chunk)
                if size_bytes > size_bytes_max:
                    raise InvalidArgument(
                        f"{key} has more than {size_bytes_max} bytes; send a smaller file", reason="OBJECT_TOO_LARGE"
                    )
                digest.update(chunk)
                yield chunk

        with self._translated(key):
            upload_parts(self._client, self._where(key), in_parts(checked()))
        return ObjectRef(key, digest.hexdigest(), size_bytes)

    def get(self, key: str, sha256: str = "", size_bytes_max: int = OBJECT_BYTES_MAX, *, checked: bool = True) -> bytes:
        """Returns the content of an object.

        Args:
            sha256: the expected hash; if empty, the hash at the end of the key, if the key has one.
            checked: False if the hash in the key belongs to another object, as for thumbnails, whose keys contain the hash of their image.

        Raises:
            NotFound: the object does not exist.
            InvalidArgument: OBJECT_TOO_LARGE, the object exceeds `size_bytes_max`.
            DataLoss: OBJECT_CORRUPT, the content does not match the hash.
        """
        with self._translated(key):
            response = self._client.get_object(**self._where(key))
            with closing(response["Body"]) as body:
                if response["ContentLength"] > size_bytes_max:
                    raise InvalidArgument(
                        f"{key} has {response['ContentLength']} bytes, the maximum is {size_bytes_max}",
                        reason="OBJECT_TOO_LARGE",
                        metadata={"key": key},
                    )
                content = bytes(body.read())
        if checked:
            _check(key, hashlib.sha256(content).hexdigest(), sha256 or hash_in(key))
        return content

    def get_range(self, key: str, offset_bytes: int, size_bytes: int) -> bytes:
        """Returns a part of an object. Not verified against a hash.

        Raises:
            NotFound: the object does not exist.
        """
        with self._translated(key):
            selected = f"bytes={offset_bytes}-{offset_bytes + size_bytes - 1}"
            with closing(self._client.get_object(**self._where(key), Range=selected)["Body"]) as body:
                return bytes(body.read())

    def stream(self, key: str, sha256: str = "") -> Iterator[bytes]:
        """Yields the content of an object in chunks.

        Raises:
            NotFound: the object does not exist.
            DataLoss: OBJECT_CORRUPT, after the last chunk: the content does not match the hash, and the caller must discard all chunks.
        """
        digest = hashlib.sha256()
        with self._translated(key):
            response = self._client.get_object(**self._where(key))
            with closing(response["Body"]) as body:
                for chunk in body.iter_chunks(CHUNK_BYTES):
                    digest.update(chunk)
                    yield chunk
        _check(key, digest.hexdigest(), sha256 or hash_in(key))

    def download(self, key: str, target: Path, sha256: str = "") -> None:
        """Downloads an object to a file, which is created only when the content is complete and verified. Raises as `stream`."""
        unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex}.unfinished")
        try:
            with unfinished.open("wb") as file:
                for chunk in self.stream(key, sha256):
                    file.write(chunk)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)

    def exists(self, key: str) -> bool:
        """Returns True if the object exists."""
        return self.find_size_bytes(key) is not None

    def find_size_bytes(self, key: str) -> int | None:
        """Returns the size of an object; None if it does not exist."""
        try:
            with self._translated(key):
                return int(self._client.head_object(**self._where(key))["ContentLength"])
        except NotFound:
            return None

    def list_keys(self, prefix: str, before: datetime | None = None) -> Iterator[str]:
        """Yields the keys with the given prefix in order; only those of objects last modified before a time, if one is given."""
        with self._translated(prefix):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for entry in page.get("Contents", ()):
                    if before is None or entry["LastModified"] < before:
                        yield str(entry["Key"]).removeprefix(self._prefix)

    def delete(self, key: str) -> None:
        """Deletes an object. No error if it does not exist."""
        with self._translated(key):
            self._client.delete_object(**self._where(key))

    def close(self) -> None:
        """Closes the client's connections."""
        self._client.close()

    def _where(self, key: str) -> dict[str, str]:
        if not key or key.endswith("/"):  # some stores create such a key without its content
            raise InvalidArgument(f"{key!r} is not an object key; it must end with a name", reason="OBJECT_KEY_INVALID")
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        """Converts errors of the client to VestaErrors."""
        try:
            yield
        except (ClientError, BotoCoreError) as error:
            self._fail(error, key)

    def _fail(self, error: Exception, key: str) -> NoReturn:
        raise to_vesta_error(error, key, self._bucket, self._guard.find_space) from error


def hash_in(key: str) -> str:
    """Returns the SHA-256 in the last part of a key, without suffix; empty if there is none."""
    name = key.rpartition("/")[2].partition(".")[0]
    return name if len(name) == 64 and set(name) <= set("0123456789abcdef") else ""


def _measure(content: bytes | Path) -> tuple[str, int]:
    """Returns SHA-256 and size."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest(), len(content)
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


def _check(key: str, actual: str, expected: str) -> None:
    if expected and actual != expected:
        raise DataLoss(
            f"the content of {key} does not match its hash; restore it from a backup or ingest it again",
            reason="OBJECT_CORRUPT",
            metadata={"key": key, "sha256": expected},
        )
