"""Rotated boxes and their corners."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vesta_common.media.rotated_boxes import corners_of, described_as, normalized_angle, polygon_of, rotated_box_of
from vesta_contracts.common.v1 import Annotation, RotatedBox

sides = st.floats(1, 500)
angles = st.floats(-179.9, 180)
boxes = st.builds(
    lambda x, y, width, height, angle: RotatedBox(
        x_center_px=x, y_center_px=y, width_px=width, height_px=height, angle_deg=angle
    ),
    sides,
    sides,
    sides,
    sides,
    angles,
)


@given(boxes)
def test_a_box_is_that_of_its_corners(box: RotatedBox) -> None:
    found = rotated_box_of(corners_of(box))
    for field in ("x_center_px", "y_center_px", "width_px", "height_px"):
        assert getattr(found, field) == pytest.approx(getattr(box, field))
    assert math.cos(math.radians(found.angle_deg - box.angle_deg)) == pytest.approx(1)


@given(boxes, angles)
def test_each_description_of_a_box_has_the_same_corners(box: RotatedBox, angle: float) -> None:
    found = described_as(box, angle)
    assert abs(found.angle_deg - angle) <= 45 + 1e-9
    between = np.array(corners_of(found))[:, None] - np.array(corners_of(box))[None]
    assert np.hypot(*between.T).min(axis=0) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("angle", "expected"), [(0, 0), (180, 180), (-180, 180), (190, -170), (-10, -10), (720, 0)])
def test_angles_are_normalized(angle: float, expected: float) -> None:
    assert normalized_angle(angle) == expected


def test_rotation_is_clockwise_on_screen() -> None:
    box = RotatedBox(x_center_px=10, y_center_px=10, width_px=4, height_px=2, angle_deg=90)
    points = polygon_of(Annotation(rotated_box=box)).outline.points
    assert [(round(point.x_px), round(point.y_px)) for point in points] == [(11, 8), (11, 12), (9, 12), (9, 8)]
