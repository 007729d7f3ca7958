"""Outlines of requests: what they contain, which requests have none, and that files are not copied."""

import tracemalloc

import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from vesta_common.rpc.outline import FIELDS_MAX, LARGE_BYTES, PLACEHOLDER, find_outline, serialize_field
from vesta_contracts.connection.v1 import UploadItemRequest
from vesta_contracts.datasets.v1 import BatchCreateItemsRequest
from vesta_contracts.serving.v1 import PredictInput, PredictRequest

NAME = "projects/p/deployments/d"
FILE = bytes(range(256)) * (LARGE_BYTES // 256)
UNKNOWN_FIELD = b"\x92\x3f\x01x"  # number 1010


def a_request(*files: bytes, name: str = NAME, embedding: bool = True) -> PredictRequest:
    return PredictRequest(name=name, inputs=[PredictInput(data=file) for file in files], embedding=embedding)


def test_an_outline_has_a_placeholder_for_each_large_file() -> None:
    outline = find_outline(PredictRequest, a_request(FILE, b"small", FILE * 2).SerializeToString())
    assert outline is not None
    assert outline.message == a_request(PLACEHOLDER, b"small", PLACEHOLDER)
    assert [bytes(content) for content in outline.contents] == [FILE, FILE * 2]


def test_a_file_that_is_a_field_without_presence_has_an_outline_too() -> None:
    upload = UploadItemRequest(parent="projects/p/sources/s", file=HttpBody(content_type="image/jpeg", data=FILE))
    outline = find_outline(UploadItemRequest, upload.SerializeToString())
    assert outline is not None
    upload.file.data = PLACEHOLDER
    assert outline.message == upload


@given(
    st.lists(st.one_of(st.binary(max_size=50), st.integers(LARGE_BYTES - 2, LARGE_BYTES + 2).map(bytes)), max_size=5),
    st.text(max_size=200),
    st.booleans(),
)
def test_an_outline_and_its_contents_are_the_whole_message(files: list[bytes], name: str, embedding: bool) -> None:
    serialized = a_request(*files, name=name, embedding=embedding).SerializeToString()
    outline = find_outline(PredictRequest, serialized)
    large = [file for file in files if len(file) >= LARGE_BYTES]
    assert (outline is None) == (not large)
    if outline is not None:
        kept = [PLACEHOLDER if len(file) >= LARGE_BYTES else file for file in files]
        assert outline.message == a_request(*kept, name=name, embedding=embedding)
        assert [bytes(content) for content in outline.contents] == large


@given(st.binary(max_size=100), st.integers(0, 200))
def test_whatever_bytes_follow_a_file_an_outline_hides_none_of_them(more: bytes, position: int) -> None:
    """A request with an outline is forwarded as it is, so that nothing may be in it that the outline and the contents do not show."""
    honest = a_request(FILE).SerializeToString()
    serialized = honest[:position] + more + honest[position:]
    outline = find_outline(PredictRequest, serialized)
    if outline is not None:
        message = PredictRequest.FromString(serialized)
        before = message.SerializeToString()
        message.DiscardUnknownFields()
        assert message.SerializeToString() == before
        assert sum(len(content) >= LARGE_BYTES for content in outline.contents) == len(outline.contents)
        shown = outline.message.ByteSize() + sum(len(content) - len(PLACEHOLDER) for content in outline.contents)
        assert len(serialized) - shown <= 4 * (
            len(outline.contents) + 1
        )  # the lengths of large fields have more digits


FILE_AND_MORE = a_request(FILE).SerializeToString()


@pytest.mark.parametrize(
    ("kind", "serialized"),
    [
        (PredictRequest, b""),
        (PredictRequest, a_request(FILE[1:]).SerializeToString()),
        (PredictRequest, FILE_AND_MORE + UNKNOWN_FIELD),
        (PredictRequest, UNKNOWN_FIELD + FILE_AND_MORE),
        (PredictRequest, FILE_AND_MORE[:-1]),
        (PredictRequest, FILE_AND_MORE[:LARGE_BYTES]),
        (PredictRequest, FILE_AND_MORE + b"\x80" * 11),
        (PredictRequest, FILE_AND_MORE + FILE_AND_MORE),
        (PredictRequest, b"\xff" * LARGE_BYTES),
        (PredictRequest, b"\x0b" * LARGE_BYTES),
        (PredictRequest, a_request(FILE, *[b"x"] * FIELDS_MAX).SerializeToString()),
        (BatchCreateItemsRequest, BatchCreateItemsRequest(request_id="x" * LARGE_BYTES).SerializeToString()),
    ],
)
def test_a_request_without_a_file_or_with_anything_unusual_has_no_outline(
    kind: type[Message], serialized: bytes
) -> None:
    assert find_outline(kind, serialized) is None


def test_an_outline_copies_no_file() -> None:
    serialized = a_request(bytes(4_000_000)).SerializeToString()
    tracemalloc.start()
    try:
        assert find_outline(PredictRequest, serialized) is not None
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100_000


@pytest.mark.parametrize("size_bytes", [0, 1, 127, 128, 20_000, 3_000_000])
def test_a_serialized_field_reads_as_the_message(size_bytes: int) -> None:
    content = bytes(size_bytes)
    parts = serialize_field(PredictRequest().DESCRIPTOR, ("inputs", "data"), content)
    assert PredictRequest.FromString(b"".join(parts)) == PredictRequest(inputs=[PredictInput(data=content)])
    assert parts[-1] is content
