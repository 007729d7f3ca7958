"""Consensus of polygons and masks: of instances, and of the concepts of pixels."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from vesta_annotation.task_types.instance_segmentation import InstanceSegmentation
from vesta_annotation.task_types.objects import distance
from vesta_annotation.task_types.semantic_segmentation import SemanticSegmentation
from vesta_common.media.mask_runs import edges_of, mask_of
from vesta_contracts.annotation.v1 import Submission
from vesta_contracts.common.v1 import Annotation, PixelPoint, Polygon, Ring, RotatedBox

INSTANCES, PIXELS = InstanceSegmentation(), SemanticSegmentation()
HEIGHT, WIDTH = 40, 60


def a_polygon(x: float, y: float = 0, concept: str = "van", side: float = 20) -> Annotation:
    corners = [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]
    ring = Ring(points=[PixelPoint(x_px=px, y_px=py) for px, py in corners])
    return Annotation(concept=concept, polygon=Polygon(outline=ring))


def a_mask(x: int, y: int = 0, concept: str = "van", side: int = 20, **attributes: str) -> Annotation:
    pixels = np.zeros((HEIGHT, WIDTH), np.bool_)
    pixels[y : y + side, x : x + side] = True
    edges = np.flatnonzero(np.diff(np.concatenate([[False], pixels.ravel(), [False]])))
    return Annotation(concept=concept, mask=mask_of(edges, HEIGHT, WIDTH), attributes=attributes)


def pixels_of(annotation: Annotation) -> NDArray[np.bool_]:
    pixels = np.zeros(HEIGHT * WIDTH, np.bool_)
    for begin, end in edges_of(annotation.mask).reshape(-1, 2):
        pixels[begin:end] = True
    return pixels.reshape(HEIGHT, WIDTH)


def drawn(*answers: list[Annotation]) -> list[Submission]:
    return [Submission(annotator="abcdefg"[index], annotations=objects) for index, objects in enumerate(answers)]


def far(one: list[Annotation], other: list[Annotation]) -> float:
    return distance(INSTANCES.value(one), INSTANCES.value(other))


@pytest.mark.parametrize("one", [a_polygon(0), a_mask(0)])
@pytest.mark.parametrize("other", [a_polygon(5), a_mask(5)])
def test_polygons_and_masks_are_compared_by_their_overlap(one: Annotation, other: Annotation) -> None:
    assert far([one], [other]) == pytest.approx(1 - 15 / 25)
    assert far([one], [one]) == pytest.approx(0)


def a_rotated_box(x: float, angle: float, width: float = 20, height: float = 10) -> Annotation:
    box = RotatedBox(x_center_px=x, y_center_px=20, width_px=width, height_px=height, angle_deg=angle)
    return Annotation(concept="van", rotated_box=box)


def test_rotated_boxes_are_compared_by_their_outlines() -> None:
    assert far([a_rotated_box(30, 0)], [a_rotated_box(30, 90)]) == 1  # an IoU of a third
    assert far([a_rotated_box(30, 30)], [a_rotated_box(30, 30, 20, 8)]) == pytest.approx(0.2)
    assert far([a_rotated_box(30, 0)], [a_rotated_box(30, 90, 10, 20)]) == pytest.approx(0, abs=1e-9)
    assert far([a_rotated_box(10, 0, 20, 20)], [a_polygon(0, 10)]) == pytest.approx(0, abs=1e-9)
    assert far([a_rotated_box(10, 0, 20, 20)], [a_mask(0, 10)]) == pytest.approx(0, abs=1e-9)


def test_rotated_boxes_are_merged_by_the_medians_of_equal_descriptions() -> None:
    answers = [a_rotated_box(30, 178), a_rotated_box(31, -88, 10, 20), a_rotated_box(32, 0, 22, 10)]
    (merged,) = INSTANCES.consensus(drawn(*([one] for one in answers))).annotations
    box = merged.rotated_box
    assert (box.x_center_px, box.y_center_px) == (31, 20)
    angle = math.radians(box.angle_deg)
    long = max(box.width_px, box.height_px)
    assert (long, min(box.width_px, box.height_px)) == (pytest.approx(20), pytest.approx(10))
    turned = angle if box.width_px == long else angle + math.pi / 2
    assert abs(math.sin(turned)) == pytest.approx(0, abs=1e-6)


def test_a_rotated_box_and_a_polygon_are_merged_to_the_most_similar_outline() -> None:
    answers = [a_polygon(0, 10), a_rotated_box(11, 0, 20, 20), a_polygon(3, 10)]
    (merged,) = INSTANCES.consensus(drawn(*([one] for one in answers))).annotations
    assert merged == answers[1]


def test_polygons_are_merged_by_the_most_similar_one() -> None:
    answers = [a_polygon(0), a_polygon(3), a_polygon(1)]
    (merged,) = INSTANCES.consensus(drawn(*([one] for one in answers))).annotations
    assert merged == a_polygon(1)
    pairs = [INSTANCES.merged_shape(given) for given in (answers[:2], answers[1::-1])]
    assert pairs[0] == pairs[1]


def test_masks_are_merged_by_the_majority_of_each_pixel() -> None:
    (merged,) = INSTANCES.consensus(drawn([a_mask(0)], [a_polygon(2)], [a_mask(4)])).annotations
    assert (pixels_of(merged) == pixels_of(a_mask(2))).all()
    (merged,) = INSTANCES.consensus(drawn([a_mask(0)], [a_mask(2)])).annotations
    assert pixels_of(merged).sum() == 18 * 20


def test_a_hole_is_not_part_of_an_object() -> None:
    ring = a_polygon(0)
    ring.polygon.holes.append(a_polygon(5, 5, side=10).polygon.outline)
    assert far([ring], [a_polygon(0)]) == pytest.approx(1 - 300 / 400)
    assert far([ring], [a_mask(0)]) == pytest.approx(1 - 300 / 400)


def test_an_instance_that_one_of_two_drew_is_disputed() -> None:
    consensus = INSTANCES.consensus(drawn([a_mask(0), a_polygon(30)], [a_mask(0, concept="car")]))
    assert [one.suggestion.WhichOneof("shape") for one in consensus.disagreements if one.disputed] == [
        "mask",
        "polygon",
    ]
    assert INSTANCES.consensus(drawn([], [])).annotators == ["a", "b"]


shapes = st.lists(
    st.one_of(
        st.builds(a_polygon, st.integers(0, 40), st.integers(0, 20), st.sampled_from(["van", "car"])),
        st.builds(a_mask, st.integers(0, 40), st.integers(0, 20), st.sampled_from(["van", "car"])),
    ),
    max_size=4,
)


@settings(deadline=None)
@given(shapes, shapes)
def test_the_distance_of_instances_is_symmetric(one: list[Annotation], other: list[Annotation]) -> None:
    found = far(one, other)
    assert 0 <= found <= 1
    assert found == pytest.approx(far(other, one))
    assert far(one, one) == pytest.approx(0)


@settings(deadline=None)
@given(st.integers(2, 5), st.integers(0, 2**32 - 1), st.randoms(use_true_random=False))
def test_jittered_outlines_of_the_same_objects_are_these_objects(
    annotators: int, seed: int, shuffle: random.Random
) -> None:
    jitter = np.random.default_rng(seed)
    answers = []
    for _ in range(annotators):
        objects = [
            (a_mask if jitter.random() < 0.5 else a_polygon)(x + int(jitter.integers(0, 3)), concept=f"c{x}", side=12)
            for x in (0, 20, 40)
        ]
        answers.append(shuffle.sample(objects, len(objects)))
    consensus = INSTANCES.consensus(drawn(*answers))
    assert sorted(one.concept for one in consensus.annotations) == ["c0", "c20", "c40"]
    assert len(consensus.annotators) == annotators


# Semantic segmentation


def test_a_pixel_has_the_concept_of_most_annotators() -> None:
    answers = drawn([a_mask(0), a_mask(30, concept="car")], [a_mask(2)], [a_mask(4), a_mask(31, concept="car")])
    consensus = PIXELS.consensus(answers)
    found = {one.concept: pixels_of(one) for one in consensus.annotations}
    assert (found["van"] == pixels_of(a_mask(2))).all()
    assert found["car"].sum() == 19 * 20
    assert consensus.annotators == ["a", "c"]
    assert not consensus.is_disputed
    assert [[opinion.annotator for opinion in one.opinions] for one in consensus.disagreements] == [["a", "c"]]


def test_a_concept_whose_pixels_mostly_have_no_majority_is_disputed() -> None:
    consensus = PIXELS.consensus(drawn([a_mask(0), a_mask(30)][:1], [a_mask(12), a_mask(40, concept="car")]))
    assert [one.suggestion.concept for one in consensus.disagreements if one.disputed] == ["car", "van"]
    assert list(consensus.annotations) == []
    assert consensus.annotators == []
    two_concepts = PIXELS.consensus(drawn([a_mask(0)], [a_mask(0, concept="car")]))
    assert two_concepts.is_disputed


def test_a_concept_that_one_of_three_drew_is_dropped() -> None:
    consensus = PIXELS.consensus(drawn([a_mask(0)], [], []))
    assert (list(consensus.annotations), consensus.annotators) == ([], ["b", "c"])
    assert [one.disputed for one in consensus.disagreements] == [False]


@pytest.mark.parametrize(("shift", "disputed"), [(5, False), (12, True), (30, True)])
def test_a_concept_that_two_of_three_see_in_different_places_is_disputed(shift: int, disputed: bool) -> None:
    consensus = PIXELS.consensus(drawn([a_mask(0)], [a_mask(shift)], []))
    assert consensus.is_disputed == disputed
    assert len(consensus.annotations) == (not disputed)


def test_nothing_is_an_answer_about_pixels() -> None:
    assert PIXELS.consensus(drawn([], [])).annotators == ["a", "b"]
    assert PIXELS.alpha([[PIXELS.value([])] * 2] * 2) == 1


def test_attributes_of_masks_are_those_of_most_annotators() -> None:
    (merged,) = PIXELS.consensus(drawn([a_mask(0, wet="yes")], [a_mask(0, wet="yes")], [a_mask(0)])).annotations
    assert dict(merged.attributes) == {"wet": "yes"}


def test_alpha_is_that_of_the_pixels() -> None:
    """Two images, two annotators, a quarter of the pixels of one image differs."""
    half, quarter, three = (np.arange(HEIGHT * WIDTH) < HEIGHT * WIDTH * share for share in (0.5, 0.25, 0.75))

    def a_map(pixels: NDArray[np.bool_]) -> list[Annotation]:
        edges = np.flatnonzero(np.diff(np.concatenate([[False], pixels, [False]])))
        return [Annotation(concept="van", mask=mask_of(edges, HEIGHT, WIDTH))]

    units = [[PIXELS.value(a_map(half)), PIXELS.value(a_map(quarter))], [PIXELS.value(a_map(three))] * 2]
    share = (0.5 + 0.25 + 0.75 + 0.75) / 4
    chance = 1 - share**2 - (1 - share) ** 2
    alpha = PIXELS.alpha(units)
    assert alpha is not None
    assert math.isclose(alpha, 1 - 0.125 / chance)
    assert PIXELS.alpha(units[:1]) is None


concept_maps = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19), st.sampled_from([6, 12])), max_size=3).map(
    lambda places: [a_mask(20 * index + x % 8, y, f"c{index}", side) for index, (x, y, side) in enumerate(places)]
)


@settings(deadline=None)
@given(st.lists(concept_maps, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_concepts_of_pixels_are_disjoint_and_do_not_depend_on_the_order(
    answers: list[list[Annotation]], draw: random.Random
) -> None:
    submissions = drawn(*answers)
    consensus = PIXELS.consensus(submissions)
    assert sum((pixels_of(one).astype(int) for one in consensus.annotations), np.zeros((HEIGHT, WIDTH), int)).max() <= 1
    shuffled = PIXELS.consensus(draw.sample(submissions, len(submissions)))
    assert list(consensus.annotations) == list(shuffled.annotations)
    assert set(consensus.annotators) == set(shuffled.annotators)
    assert list(consensus.disagreements) == list(shuffled.disagreements)
    if len(answers) == 1:
        assert list(consensus.annotations) == sorted(answers[0], key=lambda one: one.concept)
