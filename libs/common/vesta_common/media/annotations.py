"""Validation rules for the annotations of an item. Pure.

Annotators' answers, reviews, imports, direct annotations and events all use these rules, with the same reasons and messages. Annotations
are checked against the item's image and the current taxonomy.
"""

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from vesta_contracts.common.v1 import Annotation, Media, TaskType
from vesta_contracts.datasets.v1 import AnnotationList, Concept, Taxonomy

from vesta_common.errors import InvalidArgument, Violation
from vesta_common.media.image_labels import image_labels
from vesta_common.media.mask_runs import area, covered, edges_of
from vesta_common.media.outlines import find_crossing
from vesta_common.media.shapes import find_flaw, lies_on
from vesta_common.media.task_types import allowed_annotations, in_words
from vesta_common.rpc.validation import validate

ANNOTATIONS_BYTES_MAX = 8 * 1024 * 1024
"""Limit for one item."""
_CLIP_SHAPES = {"track", "temporal_segment"}
_FLAW_REASONS = {None: "SHAPE_MISSING", "mask": "MASK_RUNS_INVALID"}


@dataclass(frozen=True)
class Terms:
    """What the annotations of the items of a dataset are checked against. Build it once for many items.

    Attributes:
        taxonomy: the current taxonomy of the dataset. Retired concepts are valid, because existing items keep them.
        task_type: the task type of the campaign that asks, or else of the dataset.
        allowed_concepts: the concepts that an answer may use; None for the whole taxonomy.
        asked_by: the campaign that asks, for error messages.
    """

    taxonomy: Taxonomy
    task_type: TaskType.ValueType
    allowed_concepts: Sequence[str] | None = None
    asked_by: str = ""

    @cached_property
    def concepts(self) -> Mapping[str, Concept]:
        """The concepts of the taxonomy by id."""
        return {concept.id: concept for concept in self.taxonomy.concepts}

    @cached_property
    def allowed(self) -> Container[str]:
        """The ids of the concepts that an answer may use."""
        return self.concepts if self.allowed_concepts is None else frozenset(self.allowed_concepts)


def check_annotations(annotations: Sequence[Annotation], media: Media, terms: Terms, field: str) -> None:
    """Checks the annotations of an item against all rules. An empty list means "none of the concepts".

    Args:
        media: the item's image; width, height and MIME type are used.
        field: the path of the annotations in the request, such as `items[3].annotations`.

    Raises:
        InvalidArgument: for the first invalid annotation, with a suggested fix. The reasons are listed at `vesta.common.v1.Annotation`;
            CONCEPT_NOT_IN_CAMPAIGN occurs only if `terms.allowed_concepts` is set.
    """
    check_shapes(annotations, media, terms.task_type, field)
    for index, annotation in enumerate(annotations):
        where = f"{field}[{index}]"
        concept = terms.concepts.get(annotation.concept)
        if concept is None:
            what = (
                f"has the concept {annotation.concept!r}, which is not in {terms.taxonomy.name}; add "
                "it to the taxonomy first"
            )
            raise _invalid(where, what, "CONCEPT_UNKNOWN")
        if annotation.concept not in terms.allowed:
            what = f"has the concept {annotation.concept!r}, which is not one of {terms.asked_by}"
            raise _invalid(where, what, "CONCEPT_NOT_IN_CAMPAIGN")
        _check_keypoints(annotation, concept, where)
    allowed = allowed_annotations(terms.task_type)
    if "image_label" not in allowed.shapes:
        _check_distinct(annotations, field)
    if allowed.is_map:
        _check_map(annotations, field)
    labels = image_labels(annotations) or ()
    if len(labels) > 1 and not allowed.several_labels:
        raise _invalid(field, f"has the labels {', '.join(labels)}, but only one is allowed", "LABEL_NOT_SINGLE")


def check_shapes(annotations: Sequence[Annotation], media: Media, task_type: TaskType.ValueType, field: str) -> None:
    """Checks that the shapes are valid, inside the image, and those of a task type. Concepts are not checked.

    Raises:
        InvalidArgument: see `check_annotations`.
    """
    _check_fields(annotations, field)
    shapes = allowed_annotations(task_type).shapes
    for index, annotation in enumerate(annotations):
        where = f"{field}[{index}]"
        _check_shape(annotation, media, where)
        if (kind := annotation.WhichOneof("shape")) not in shapes:
            what = f"has the shape {kind}; for {in_words(task_type)} use {' or '.join(sorted(shapes))}"
            raise _invalid(where, what, "SHAPE_NOT_OF_TASK")


