"""Scores COCO results (boxes) against the COCO archive of a snapshot, with faster-coco-eval (`pip install vesta-client[evaluate]`)."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

Truth = dict[str, Any]
"""The content of an instances_*.json file of an archive."""
_AT_50 = 0
_ALL_AREAS, _MOST_OBJECTS = 0, -1


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision at an IoU of 0.5, and the mean over 0.5, 0.55 … 0.95; NaN without true objects."""

    at_50: float
    at_50_95: float


@dataclass(frozen=True)
class Evaluation:
    """The average precision of results.

    Attributes:
        mean: over the concepts that have true objects.
        by_concept: of every concept.
    """

    image_count: int
    object_count: int
    result_count: int
    mean: AveragePrecision
    by_concept: Mapping[str, AveragePrecision] = field(default_factory=dict)


def read_truth(archive: Path, split: str) -> Truth:
    """Returns the objects of a split of an archive.

    Raises:
        ValueError: the archive has no such split, or no objects in it.
    """
    name = f"annotations/instances_{split}.json"
    try:
        with ZipFile(archive) as opened:
            if name not in opened.namelist():
                raise ValueError(
                    f"the snapshot has no labelled items in the split {split}; choose another with --split"
                )
            truth: Truth = json.loads(opened.read(name))
    except BadZipFile as error:
        raise ValueError(f"{archive} is not a zip archive") from error
    if not truth["annotations"]:
        raise ValueError(f"the snapshot has no objects in the split {split}, so that nothing can be measured")
    return truth


def read_results(path: Path, truth: Truth) -> list[dict[str, Any]]:
    """Reads a COCO results file: a list of objects with image_id, category_id, bbox (x, y, width, height) and score.

    An image may be given by its id or its file name in the archive, and a category by its id or its concept.

    Raises:
        ValueError: the file is not such a list, or an entry is invalid or refers to an unknown image or category.
    """
    try:
        entries = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(entries, list):
        raise ValueError(  # noqa: TRY004 - the content of a file
            f"{path} is not a list of results; each has image_id, category_id, bbox and score"
        )
    images = {key: each["id"] for each in truth["images"] for key in (each["id"], each["file_name"])}
    categories = {key: each["id"] for each in truth["categories"] for key in (each["id"], each["name"])}
    return [_result(place, entry, images, categories) for place, entry in enumerate(entries)]


def evaluate(truth: Truth, results: Sequence[dict[str, Any]]) -> Evaluation:
    """Scores results. Raises ValueError if faster-coco-eval is not installed."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise ValueError(f"evaluation requires pip install 'vesta-client[evaluate]' ({error})") from error
    import numpy as np

    logging.getLogger("faster_coco_eval").setLevel(logging.ERROR)
    known = COCO(truth)
    # loadRes rejects an empty list.
    found = known.loadRes([dict(each) for each in results]) if results else COCO({**truth, "annotations": []})
    evaluation = COCOeval_faster(known, found, "bbox", print_function=lambda *_: None)
    evaluation.evaluate()
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"])[
        ..., _ALL_AREAS, _MOST_OBJECTS
    ]  # (T, R, C), -1 without objects
    by_concept = precision.mean(axis=1)  # (T, C)
    names = {each["id"]: each["name"] for each in truth["categories"]}
    concepts = [names[number] for number in evaluation.params.catIds]
    measured = by_concept[_AT_50] >= 0
    return Evaluation(
        image_count=len(truth["images"]),
        object_count=len(truth["annotations"]),
        result_count=len(results),
        mean=AveragePrecision(float(by_concept[_AT_50, measured].mean()), float(by_concept[:, measured].mean())),
        by_concept={
            concept: AveragePrecision(float(column[_AT_50]), float(column.mean()))
            if has_objects
            else AveragePrecision(math.nan, math.nan)
            for concept, column, has_objects in zip(concepts, by_concept.T, measured, strict=True)
        },
    )


def _result(
    place: int, entry: Any, images: Mapping[int | str, int], categories: Mapping[int | str, int]
) -> dict[str, Any]:
    try:
        image, category, box, score = (entry[key] for key in ("image_id", "category_id", "bbox", "score"))
    except (KeyError, TypeError) as error:
        raise ValueError(f"result {place} has no {error}; each has image_id, category_id, bbox and score") from error
    if not isinstance(image, int | str) or image not in images:
        raise ValueError(f"result {place} is for the image {image!r}, which is not in the split of the snapshot")
    if not isinstance(category, int | str) or category not in categories:
        known = ", ".join(str(key) for key in categories if isinstance(key, str))
        raise ValueError(f"result {place} has the category {category!r}; the concepts are {known}")
    numbers = [*box, score] if isinstance(box, list) else []
    if len(numbers) != 5 or not all(isinstance(each, int | float) and math.isfinite(each) for each in numbers):
        raise ValueError(f"result {place} needs a bbox of x, y, width and height, and a score, all of them numbers")
    if box[2] <= 0 or box[3] <= 0:
        raise ValueError(f"result {place} has a bbox without area; its width and height must be greater than 0")
    return {"image_id": images[image], "category_id": categories[category], "bbox": box, "score": score}
