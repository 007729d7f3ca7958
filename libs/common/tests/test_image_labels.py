"""Only image labels speak of the image as a whole."""

import pytest
from vesta_common.media.image_labels import image_labels
from vesta_contracts.common.v1 import Annotation, ImageLabel, Mask, PixelBox, TemporalSegment

BOX = Annotation(concept="wheel", box=PixelBox(x_max_px=3, y_max_px=3))
MASK = Annotation(concept="wheel", mask=Mask(height_px=1, width_px=1, runs_px=[1]))
STRETCH = Annotation(concept="wheel", temporal_segment=TemporalSegment())
BARE = Annotation(concept="wheel")


def label(concept: str) -> Annotation:
    return Annotation(concept=concept, image_label=ImageLabel())


@pytest.mark.parametrize(
    ("annotations", "labels"),
    [
        ([], ()),
        ([label("van")], ("van",)),
        ([label("van"), label("car"), label("van")], ("car", "van")),
        ([label("van"), BOX], ("van",)),
        ([BOX], None),
        ([MASK, BOX], None),
        ([STRETCH], None),
        ([BARE], None),
    ],
)
def test_the_labels_of_an_image_are_its_image_labels(
    annotations: list[Annotation], labels: tuple[str, ...] | None
) -> None:
    assert image_labels(annotations) == labels
