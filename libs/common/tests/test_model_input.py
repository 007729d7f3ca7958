"""The input of models: what it shows of an image, and predictions in its pixels as boxes on the image."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from vesta_common.errors import InvalidArgument
from vesta_common.media.model_input import SQUARE, Box, InputFormat, Resize, place
from vesta_common.media.model_pictures import ModelPicture, model_picture, model_pictures, model_pixels
from vesta_common.media.model_signatures import SQUARE_INPUT, input_format, model_outputs
from vesta_contracts.training.v1 import ModelInput, ModelOutput, ModelSignature, ModelVersion

BOX: Box = (100.0, 60.0, 180.0, 100.0)
ORIENTATION = 0x0112
TURNS = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
RESIZES: list[Resize] = ["stretch", "letterbox", "crop"]


def a_scene(image_format: str = "PNG", orientation: int = 1, scale: int = 1) -> bytes:
    """A black picture of 320 × 200 pixels with a red box at `BOX`, times `scale`, stored with an orientation."""
    picture = Image.new("RGB", (320 * scale, 200 * scale))
    picture.paste("red", tuple(int(side * scale) for side in BOX))
    turn = TURNS[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    target = io.BytesIO()
    (picture if turn is None else picture.transpose(turn)).save(target, image_format, exif=exif)
    return target.getvalue()


def red_box(pixels: NDArray[np.uint8], channel: int = 0) -> NDArray[np.float32]:
    """The box of the red pixels, `(1, 4)`."""
    is_red = (pixels[..., channel] > 127) & (pixels[..., 2 - channel] < 60)
    rows, columns = np.flatnonzero(is_red.any(1)), np.flatnonzero(is_red.any(0))
    return np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float32)


@pytest.mark.parametrize("region", [None, (40.0, 20.0, 240.0, 140.0), (90.5, 50.25, 200.0, 180.0)], ids=str)
@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize(("image_format", "orientation"), [("PNG", 1), ("PNG", 6), ("JPEG", 3), ("JPEG", 8)])
def test_an_object_in_the_input_is_where_it_is_on_the_image(
    image_format: str, orientation: int, resize: Resize, region: Box | None
) -> None:
    declared = InputFormat(160, 224, resize)
    found = model_picture(a_scene(image_format, orientation), declared, region)
    assert found.pixels.shape == (160, 224, 3)
    (box,) = found.placement.on_image(red_box(found.pixels))
    left, top, right, bottom = found.placement.shown
    assert np.abs(box - np.clip(BOX, (left, top, left, top), (right, bottom, right, bottom))).max() < 1.5


def test_a_large_jpeg_that_is_decoded_at_a_smaller_scale_keeps_its_places() -> None:
    found = model_picture(a_scene("JPEG", 6, scale=8), InputFormat(128, 128, "letterbox"), (400, 240, 1680, 1040))
    (box,) = found.placement.on_image(red_box(found.pixels))
    assert np.abs(box - np.array(BOX) * 8).max() < 8


@pytest.mark.parametrize(("image_format", "orientation"), [("PNG", 6), ("JPEG", 1), ("JPEG", 8)])
def test_several_regions_are_as_each_region_alone(image_format: str, orientation: int) -> None:
    image, declared = a_scene(image_format, orientation, scale=4), InputFormat(64, 64, "letterbox")
    regions: list[Box | None] = [None, (400.0, 240.0, 720.0, 400.0), (0.0, 0.0, 40.0, 40.0), None]

    found = model_pictures(image, declared, regions)

    for region, one in zip(regions, found, strict=True):
        alone = model_picture(image, declared, region)
        assert isinstance(one, ModelPicture)
        assert (one.pixels == alone.pixels).all()
        assert one.placement == alone.placement


def test_a_region_that_is_not_in_the_image_does_not_affect_the_others() -> None:
    refused, found = model_pictures(a_scene(), SQUARE, [(400, 0, 500, 100), None])
    assert isinstance(refused, InvalidArgument)
    assert refused.reason == "REGION_INVALID"
    assert isinstance(found, ModelPicture)


def test_the_regions_of_a_file_that_cannot_be_decoded_have_one_error() -> None:
    with pytest.raises(InvalidArgument) as refused:
        model_pictures(a_scene("JPEG", scale=4)[:2000], SQUARE, [None, (0, 0, 10, 10)])
    assert refused.value.reason == "IMAGE_TRUNCATED"


def test_a_letterbox_is_grey_beside_the_image() -> None:
    pixels = model_pixels(a_scene(), InputFormat(100, 160, "letterbox"))
    assert not (pixels == 114).all(2).any()
    pixels = model_pixels(a_scene(), InputFormat(200, 160, "letterbox"))
    assert (pixels[:50] == 114).all()
    assert (pixels[150:] == 114).all()
    assert not (pixels[50:150] == 114).all(2).any()


def test_colours_are_in_the_declared_order() -> None:
    pixels = model_pixels(a_scene(), InputFormat(64, 64, colour_order="BGR"))
    assert pixels.flags.c_contiguous
    assert (pixels == model_pixels(a_scene(), InputFormat(64, 64))[..., ::-1]).all()


@pytest.mark.parametrize(
    "region",
    [
        (0, 0, 321, 200),
        (-1, 0, 100, 100),
        (50, 50, 40, 60),
        (50, 50, 50.5, 60),
        (0, 0, float("nan"), 100),
        (0, 0, float("inf"), 100),
        (400, 0, 500, 100),
    ],
    ids=str,
)
def test_a_region_that_is_not_in_the_image_is_rejected(region: Box) -> None:
    with pytest.raises(InvalidArgument, match="320 × 200") as refused:
        model_picture(a_scene(), SQUARE, region)
    assert refused.value.reason == "REGION_INVALID"


SIDES = st.integers(1, 5000)


@given(SIDES, SIDES, st.integers(1, 1024), st.integers(1, 1024), st.sampled_from(RESIZES))
def test_the_input_shows_the_whole_image_unless_it_is_cropped(
    width: int, height: int, input_width: int, input_height: int, resize: Resize
) -> None:
    placement = place(InputFormat(input_height, input_width, resize), width, height)
    left, top, shown_width, shown_height = placement.target
    assert 0 <= left <= input_width - shown_width
    assert 0 <= top <= input_height - shown_height
    x_min, y_min, x_max, y_max = placement.shown
    assert 0 <= x_min < x_max <= width
    assert 0 <= y_min < y_max <= height
    if resize != "crop":
        assert placement.shown == (0, 0, width, height)
    everything = np.array([[0, 0, input_width, input_height]], np.float32)
    ((left_px, top_px, right_px, bottom_px),) = placement.on_image(everything)
    np.testing.assert_allclose((left_px, top_px, right_px, bottom_px), placement.shown, rtol=1e-6, atol=1e-3)


def test_boxes_are_clipped_to_the_region() -> None:
    placement = place(InputFormat(100, 100), 320, 200, (100, 50, 200, 150))
    boxes = np.array([[-10, -10, 50, 50], [50, 50, 130, 130]], np.float32)
    assert placement.on_image(boxes).tolist() == [[100, 50, 150, 100], [150, 100, 200, 150]]
    assert placement.on_image(np.empty((0, 4), np.float32)).shape == (0, 4)


def test_versions_without_a_signature_have_the_default_input_and_outputs() -> None:
    version = ModelVersion(concepts=["van", "car"], embedding_dimension=4)
    assert input_format(version) == SQUARE == input_format(ModelVersion(signature=ModelSignature(input=SQUARE_INPUT)))
    assert [(each.name, list(each.dimensions)) for each in model_outputs(version)] == [
        ("probabilities", [2]),
        ("embedding", [4]),
    ]
    assert [each.name for each in model_outputs(ModelVersion(embedding_dimension=4))] == ["embedding"]


def test_a_signature_declares_the_input_and_outputs() -> None:
    declared = ModelInput(height_px=320, width_px=416, resize=ModelInput.LETTERBOX, colour_order=ModelInput.BGR)
    outputs = [ModelOutput(name="objects", dimensions=[100, 6])]
    version = ModelVersion(concepts=["van"], signature=ModelSignature(input=declared, outputs=outputs))
    assert input_format(version) == InputFormat(320, 416, "letterbox", "BGR")
    assert model_outputs(version) == outputs
