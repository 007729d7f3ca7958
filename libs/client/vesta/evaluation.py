"""Scores COCO results (boxes, masks or keypoints) against the COCO archive of a snapshot, with faster-coco-eval (`vesta-client[evaluate]`).

Keypoints are scored by their object keypoint similarity (https://cocodataset.org/#keypoints-eval), with COCO's constants for the 17 points
of a person, and otherwise `POINT_SIGMA` for all points. COCO's scale of an object is the area of its mask, which archives do not contain:
here it is the area of the box around its points, at least `AREA_MIN_PX`.
"""

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from vesta.coco_masks import check_mask, encoded

Truth = dict[str, Any]
"""The content of an instances_*.json or person_keypoints_*.json file of an archive."""
POINT_SIGMA = 0.05
"""Standard deviation of annotators, as a share of the scale of the object. Half of the constant by which annotators agree on keypoints."""
AREA_MIN_PX = 64.0
_PERSON_SIGMAS = {
    "nose": 0.026, "left_eye": 0.025, "right_eye": 0.025, "left_ear": 0.035, "right_ear": 0.035, "left_shoulder": 0.079,
    "right_shoulder": 0.079, "left_elbow": 0.072, "right_elbow": 0.072, "left_wrist": 0.062, "right_wrist": 0.062,
    "left_hip": 0.107, "right_hip": 0.107, "left_knee": 0.087, "right_knee": 0.087, "left_ankle": 0.089, "right_ankle":
    0.089,
}  # fmt: skip
THRESHOLDS = 10
_AT_50 = 0
_ALL_AREAS, _MOST_OBJECTS = 0, -1


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision at an IoU of 0.5, and the mean over 0.5, 0.55 … 0.95; of keypoints, at these similarities. NaN without true
    objects.
    """

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
    """Returns the objects of a split of an archive: those with keypoints if it has any.

    Raises:
        ValueError: the archive has no such split, or no objects in it.
    """
    try:
        with ZipFile(archive) as opened:
            kinds = ("person_keypoints", "instances", "labels")
            files = {kind: f"annotations/{kind}_{split}.json" for kind in kinds}
            present = {kind: name for kind, name in files.items() if name in opened.namelist()}
            if not present:
                raise ValueError(
                    f"the snapshot has no labelled items in the split {split}; choose another with --split"
                )
            truths: list[Truth] = [json.loads(opened.read(name)) for kind, name in present.items() if kind != "labels"]
    except BadZipFile as error:
        raise ValueError(f"{archive} is not a zip archive") from error
    truth = next((each for each in truths if each["annotations"]), None)
    if truth is None:
        raise ValueError(f"the snapshot has no objects in the split {split}, so that nothing can be measured")
    return truth


def read_results(path: Path, truth: Truth) -> list[dict[str, Any]]:
    """Reads a COCO results file: a list of objects with image_id, category_id, bbox (x, y, width, height) and score. If the true
    objects have keypoints, results have keypoints (x, y and visibility of each) instead of bbox. Results with a segmentation (polygons,
    or run lengths as size and counts) are masks, if the true objects have them.

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
    if has_keypoints(truth):
        shape_of = _keypoints_of(truth)
    elif any(isinstance(each, dict) and "segmentation" in each for each in entries):
        shape_of = _mask_of(truth)
    else:
        shape_of = _box_of
    return [_result(place, entry, images, categories, shape_of) for place, entry in enumerate(entries)]


def has_keypoints(truth: Truth) -> bool:
    """Whether the true objects are keypoints rather than boxes."""
    return any("keypoints" in each for each in truth["annotations"])


def has_masks(truth: Truth) -> bool:
    """Whether the true objects have masks or polygons."""
    return all(each.get("segmentation") for each in truth["annotations"])


