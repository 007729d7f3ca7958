"""A minimal read-only S3 file system for fsspec, based on boto3 (the published ones pin an old botocore)."""

import io
from collections.abc import Iterator
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.client import Config
from botocore.exceptions import BotoCoreError, ClientError
from fsspec import AbstractFileSystem

from vesta_connection.sources.pinned_addresses import PinnedAddresses
from vesta_connection.sources.pinned_s3 import pin_client

CONNECT_TIMEOUT_SECONDS = 5
READ_TIMEOUT_SECONDS = 60
ATTEMPTS_MAX = 4


class S3FileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Lists and reads objects; paths are `bucket/key`.

    Args:
        endpoint_url: the endpoint; empty for AWS.
        access_key_id: empty for anonymous access; the credentials of this process are never used.
        secret_access_key: the secret of the access key.
        pins: the pinned addresses of the endpoint; not used for AWS.
    """

    protocol = "s3"
    cachable = False

    def __init__(
        self,
        endpoint_url: str = "",
        access_key_id: str = "",
        secret_access_key: str = "",
        pins: PinnedAddresses | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._client = boto3.client(
            "s3",
            endpoint_url=endpoint_url or None,
            region_name="us-east-1",
            aws_access_key_id=access_key_id or None,
            aws_secret_access_key=secret_access_key or None,
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
                read_timeout=READ_TIMEOUT_SECONDS,
                retries={"max_attempts": ATTEMPTS_MAX, "mode": "standard"},
                s3={"addressing_style": "path"} if endpoint_url else {},
                signature_version="s3v4" if access_key_id else UNSIGNED,
            ),
        )
        if endpoint_url and pins:
            pin_client(self._client, pins)

    def objects(self, path: str) -> Iterator[dict[str, Any]]:
        """Returns all objects below `path` as fsspec file entries, fetched in pages of 1,000.

        Raises:
            OSError: the bucket cannot be listed.
        """
        bucket, _, folder = path.strip("/").partition("/")
        prefix = f"{folder}/" if folder else ""  # the slash excludes folders whose name only begins with this one
        try:
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for entry in page.get("Contents", ()):
                    if not entry["Key"].endswith("/"):
                        yield {
                            "name": f"{bucket}/{entry['Key']}",
                            "size": entry["Size"],
                            "type": "file",
                            "ETag": entry["ETag"],
                            "LastModified": entry["LastModified"],
                        }
        except (BotoCoreError, ClientError) as error:
            raise OSError(str(error)) from error

    def _open(self, path: str, mode: str = "rb", **options: Any) -> io.BytesIO:  # noqa: ARG002 - fsspec's signature
        bucket, _, key = path.strip("/").partition("/")
        return _Object(self._client, bucket, key)


class _Object(io.BytesIO):
    """An object that is fetched when it is read, up to the requested size."""

    def __init__(self, client: Any, bucket: str, key: str) -> None:
        super().__init__()
        self._client, self._bucket, self._key = client, bucket, key

    def read(self, size: int | None = -1) -> bytes:
        """Returns the object's first `size` bytes, or all.

        Raises:
            FileNotFoundError: the object has been deleted.
            OSError: the object cannot be read.
        """
        try:
            body = self._client.get_object(Bucket=self._bucket, Key=self._key)["Body"]
            return bytes(body.read(size if size is not None and size >= 0 else None))
        except self._client.exceptions.NoSuchKey as error:
            raise FileNotFoundError(f"{self._key} does not exist anymore") from error
        except (BotoCoreError, ClientError) as error:
            raise OSError(str(error)) from error
