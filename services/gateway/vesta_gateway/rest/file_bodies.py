"""Request bodies that are files instead of a message: one file as it is, or several as `multipart/form-data`.

They are accepted by methods whose request has a list of files (`files_field`), and need no base64. The other fields of the request are
query parameters, or form fields of a multipart body.
"""

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl

import multipart
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from vesta_common.errors import InvalidArgument
from vesta_common.messages import copy_of
from vesta_common.rpc.outline import PLACEHOLDER, serialize_field

from vesta_gateway.contracts.methods import files_field
from vesta_gateway.rest.routes import Match
from vesta_gateway.rest.transcoding import read_fields

MULTIPART = "multipart/form-data"
OCTETS = "application/octet-stream"
PARTS_MAX = 1000
FIELD_BYTES_MAX = 4096


class FileBody(NamedTuple):
    """The content of a body: the files, and the names and values of the form fields."""

    files: Sequence[bytes]
    fields: Sequence[tuple[str, str]]


def is_file_type(media_type: str) -> bool:
    """Whether a body of this media type is one file or several."""
    return media_type in (MULTIPART, OCTETS) or media_type.startswith("image/")


def read_files(match: Match, query: str, body: bytes, content_type: str) -> tuple[Message, bytes]:
    """Converts an HTTP request with files to a request message, and to its serialized form, to which each file is copied once.

    Args:
        query: the query string without `?`, percent-encoded.
        content_type: the header, with its parameters.

    Returns:
        The message, with `PLACEHOLDER` instead of each file, and the serialized message with the files.

    Raises:
        InvalidArgument: BODY_MALFORMED, or as `vesta_gateway.rest.transcoding.read_request`.
    """
    field = files_field(match.rpc)
    assert field is not None, f"{match.rpc.full_name} accepts no files"
    media_type, options = multipart.parse_options_header(content_type)
    found = _read_multipart(body, options.get("boundary", "")) if media_type == MULTIPART else FileBody([body], [])
    pairs = [*parse_qsl(query, keep_blank_values=True), *found.fields]
    request = read_fields(match, pairs, {*match.captured, field.name})
    serialized = _with_files(request, match.rpc.descriptor.input_type, field, found.files)
    for _ in found.files:
        getattr(request, field.name).add().data = PLACEHOLDER
    return request, serialized


def _with_files(request: Message, kind: Descriptor, field: FieldDescriptor, files: Sequence[bytes]) -> bytes:
    """Serializes a request and its files, in the order of the fields, like the protobuf runtime."""
    before, after = copy_of(request), copy_of(request)
    for other, _ in request.ListFields():
        (after if other.number < field.number else before).ClearField(other.name)
    path = (field.name, "data")
    parts = (part for content in files for part in serialize_field(kind, path, content))
    return b"".join((before.SerializeToString(), *parts, after.SerializeToString()))


def _read_multipart(body: bytes, boundary: str) -> FileBody:
    """A part with a file name or a media type of its own is a file; the others are form fields."""
    if not boundary:
        raise _malformed("the header Content-Type has no boundary")
    files: list[bytes] = []
    fields: list[tuple[str, str]] = []
    content: list[bytes] = []
    try:
        with multipart.PushMultipartParser(boundary, max_segment_count=PARTS_MAX, strict=True) as parser:
            for event in parser.parse(body):
                if isinstance(event, multipart.MultipartSegment):
                    part, content = event, []
                elif event is not None:
                    content.append(event)
                elif part.filename is not None or part.content_type is not None:
                    files.append(b"".join(content))
                else:
                    fields.append((part.name, _text(part.name, b"".join(content))))
    except multipart.MultipartError as error:
        raise _malformed(str(error)) from error
    return FileBody(files, fields)


def _text(name: str, content: bytes) -> str:
    try:
        if len(content) <= FIELD_BYTES_MAX:
            return content.decode()
    except UnicodeDecodeError:
        pass
    raise _malformed(
        f"the form field {name[:100]!r} is not a text of up to {FIELD_BYTES_MAX} bytes; send files with a file name"
    )


def _malformed(why: str) -> InvalidArgument:
    return InvalidArgument(f"the body is not valid {MULTIPART}: {why}", reason="BODY_MALFORMED")
