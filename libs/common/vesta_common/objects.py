"""Objects on S3: stored once under the hash of their content, verified when they are read."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import boto3
from botocore.client import Config
from botocore.exceptions import BotoCoreError, ClientError

from vesta_common.errors import DataLoss, InvalidArgument, NotFound, Unavailable
from vesta_common.settings import ServiceSettings

T = TypeVar("T")

CONNECT_TIMEOUT_SECONDS = 5
READ_TIMEOUT_SECONDS = 60
ATTEMPTS_MAX = 5
CONNECTIONS_MAX = 32
OBJECT_BYTES_MAX = 512 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class ObjectRef:
    """A stored object."""

    key: str
    sha256: str
    size_bytes: int


class ObjectStore:
    """A bucket of the platform. Safe to share between threads.

    Args:
        client: a boto3 S3 client.
        prefix: put before every key; keys in our own signatures never have it.
    """

    def __init__(self, client: Any, bucket: str, prefix: str = "") -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    @classmethod
    def of(cls, settings: ServiceSettings) -> "ObjectStore":
        """The store that the settings name."""
        client = boto3.client(
            "s3",
            endpoint_url=settings.s3_endpoint_url or None,
            region_name=settings.s3_region,
            aws_access_key_id=settings.s3_access_key or None,
            aws_secret_access_key=settings.s3_secret_key.get_secret_value() or None,
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
                read_timeout=READ_TIMEOUT_SECONDS,
                retries={"total_max_attempts": ATTEMPTS_MAX, "mode": "standard"},
                max_pool_connections=CONNECTIONS_MAX,
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        return cls(client, settings.s3_bucket, settings.s3_prefix)

    def put(self, folder: str, data: bytes) -> ObjectRef:
        """Stores bytes under `folder/<sha256>`; storing the same again is free of effect.

        Raises:
            Unavailable: the store does not answer.
        """
        digest = hashlib.sha256(data).hexdigest()
        return self._put(f"{folder}/{digest}", data, digest)

    def put_named(self, key: str, data: bytes) -> ObjectRef:
        """Stores bytes under a key of the caller's, replacing what is there.

        Raises:
            Unavailable: the store does not answer.
        """
        return self._put(key, data, hashlib.sha256(data).hexdigest())

    def put_stream(self, key: str, chunks: Iterator[bytes], size_bytes_max: int) -> ObjectRef:
        """Stores what comes in pieces under a key of the caller's, as a multipart upload; nothing is left of one that fails.

        Raises:
            InvalidArgument: more comes than is allowed.
            Unavailable: the store does not answer.
        """
        upload = _Upload(self._client, self._bucket, self._prefix + key)
        try:
            return _translated(key, lambda: upload.run(key, chunks, size_bytes_max))
        except BaseException:
            upload.abort()
            raise

    def get(self, key: str, sha256: str = "", size_bytes_max: int = OBJECT_BYTES_MAX) -> bytes:
        """An object's bytes.

        Args:
            sha256: what they must hash to; unchecked if empty.

        Raises:
            NotFound: there is no such object.
            InvalidArgument: it is larger than allowed.
            DataLoss: the bytes do not match their hash.
            Unavailable: the store does not answer.
        """

        def read() -> bytes:
            response = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            if response["ContentLength"] > size_bytes_max:
                raise InvalidArgument(
                    f"{key} has {response['ContentLength']} bytes; at most {size_bytes_max} are read",
                    reason="OBJECT_TOO_LARGE",
                )
            return bytes(response["Body"].read())

        data = _translated(key, read)
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            raise DataLoss(
                f"the bytes of {key} are not those that were stored", reason="OBJECT_CORRUPT", metadata={"key": key}
            )
        return data

    def stream(self, key: str) -> Iterator[bytes]:
        """An object's bytes in pieces. Raises as `get` does, but checks no hash."""
        response = _translated(key, lambda: self._client.get_object(Bucket=self._bucket, Key=self._prefix + key))
        yield from response["Body"].iter_chunks(CHUNK_BYTES)

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        try:
            _translated(key, lambda: self._client.head_object(Bucket=self._bucket, Key=self._prefix + key))
        except NotFound:
            return False
        return True

    def list_keys(self, prefix: str) -> Iterator[str]:
        """The keys that begin so, in order."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix
        )
        for page in pages:
            for found in page.get("Contents", ()):
                yield str(found["Key"]).removeprefix(self._prefix)

    def delete(self, key: str) -> None:
        """Removes an object; one that is not there is no error."""
        _translated(key, lambda: self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key))

    def _put(self, key: str, data: bytes, digest: str) -> ObjectRef:
        _translated(key, lambda: self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=data))
        return ObjectRef(key, digest, len(data))


class _Upload:
    """A multipart upload."""

    PART_BYTES = 8 * 1024 * 1024

    def __init__(self, client: Any, bucket: str, key: str) -> None:
        self._client = client
        self._where = {"Bucket": bucket, "Key": key}
        self._id = ""

    def run(self, key: str, chunks: Iterator[bytes], size_bytes_max: int) -> ObjectRef:
        self._id = self._client.create_multipart_upload(**self._where)["UploadId"]
        parts: list[dict[str, Any]] = []
        digest, size, buffer = hashlib.sha256(), 0, bytearray()
        for chunk in chunks:
            size += len(chunk)
            if size > size_bytes_max:
                raise InvalidArgument(f"more than {size_bytes_max} bytes came", reason="OBJECT_TOO_LARGE")
            digest.update(chunk)
            buffer += chunk
            if len(buffer) >= self.PART_BYTES:
                parts.append(self._send(len(parts) + 1, bytes(buffer)))
                buffer.clear()
        if buffer or not parts:
            parts.append(self._send(len(parts) + 1, bytes(buffer)))
        self._client.complete_multipart_upload(**self._where, UploadId=self._id, MultipartUpload={"Parts": parts})
        self._id = ""
        return ObjectRef(key, digest.hexdigest(), size)

    def _send(self, number: int, data: bytes) -> dict[str, Any]:
        answer = self._client.upload_part(**self._where, UploadId=self._id, PartNumber=number, Body=data)
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def abort(self) -> None:
        """Drops the parts that were sent."""
        if self._id:
            self._client.abort_multipart_upload(**self._where, UploadId=self._id)


def _translated(key: str, call: Callable[[], T]) -> T:
    """The call's answer, with the store's errors as ours."""
    try:
        return call()
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in {"NoSuchKey", "404", "NotFound"}:
            raise NotFound(f"there is no object {key}", reason="OBJECT_NOT_FOUND", metadata={"key": key}) from error
        raise Unavailable(f"the object store refused {key}: {error}", reason="OBJECT_STORE_UNAVAILABLE") from error
    except BotoCoreError as error:
        raise Unavailable(
            f"the object store does not answer for {key}: {error}", reason="OBJECT_STORE_UNAVAILABLE"
        ) from error