def _check_fields(annotations: Sequence[Annotation], field: str) -> None:
    """Checks the field rules, which imports and events have not passed yet, and the total size."""
    size_bytes = sum(annotation.ByteSize() for annotation in annotations)
    if size_bytes > ANNOTATIONS_BYTES_MAX:
        what = (
            f"has {size_bytes} bytes, the maximum is {ANNOTATIONS_BYTES_MAX}; use fewer points, "
            "or masks with longer runs"
        )
        raise _invalid(field, what, "ANNOTATIONS_TOO_LARGE")
    try:
        validate(AnnotationList(annotations=annotations))
    except InvalidArgument as error:
        broken = [
            Violation(field + violation.field.removeprefix("annotations"), violation.description)
            for violation in error.violations
        ]
        raise InvalidArgument(
            f"{broken[0].field} {broken[0].description}", reason=error.reason, violations=broken
        ) from None


def _check_shape(annotation: Annotation, media: Media, where: str) -> None:
    kind = annotation.WhichOneof("shape")
    if kind in _CLIP_SHAPES and media.mime_type.startswith("image/"):
        raise _invalid(
            where, f"has a {kind}, which requires a clip; use a box or a polygon for an image", "SHAPE_NEEDS_CLIP"
        )
    mask = annotation.mask
    if kind == "mask" and (mask.width_px, mask.height_px) != (media.width_px, media.height_px):
        what = (
            f"has a mask of {mask.width_px} x {mask.height_px} pixels, but the image has "
            f"{media.width_px} x {media.height_px}"
        )
        raise _invalid(where, what, "MASK_SIZE_MISMATCH")
    if flaw := find_flaw(annotation):
        raise _invalid(where, flaw, _FLAW_REASONS.get(kind, "SHAPE_INVALID"))
    if not lies_on(annotation, media.width_px, media.height_px):
        what = f"is not within the image of {media.width_px} x {media.height_px} pixels; clip it to the image, or leave it out"
        raise _invalid(where, what, "SHAPE_OUTSIDE_IMAGE")
    if kind == "polygon" and (crossing := find_crossing(annotation.polygon)):
        what = f"has a polygon whose rings cross: {crossing}; draw rings that do not cross, or use a mask"
        raise _invalid(where, what, "POLYGON_CROSSED")
    if kind == "mask" and not any(mask.runs_px[1::2]):
        raise _invalid(where, "has a mask without pixels; leave the annotation out", "MASK_EMPTY")


def _check_distinct(annotations: Sequence[Annotation], field: str) -> None:
    """Checks that no object occurs twice, with the same concept and exactly the same shape."""
    first: dict[tuple[str, bytes], int] = {}
    for index, annotation in enumerate(annotations):
        shape = getattr(annotation, str(annotation.WhichOneof("shape")))
        place = first.setdefault((annotation.concept, shape.SerializeToString(deterministic=True)), index)
        if place != index:
            what = f"is the same object as {field}[{place}]; leave one of them out"
            raise _invalid(f"{field}[{index}]", what, "ANNOTATION_DUPLICATE")


def _check_map(annotations: Sequence[Annotation], field: str) -> None:
    """Checks that no concept has several masks, and that no pixel has several concepts."""
    counts = Counter(annotation.concept for annotation in annotations)
    if twice := [concept for concept, count in counts.items() if count > 1]:
        what = f"has {counts[twice[0]]} masks of {twice[0]!r}; an image has one mask per concept: join them"
        raise _invalid(field, what, "MASK_NOT_SINGLE")
    if shared := area(covered([edges_of(annotation.mask) for annotation in annotations], 2)):
        what = f"has {shared} pixels in several masks; each pixel has one concept"
        raise _invalid(field, what, "MASKS_OVERLAP")


def _check_keypoints(annotation: Annotation, concept: Concept, where: str) -> None:
    for point in annotation.keypoints.points:
        if point.label not in concept.keypoints:
            known = ", ".join(concept.keypoints)
            what = f"has the keypoint {point.label!r}; {concept.id!r} has " + (known or "no skeleton in the taxonomy")
            raise _invalid(where, what, "KEYPOINT_UNKNOWN")


def _invalid(field: str, what: str, reason: str) -> InvalidArgument:
    return InvalidArgument(f"{field} {what}", reason=reason, violations=[Violation(field, what)])
