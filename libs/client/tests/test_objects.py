"""Predicted objects in the SDK and the command line: printed, drawn, and converted for other libraries."""

import io
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from vesta import predicted_objects, to_supervision
from vesta.drawing import colour_of, draw
from vesta.maps import area_shares, map_rows
from vesta.objects import area_px, corners, mask_rows
from vesta_contracts.common.v1 import Annotation, ConceptScore, Mask, PixelBox, Polygon, Prediction, SegmentationMap

BOX = PixelBox(x_min_px=10, y_min_px=20, x_max_px=30.5, y_max_px=60)
MASK = Mask(height_px=4, width_px=5, runs_px=[6, 3, 1, 4, 6])


def an_object(concept: str = "van", score: float = 0.9, **shape: Any) -> Annotation:
    return Annotation(concept=concept, score=score, **(shape or {"box": BOX}))


def a_prediction(*objects: Annotation) -> Prediction:
    scores = [ConceptScore(concept=name, score=0.9, threshold=0.5, predicted=True) for name in ("van", "car")]
    return Prediction(scores=scores, annotations=objects)


def test_the_area_of_an_object_is_that_of_its_pixels_or_its_box() -> None:
    assert area_px(Annotation(mask=MASK)) == 7
    assert area_px(Annotation(box=BOX)) == pytest.approx(20.5 * 40)


def test_objects_below_the_threshold_of_their_concept_are_not_predicted() -> None:
    sure, unsure = an_object(score=0.5), an_object("car", 0.4)
    assert predicted_objects(a_prediction(sure, unsure)) == [sure]


def test_the_pixels_of_a_mask_are_those_of_its_runs() -> None:
    assert list(mask_rows(MASK)) == [(1, 1, 4), (2, 0, 4)]
    assert list(mask_rows(Mask(height_px=2, width_px=2, runs_px=[0, 4]))) == [(0, 0, 2), (1, 0, 2)]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ({"box": BOX}, (10, 20, 30.5, 60)),
        ({"mask": MASK}, (0, 1, 4, 3)),
        ({"mask": Mask(height_px=2, width_px=2, runs_px=[4])}, (0, 0, 0, 0)),
    ],
    ids=["box", "mask", "empty mask"],
)
def test_the_corners_of_an_object(shape: dict[str, Any], expected: tuple[float, ...]) -> None:
    assert corners(an_object(**shape)) == expected


def test_other_shapes_have_no_corners() -> None:
    with pytest.raises(ValueError, match="polygon"):
        corners(an_object(polygon=Polygon()))


def a_picture(orientation: int = 1) -> bytes:
    target = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (200, 100), "white").save(target, "PNG", exif=exif)
    return target.getvalue()


def test_objects_are_drawn_where_they_are_on_the_upright_image() -> None:
    picture = draw(
        a_picture(orientation=6),
        [an_object(), an_object("car", box=PixelBox(x_min_px=50, y_min_px=150, x_max_px=90, y_max_px=190))],
    )
    assert picture.size == (100, 200)
    pixels = np.asarray(picture)
    assert tuple(pixels[40, 10]) == colour_of("van") != colour_of("car") == tuple(pixels[189, 70])
    assert tuple(pixels[170, 70]) == (255, 255, 255)


def test_masks_are_tinted() -> None:
    pixels = np.asarray(
        draw(a_picture(), [an_object(mask=Mask(height_px=100, width_px=200, runs_px=[5_000, 4_000, 11_000]))])
    )
    red, green, blue = pixels[35, 150]
    assert (255, 255, 255) != (red, green, blue) != colour_of("van")


class FakeDetections(SimpleNamespace):
    """The arguments of `supervision.Detections`."""


@pytest.fixture
def supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=FakeDetections))  # type: ignore[arg-type]


@pytest.mark.usefixtures("supervision")
def test_predictions_become_detections() -> None:
    prediction = a_prediction(an_object(), an_object("car", 0.75), an_object("car", 0.25))
    found = to_supervision(prediction)
    assert found.xyxy.tolist() == [[10, 20, 30.5, 60]] * 2
    np.testing.assert_allclose(found.confidence, [0.9, 0.75])
    assert (found.class_id.tolist(), found.data["class_name"].tolist(), found.mask) == ([1, 0], ["van", "car"], None)
    assert to_supervision(prediction, ["van", "bus", "car"], every_object=True).class_id.tolist() == [0, 2, 2]


@pytest.mark.usefixtures("supervision")
def test_masks_become_boolean_arrays_and_no_objects_empty_ones() -> None:
    found = to_supervision(a_prediction(an_object(mask=MASK)))
    assert found.mask.shape == (1, 4, 5)
    assert found.mask.sum() == 7
    empty = to_supervision(a_prediction())
    assert (empty.xyxy.shape, empty.confidence.shape, empty.class_id.shape) == ((0, 4), (0,), (0,))


@pytest.mark.usefixtures("supervision")
def test_an_object_of_another_concept_is_rejected() -> None:
    with pytest.raises(ValueError, match="'van' is not one of"):
        to_supervision(a_prediction(an_object()), ["car"])


MAP = SegmentationMap(
    height_px=50, width_px=100, concepts=["car", "van"], runs_px=[2_050, 200, 250, 2_500], concept_numbers=[0, 1, 2, 0]
)


def test_the_shares_of_a_map_are_those_of_its_pixels() -> None:
    assert area_shares(MAP) == {"van": 0.05, "car": 0.04}
    assert list(area_shares(MAP)) == ["van", "car"]
    assert area_shares(SegmentationMap()) == {}


def test_the_pixels_of_a_map_are_those_of_its_runs() -> None:
    assert list(map_rows(MAP))[:4] == [
        ("car", 20, 50, 100),
        ("car", 21, 0, 100),
        ("car", 22, 0, 50),
        ("van", 22, 50, 100),
    ]
    assert list(map_rows(SegmentationMap(height_px=1, width_px=4, runs_px=[4], concept_numbers=[0]))) == []


def test_a_map_is_drawn_over_its_pixels() -> None:
    target = io.BytesIO()
    Image.new("RGB", (100, 50), "white").save(target, "PNG")
    picture = draw(target.getvalue(), [], MAP)
    white, van = (255, 255, 255), picture.getpixel((99, 23))
    assert picture.getpixel((50, 5)) == picture.getpixel((50, 40)) == white
    assert van not in (white, picture.getpixel((99, 21)))
