"""A shape that is accepted covers something."""

import pytest
from google.protobuf.duration_pb2 import Duration
from vesta_common.errors import InvalidArgument
from vesta_contracts.common.v1 import (
    Annotation,
    Media,
    PixelBox,
    PixelPoint,
    Polygon,
    Ring,
    RotatedBox,
    TemporalSegment,
)
from vesta_contracts.datasets.v1 import Concept, Taxonomy
from vesta_datasets.annotations import check_annotations

TRIANGLE = Ring(points=[PixelPoint(x_px=x, y_px=y) for x, y in ((1, 1), (9, 1), (9, 9))])
LINE = Ring(points=TRIANGLE.points[:2])
SECOND = Duration(seconds=1)


def check(**shape: object) -> None:
    annotation = Annotation(concept="van", **shape)  # type: ignore[arg-type]
    media = Media(width_px=64, height_px=48)
    check_annotations([annotation], Taxonomy(concepts=[Concept(id="van")]), media, multi_label=False, field="it")


@pytest.mark.parametrize(
    "shape",
    [
        {"box": PixelBox(x_min_px=9, y_min_px=1, x_max_px=2, y_max_px=9)},
        {"box": PixelBox(x_min_px=2, y_min_px=1, x_max_px=2, y_max_px=9)},
        {"rotated_box": RotatedBox(x_center_px=9, y_center_px=9, width_px=4)},
        {"polygon": Polygon()},
        {"polygon": Polygon(outline=LINE)},
        {"polygon": Polygon(outline=TRIANGLE, holes=[LINE])},
        {"temporal_segment": TemporalSegment(start_offset=SECOND, end_offset=SECOND)},
    ],
)
def test_a_shape_without_extent_is_refused(shape: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check(**shape)
    assert refused.value.reason == "SHAPE_INVALID"


def test_a_shape_with_extent_is_accepted() -> None:
    check(box=PixelBox(x_min_px=1, y_min_px=1, x_max_px=2, y_max_px=9))
    check(rotated_box=RotatedBox(x_center_px=9, y_center_px=9, width_px=4, height_px=1))
    check(polygon=Polygon(outline=TRIANGLE))
    check(temporal_segment=TemporalSegment(end_offset=SECOND))
