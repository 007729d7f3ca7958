"""Uploads of streams to S3: one put, or a multipart upload."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

PART_BYTES = 8 * 1024 * 1024


def in_parts(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Regroups chunks into parts of 8 MiB; the last one may be smaller. Yields one empty part if there is no content."""
    buffer, any_part = bytearray(), False
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= PART_BYTES:
            any_part = True
            yield bytes(buffer[:PART_BYTES])
            del buffer[:PART_BYTES]
    if buffer or not any_part:
        yield bytes(buffer)


def upload_parts(client: Any, where: dict[str, str], parts: Iterator[bytes]) -> None:
    """Uploads a single part with one put, otherwise with a multipart upload, which is aborted on failure."""
    first = next(parts)
    second = next(parts, None)
    if second is None:
        client.put_object(**where, Body=first)
        return
    upload = {**where, "UploadId": client.create_multipart_upload(**where)["UploadId"]}
    try:
        sent = []
        for number, part in enumerate(chain((first, second), parts), 1):
            response = client.upload_part(**upload, PartNumber=number, Body=part)
            sent.append({"PartNumber": number, "ETag": response["ETag"]})
        client.complete_multipart_upload(**upload, MultipartUpload={"Parts": sent})
    except BaseException:
        client.abort_multipart_upload(**upload)
        raise
