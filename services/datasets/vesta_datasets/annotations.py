"""What may be accepted for an item: concepts of its taxonomy, one label where one is asked, shapes that lie on the image. Pure."""

import math
from collections.abc import Iterable, Sequence

from vesta_common.errors import InvalidArgument, Violation
from vesta_common.image_labels import image_labels
from vesta_common.messages import without
from vesta_common.shapes import find_flaw
from vesta_contracts.common.v1 import Annotation, Media, PixelBox, PixelPoint
from vesta_contracts.datasets.v1 import Taxonomy

EDGE_TOLERANCE_PX = 1.0
_FLAW_REASONS = {None: "SHAPE_MISSING", "mask": "MASK_RUNS_WRONG"}


def check_annotations(
    annotations: Sequence[Annotation], taxonomy: Taxonomy, media: Media, *, multi_label: bool, field: str
) -> None:
    """Accepts annotations that make sense for an item.

    Args:
        field: what to call them in a refusal, such as `items[3].annotations`.

    Raises:
        InvalidArgument: says which one is wrong, and what would be right.
    """
    known = {concept.id for concept in taxonomy.concepts}
    for index, annotation in enumerate(annotations):
        where = f"{field}[{index}]"
        if annotation.concept not in known:
            raise _refusal(where, f"{annotation.concept!r} is no concept of {taxonomy.name}", "CONCEPT_UNKNOWN")
        mask = annotation.mask
        if annotation.HasField("mask") and (mask.height_px, mask.width_px) != (media.height_px, media.width_px):
            raise _refusal(where, "is a mask of another size than the image", "MASK_SIZE_WRONG")
        if flaw := find_flaw(annotation):
            raise _refusal(where, flaw, _FLAW_REASONS.get(annotation.WhichOneof("shape"), "SHAPE_INVALID"))
        if not _fits(annotation, media):
            raise _refusal(
                where, f"lies outside the image of {media.width_px} x {media.height_px} pixels", "SHAPE_OUTSIDE_IMAGE"
            )
    if not multi_label and len(labels_of(_image_labels(annotations))) > 1:
        raise _refusal(field, "has several labels where the dataset allows one", "LABEL_NOT_SINGLE")


def labels_of(annotations: Iterable[Annotation]) -> tuple[str, ...]:
    """The concepts of the image labels among the annotations, sorted, each once; empty too where there are shapes alone."""
    return image_labels(annotations) or ()


def shape_concepts_of(annotations: Iterable[Annotation]) -> tuple[str, ...]:
    """The concepts of boxes, masks and other shapes among the annotations, sorted, each once."""
    return tuple(sorted({one.concept for one in annotations if not one.HasField("image_label")}))


def concepts_of(annotations: Iterable[Annotation]) -> tuple[str, ...]:
    """The concepts that the annotations state of the image or of a part of it, sorted, each once."""
    return tuple(sorted({annotation.concept for annotation in annotations}))


def with_shapes_kept(answer: Sequence[Annotation], accepted: Iterable[Annotation]) -> list[Annotation]:
    """An expert's answer with the shapes that were accepted before, where it says what the image as a whole shows and no more.

    An answer that has shapes, or states none of the concepts, stands for itself.
    """
    if not answer or shape_concepts_of(answer):
        return list(answer)
    return [*answer, *(one for one in accepted if not one.HasField("image_label"))]


def say_the_same(one: Iterable[Annotation], other: Iterable[Annotation]) -> bool:
    """Whether two answers state the same concepts in the same places, in whatever order; score and attributes aside."""
    return _stated(one) == _stated(other)


def _stated(annotations: Iterable[Annotation]) -> list[bytes]:
    return sorted(without(one, "score", "attributes").SerializeToString(deterministic=True) for one in annotations)


def _image_labels(annotations: Iterable[Annotation]) -> list[Annotation]:
    return [annotation for annotation in annotations if annotation.HasField("image_label")]


def _fits(annotation: Annotation, media: Media) -> bool:
    """Whether a shape lies on the image.

    The corners of a turned box may reach beyond: around what lies in a corner of the image they do. What it is drawn
    around is no longer than the image's diagonal, however it lies.
    """
    box = annotation.rotated_box
    longest_px = math.hypot(media.width_px, media.height_px) + EDGE_TOLERANCE_PX
    return max(box.width_px, box.height_px) <= longest_px and all(
        _on_image(point, media) for point in _points(annotation)
    )


def _points(annotation: Annotation) -> Iterable[PixelPoint]:
    """The points that bound a shape; of a turned box its centre."""
    match annotation.WhichOneof("shape"):
        case "box":
            yield from _corners(annotation.box)
        case "rotated_box":
            yield PixelPoint(x_px=annotation.rotated_box.x_center_px, y_px=annotation.rotated_box.y_center_px)
        case "polygon":
            for ring in (annotation.polygon.outline, *annotation.polygon.holes):
                yield from ring.points
        case "keypoints":
            yield from (point.point for point in annotation.keypoints.points)
        case "track":
            for keyframe in annotation.track.keyframes:
                yield from _corners(keyframe.box)


def _corners(box: PixelBox) -> Iterable[PixelPoint]:
    yield PixelPoint(x_px=box.x_min_px, y_px=box.y_min_px)
    yield PixelPoint(x_px=box.x_max_px, y_px=box.y_max_px)


def _on_image(point: PixelPoint, media: Media) -> bool:
    return (
        -EDGE_TOLERANCE_PX <= point.x_px <= media.width_px + EDGE_TOLERANCE_PX
        and -EDGE_TOLERANCE_PX <= point.y_px <= media.height_px + EDGE_TOLERANCE_PX
    )


def _refusal(field: str, what: str, reason: str) -> InvalidArgument:
    return InvalidArgument(f"{field} {what}", reason=reason, violations=[Violation(field, what)])
