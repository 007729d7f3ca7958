"""The contact sheet: test images in a grid, with what is true and what the deployed model predicts."""

from collections.abc import Callable, Sequence
from pathlib import Path

from boxes import SizePx, open_image
from masks import scaled_mask
from photographs import Photograph
from PIL import Image
from task_types import DemoTask
from vesta_contracts.common.v1 import Annotation, PixelBox, Prediction

COLUMNS, ROWS = 4, 5
CELL_PX = (320, 240)
_GROUND = "#1f2937"

Predict = Callable[[list[bytes]], Sequence[Prediction]]
"""Returns the predictions for image files, in order."""


def write_contact_sheet(path: Path, photographs: Sequence[Photograph], task_type: DemoTask, predict: Predict) -> None:
    """Writes `COLUMNS` × `ROWS` of the photographs, evenly drawn, as one image. Writes nothing without photographs."""
    chosen = photographs[:: max(1, len(photographs) // (COLUMNS * ROWS))][: COLUMNS * ROWS]
    if not chosen:
        return
    predictions = predict([photograph.path.read_bytes() for photograph in chosen])
    width, height = CELL_PX
    rows = -(-len(chosen) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width, rows * height), _GROUND)
    for place, (photograph, prediction) in enumerate(zip(chosen, predictions, strict=True)):
        cell = _cell(photograph, task_type.predicted(prediction), task_type)
        sheet.paste(cell, (place % COLUMNS * width, place // COLUMNS * height))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _cell(photograph: Photograph, found: list[Annotation], task_type: DemoTask) -> Image.Image:
    """Returns the image in a cell, reduced or enlarged to fit, with its marks, which keep their size."""
    image = open_image(photograph.path)
    scale = min(CELL_PX[0] / image.width, CELL_PX[1] / image.height)
    fitted = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    truth, seen = ([_scaled(one, scale, fitted.size) for one in some] for some in (photograph.annotations, found))
    task_type.draw(fitted, truth, seen)
    return fitted


def _scaled(annotation: Annotation, scale: float, size_px: SizePx) -> Annotation:
    """Returns an annotation in pixels of the reduced image, which has a width and height."""
    if annotation.HasField("mask"):
        return scaled_mask(annotation, size_px)
    copy = Annotation()
    copy.CopyFrom(annotation)
    if annotation.HasField("box"):
        box = annotation.box
        copy.box.CopyFrom(
            PixelBox(
                x_min_px=box.x_min_px * scale,
                y_min_px=box.y_min_px * scale,
                x_max_px=box.x_max_px * scale,
                y_max_px=box.y_max_px * scale,
            )
        )
    return copy