def evaluate(truth: Truth, results: Sequence[dict[str, Any]]) -> Evaluation:
    """Scores results. Raises ValueError if faster-coco-eval is not installed."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise ValueError(f"evaluation requires pip install 'vesta-client[evaluate]' ({error})") from error
    import numpy as np

    logging.getLogger("faster_coco_eval").setLevel(logging.ERROR)
    known = COCO(_with_areas(truth) if has_keypoints(truth) else _copied(truth))
    if are_masks := any("segmentation" in each for each in results) or (not results and has_masks(truth)):
        sizes = _image_sizes(truth)
        results = [encoded(each, sizes[each["image_id"]]) for each in results]
    # loadRes rejects an empty list.
    found = known.loadRes([dict(each) for each in results]) if results else COCO({**truth, "annotations": []})

    def precision_of(kind: str, concepts: Sequence[int], sigmas: Sequence[float] = ()) -> Any:
        """Returns `(T, C)` mean precisions, -1 without objects."""
        evaluation = COCOeval_faster(known, found, kind, print_function=lambda *_: None)
        evaluation.params.catIds = list(concepts)
        if sigmas:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        return np.asarray(evaluation.eval["precision"])[..., _ALL_AREAS, _MOST_OBJECTS].mean(axis=1)

    numbers = sorted(each["id"] for each in truth["categories"])
    if has_keypoints(truth):  # the number of points differs between concepts
        points = {each["id"]: each.get("keypoints", ()) for each in truth["categories"]}
        nothing = np.full((THRESHOLDS, 1), -1.0)
        parts = [precision_of("keypoints", [one], _sigmas(points[one])) if points[one] else nothing for one in numbers]
        by_concept = np.hstack(parts)
    else:
        by_concept = precision_of("segm" if are_masks else "bbox", numbers)
    names = {each["id"]: each["name"] for each in truth["categories"]}
    concepts = [names[number] for number in numbers]
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


def _sigmas(names: Sequence[str]) -> Sequence[float]:
    return list(_PERSON_SIGMAS.values()) if list(names) == list(_PERSON_SIGMAS) else [POINT_SIGMA] * len(names)


def _copied(truth: Truth) -> Truth:
    """Returns the objects for faster-coco-eval, which adds to them."""
    return {**truth, "annotations": [dict(each) for each in truth["annotations"]]}


def _with_areas(truth: Truth) -> Truth:
    """Returns keypoints with areas of at least `AREA_MIN_PX`; a single point has none."""
    annotations = [{**each, "area": max(each["area"], AREA_MIN_PX)} for each in truth["annotations"]]
    return {**truth, "annotations": annotations}


ShapeOf = Callable[[int, Any, int], dict[str, Any]]
"""Returns the shape of a result, given its place, the result and its category. Raises ValueError, KeyError or TypeError."""


def _result(
    place: int,
    entry: Any,
    images: Mapping[int | str, int],
    categories: Mapping[int | str, int],
    shape_of: ShapeOf,
) -> dict[str, Any]:
    try:
        image, category, score = (entry[key] for key in ("image_id", "category_id", "score"))
        if not isinstance(image, int | str) or image not in images:
            raise ValueError(f"result {place} is for the image {image!r}, which is not in the split of the snapshot")
        if not isinstance(category, int | str) or category not in categories:
            known = ", ".join(str(key) for key in categories if isinstance(key, str))
            raise ValueError(f"result {place} has the category {category!r}; the concepts are {known}")
        shape = shape_of(place, entry, categories[category])
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"result {place} has no {error}; each has image_id, category_id, score, and bbox, segmentation or keypoints"
        ) from error
    if not _are_numbers([score]):
        raise ValueError(f"result {place} needs a score that is a number")
    return {"image_id": images[image], "category_id": categories[category], **shape, "score": score}


def _box_of(place: int, entry: Any, category: int) -> dict[str, Any]:  # noqa: ARG001 - as `ShapeOf`
    box = entry["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not _are_numbers(box):
        raise ValueError(f"result {place} needs a bbox of x, y, width and height, all of them numbers")
    if box[2] <= 0 or box[3] <= 0:
        raise ValueError(f"result {place} has a bbox without area; its width and height must be greater than 0")
    return {"bbox": box}


def _mask_of(truth: Truth) -> ShapeOf:
    sizes = _image_sizes(truth)

    def shape_of(place: int, entry: Any, category: int) -> dict[str, Any]:  # noqa: ARG001 - as `ShapeOf`
        if not has_masks(truth):
            raise ValueError(
                f"result {place} has a segmentation, but the objects of the snapshot are boxes; leave it out, to compare boxes"
            )
        return check_mask(place, entry, sizes)

    return shape_of


def _image_sizes(truth: Truth) -> dict[int | str, tuple[int, int]]:
    """Returns height and width of the images, by id and by file name."""
    return {key: (each["height"], each["width"]) for each in truth["images"] for key in (each["id"], each["file_name"])}


def _keypoints_of(truth: Truth) -> ShapeOf:
    names = {each["id"]: each.get("keypoints", ()) for each in truth["categories"]}

    def shape_of(place: int, entry: Any, category: int) -> dict[str, Any]:
        values, count = entry["keypoints"], len(names[category])
        if not isinstance(values, list) or len(values) != 3 * count or not count or not _are_numbers(values):
            raise ValueError(
                f"result {place} needs keypoints of 3 x {count} numbers: x, y and visibility of {', '.join(names[category])}"
                if count
                else f"result {place} is for a concept without keypoints"
            )
        return {"keypoints": values}

    return shape_of


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(each, int | float) and math.isfinite(each) for each in values)
