"""Semantic segmentation: an answer states the concept of each pixel, with at most one mask per concept."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from vesta_common.media import mask_runs
from vesta_common.media.mask_runs import Edges, area, covered, overlap
from vesta_contracts.annotation.v1 import Disagreement, Opinion, Submission
from vesta_contracts.common.v1 import Annotation

from vesta_annotation.task_types.annotation_task import OBJECT_TASKS_MAX, AnnotationTask, Consensus
from vesta_annotation.task_types.matching import SIMILARITY_MIN
from vesta_annotation.task_types.objects import add_attributes, attributes_disputed


@dataclass(frozen=True)
class ConceptMap:
    """The pixels of each concept in one answer.

    Attributes:
        height_px, width_px: 0 without masks, because only masks state the size of the image.
        labelled: the pixels of all concepts.
    """

    height_px: int = 0
    width_px: int = 0
    masks: Mapping[str, Edges] = field(default_factory=dict)
    labelled: Edges = field(default_factory=lambda: covered([], 1))


class SemanticSegmentation(AnnotationTask[ConceptMap]):
    """Masks. A pixel has the concept that more than half of the annotators state; "none of the concepts" is one of them."""

    tasks_measured_max = OBJECT_TASKS_MAX

    def value(self, annotations: Sequence[Annotation]) -> ConceptMap:
        parts: defaultdict[str, list[Edges]] = defaultdict(list)
        for annotation in annotations:
            parts[annotation.concept].append(mask_runs.edges_of(annotation.mask))
        if not parts:
            return ConceptMap()
        masks = {concept: covered(edges, 1) for concept, edges in parts.items()}
        frame = annotations[0].mask
        return ConceptMap(frame.height_px, frame.width_px, masks, covered(list(masks.values()), 1))

    def consensus(self, answers: Sequence[Submission]) -> Consensus:
        """Keeps the pixels of each concept that more than half of the annotators state.

        A concept is disputed if more than half of the pixels that anybody gave to it have no majority: for two annotators, if the
        intersection over union of their masks is below 0.5. It is disputed too if at least half of the annotators state it, but the pixels
        of the majority are close to nobody's mask: they see it in different places. Other pixels without a majority have no concept. A
        concept that fewer state is dropped without a majority.
        """
        maps = [self.value(answer.annotations) for answer in answers]
        most = len(maps) // 2 + 1
        concepts = sorted({concept for one in maps for concept in one.masks})
        majority = {concept: covered(_masks(maps, concept), most) for concept in concepts}
        stated = covered([one.labelled for one in maps], (len(maps) + 1) // 2)  # outside of it, most state no concept
        undecided = mask_runs.without(stated, covered([*majority.values()], 1))
        accepted, disagreements = list[Annotation](), list[Disagreement]()
        disputed = set[str]()
        frame = next((one for one in maps if one.masks), ConceptMap())
        for concept in concepts:
            drawn = _annotations(answers, concept)
            claimed = covered(_masks(maps, concept), 1)
            is_split = 2 * len(drawn) >= len(maps) and not _is_near(_masks(maps, concept), majority[concept])
            is_undecided = overlap(claimed, undecided) > SIMILARITY_MIN * area(claimed)
            if is_undecided or is_split or attributes_disputed(drawn):
                disputed.add(concept)
                suggested = covered(_masks(maps, concept), (len(drawn) + 1) // 2)
                suggestion = _annotation(concept, suggested, frame, drawn)
                disagreements.append(
                    Disagreement(disputed=True, suggestion=suggestion, opinions=_opinions(answers, concept))
                )
            elif len(majority[concept]):
                accepted.append(_annotation(concept, majority[concept], frame, drawn))
        decision = self.value(accepted)
        agreeing = [
            answer.annotator
            for answer, one in zip(answers, maps, strict=True)
            if disputed.isdisjoint(one.masks) and self.agree(one, decision)
        ]
        for concept in concepts:
            if concept not in disputed and not all(_is_close(one, decision, concept) for one in maps):
                disagreements.append(Disagreement(opinions=_opinions(answers, concept)))
        return Consensus(accepted, agreeing, disagreements)

    def agree(self, one: ConceptMap, other: ConceptMap) -> bool:
        """Whether the masks of each concept have an intersection over union of at least 0.5."""
        return all(_is_close(one, other, concept) for concept in {*one.masks, *other.masks})

    def alpha(self, units: Iterable[Sequence[ConceptMap]]) -> float | None:
        """For nominal values of pixels, each image with the same weight: the distance of two answers is the share of different pixels."""
        shared = list(units)
        if len(shared) < 2:
            return None
        answers = observed = 0.0
        shares: defaultdict[str, float] = defaultdict(float)
        for unit in shared:
            pixels = max(1, *(one.height_px * one.width_px for one in unit))
            observed += (
                2 * sum(_different(one, other) for one, other in combinations(unit, 2)) / (len(unit) - 1) / pixels
            )
            answers += len(unit)
            for one in unit:
                shares[""] += 1 - area(one.labelled) / pixels
                for concept, edges in one.masks.items():
                    shares[concept] += area(edges) / pixels
        chance = 1 - sum((share / answers) ** 2 for share in shares.values())
        return 1 - observed / answers / chance if chance > 1e-12 else 1.0

    def parts(self, value: ConceptMap) -> Mapping[str, ConceptMap]:
        return {
            concept: ConceptMap(value.height_px, value.width_px, {concept: edges}, edges)
            for concept, edges in sorted(value.masks.items())
        }

    def count_objects(self, value: ConceptMap) -> int:
        return len(value.masks)

    def count_matched(self, one: ConceptMap, other: ConceptMap) -> int:
        """Returns the number of concepts whose masks have an intersection over union of at least 0.5."""
        return sum(_is_close(one, other, concept) for concept in one.masks.keys() & other.masks.keys())


def _masks(maps: Sequence[ConceptMap], concept: str) -> list[Edges]:
    return [one.masks[concept] for one in maps if concept in one.masks]


def _annotations(answers: Sequence[Submission], concept: str) -> list[Annotation]:
    return [one for answer in answers for one in answer.annotations if one.concept == concept]


def _annotation(concept: str, edges: Edges, frame: ConceptMap, drawn: Sequence[Annotation]) -> Annotation:
    """Returns a mask with the attributes that most of the annotators of the concept state."""
    annotation = Annotation(concept=concept, mask=mask_runs.mask_of(edges, frame.height_px, frame.width_px))
    add_attributes(annotation, drawn)
    return annotation


def _opinions(answers: Sequence[Submission], concept: str) -> list[Opinion]:
    stated = [
        Opinion(annotator=answer.annotator, concept=concept, annotation_index=index)
        for answer in answers
        for index, one in enumerate(answer.annotations)
        if one.concept == concept
    ]
    return sorted(stated, key=lambda opinion: opinion.annotator)


def _is_close(one: ConceptMap, other: ConceptMap, concept: str) -> bool:
    """Whether both answers, or none, contain the concept, with an intersection over union of at least 0.5."""
    if concept not in one.masks or concept not in other.masks:
        return concept not in one.masks and concept not in other.masks
    return mask_runs.iou(one.masks[concept], other.masks[concept]) >= SIMILARITY_MIN


def _is_near(masks: Sequence[Edges], decided: Edges) -> bool:
    """Whether one of the masks has an intersection over union of at least 0.5 with what the majority decided."""
    return any(mask_runs.iou(edges, decided) >= SIMILARITY_MIN for edges in masks)


def _different(one: ConceptMap, other: ConceptMap) -> int:
    """Returns the number of pixels with different concepts."""
    either = area(one.labelled) + area(other.labelled) - overlap(one.labelled, other.labelled)
    return either - sum(
        overlap(edges, other.masks[concept]) for concept, edges in one.masks.items() if concept in other.masks
    )
