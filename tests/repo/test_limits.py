"""What a request may carry is limited, and one shape is always within the limit of the annotations of an item."""

import pytest
from google.protobuf.message import Message
from promises.limits import requests, unlimited_fields
from vesta_common.errors import InvalidArgument
from vesta_common.media.annotations import ANNOTATIONS_BYTES_MAX
from vesta_common.rpc.validation import validate
from vesta_contracts.annotation.v1 import TaskAccepted
from vesta_contracts.common.v1 import (
    Annotation,
    Keyframe,
    Mask,
    Media,
    PixelBox,
    PixelPoint,
    Polygon,
    Provenance,
    Ring,
    Track,
)
from vesta_contracts.conductor.v1 import ListProjectsRequest
from vesta_contracts.connection.v1 import UploadItemRequest
from vesta_contracts.datasets.v1 import Item, NewItem, SelectItemsRequest

LONG = "x" * 1025
DATASET = f"projects/{'p' * 63}/datasets/{'d' * 63}"


def a_mask(runs: int) -> Annotation:
    return Annotation(concept="van", mask=Mask(height_px=10_000, width_px=10_000, runs_px=[200] * runs))


def a_polygon(points: int) -> Annotation:
    return Annotation(concept="van", polygon=Polygon(outline=Ring(points=[PixelPoint(x_px=0.1, y_px=0.1)] * points)))


def a_track(keyframes: int) -> Annotation:
    frame = Keyframe(box=PixelBox(x_min_px=0.1, y_min_px=0.1, x_max_px=0.2, y_max_px=0.2))
    frame.offset.FromMilliseconds(3_599_999)
    return Annotation(concept="van", track=Track(track_id="1", keyframes=[frame] * keyframes))


@pytest.mark.parametrize("annotation", [a_mask(4_000_000), a_polygon(40_000), a_track(16_000)])
def test_the_largest_shape_that_the_rules_allow_is_within_the_limit_of_an_item(annotation: Annotation) -> None:
    validate(annotation)
    assert annotation.ByteSize() <= ANNOTATIONS_BYTES_MAX


@pytest.mark.parametrize("annotation", [a_mask(4_000_001), a_polygon(60_000), a_track(20_000)])
def test_a_shape_that_is_too_large_is_refused(annotation: Annotation) -> None:
    with pytest.raises(InvalidArgument):
        validate(annotation)


@pytest.mark.parametrize(
    "message",
    [
        Annotation(concept="van", attributes={"note": LONG}),
        Item(metadata={"camera": LONG}),
        NewItem(media=Media(sha256="0" * 64), metadata={"camera": LONG}),
        UploadItemRequest(parent="projects/acme/sources/desk", metadata={"camera": LONG}),
        SelectItemsRequest(parent=DATASET, count=1, excluded=[LONG]),
        ListProjectsRequest(names=[LONG]),
        Media(mime_type=LONG),
        Provenance(source=LONG),
        Provenance(original_sha256=LONG),
    ],
)
def test_a_text_that_is_too_long_is_refused(message: Message) -> None:
    with pytest.raises(InvalidArgument):
        validate(message)


def test_a_selection_may_leave_out_as_many_items_as_a_loop_asks_about() -> None:
    names = [f"{DATASET}/items/{number:026}" for number in range(100_000)]
    validate(SelectItemsRequest(parent=DATASET, count=1, excluded=names))


def test_every_text_and_list_of_a_request_has_a_limit() -> None:
    assert unlimited_fields(requests()) == []


def test_a_message_without_limits_is_rejected() -> None:
    found = unlimited_fields([TaskAccepted.DESCRIPTOR])
    assert "vesta.annotation.v1.TaskAccepted.annotators has no items_max" in found
    assert "vesta.annotation.v1.TaskAccepted.reviewer has no length_max" in found
