"""What the task types whose answers are sets of objects have in common: objects are matched, and the majority decides each of them."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from vesta_contracts.annotation.v1 import Disagreement, Opinion, Submission
from vesta_contracts.common.v1 import Annotation

from vesta_annotation.alpha import distance_alpha
from vesta_annotation.task_types.annotation_task import OBJECT_TASKS_MAX, AnnotationTask, Consensus
from vesta_annotation.task_types.matching import Objects, Shapes, match, near_pairs

CHANCE_PAIRS_MAX = 300
"""The number of random pairs of answers whose objects are matched to estimate agreement by chance."""


class ObjectTask(AnnotationTask[Objects]):
    """Objects, each with a concept and a shape. No object is an answer too: nothing is in the image."""

    tasks_measured_max = OBJECT_TASKS_MAX

    @abstractmethod
    def shapes(self, annotations: Sequence[Annotation]) -> Shapes:
        """Returns the shapes of annotations, prepared for comparison."""

    @abstractmethod
    def merged_shape(self, annotations: Sequence[Annotation]) -> Annotation:
        """Returns an annotation with only the shape that several annotators agree on, of at least one."""

    def is_shape_disputed(self, annotations: Sequence[Annotation]) -> bool:  # noqa: ARG002
        """Whether no majority decides on a part of the shape of one object."""
        return False

    def value(self, annotations: Sequence[Annotation]) -> Objects:
        return Objects(annotations, self.shapes(annotations))

    def consensus(self, answers: Sequence[Submission]) -> Consensus:
        """Keeps the objects that more than half of the annotators annotated with one concept, and drops those of fewer than half, unless
        half of them drew an object nearby: then they see it differently. If none is kept, although every annotator drew something, all are
        disputed: that nothing is in the image is nobody's answer.
        """
        accepted, disagreements = [], []
        agreeing = set(range(len(answers)))
        seen_objects = self._seen_objects([answer.annotations for answer in answers])
        kept = [self._is_kept(seen, len(answers)) for seen in seen_objects]
        nobody_is_right = not any(kept) and all(answer.annotations for answer in answers)
        for seen, is_accepted in zip(seen_objects, kept, strict=True):
            if is_accepted:
                merged = self._merged(seen)
                accepted.append(merged)
                unanimous = {index for index, one in seen.chosen.items() if one.attributes == merged.attributes}
            else:
                unanimous = set(range(len(answers))) - seen.annotations.keys()
            agreeing &= unanimous
            if not is_accepted or len(unanimous) < len(answers):
                is_seen = 2 * len(seen.annotations) >= len(answers)
                is_disputed = not is_accepted and (is_seen or nobody_is_right)
                suggestion = self._merged(seen) if is_disputed else None
                disagreements.append(
                    Disagreement(disputed=is_disputed, suggestion=suggestion, opinions=seen.opinions(answers))
                )
        disagreements.sort(key=lambda disagreement: not disagreement.disputed)
        return Consensus(accepted, [answers[index].annotator for index in sorted(agreeing)], disagreements)

    def agree(self, one: Objects, other: Objects) -> bool:
        """Whether each object has a matched object with the same concept and attributes."""
        pairs = match(one, other, same_concept=True)
        return len(pairs) == len(one) == len(other) and all(
            one.annotations[a].attributes == other.annotations[b].attributes for a, b in pairs
        )

    def alpha(self, units: Iterable[Sequence[Objects]]) -> float | None:
        """With the distance of `distance`."""
        return distance_alpha(units, distance, lambda value: not len(value), CHANCE_PAIRS_MAX)

    def parts(self, value: Objects) -> Mapping[str, Objects]:
        concepts = sorted({annotation.concept for annotation in value.annotations})
        return {
            concept: self.value([one for one in value.annotations if one.concept == concept]) for concept in concepts
        }

    def count_objects(self, value: Objects) -> int:
        return len(value)

    def count_matched(self, one: Objects, other: Objects) -> int:
        return len(match(one, other, same_concept=True))

    def _is_kept(self, seen: "_SeenObject", answer_count: int) -> bool:
        """Whether more than half of the annotators agree on the object, and on all of its parts."""
        chosen = list(seen.chosen.values())
        is_clear = seen.is_one and not attributes_disputed(chosen) and not self.is_shape_disputed(chosen)
        return is_clear and 2 * len(chosen) > answer_count

    def _merged(self, seen: "_SeenObject") -> Annotation:
        """Returns the object with the most frequent concept, the merged shape of those who chose it, and the attributes of most of them."""
        chosen = list(seen.chosen.values())
        merged = self.merged_shape(chosen)
        merged.concept = seen.concept
        add_attributes(merged, chosen)
        return merged

    def _seen_objects(self, answers: Sequence[Sequence[Annotation]]) -> list["_SeenObject"]:
        """Groups the annotations of several answers by object, whatever their concepts.

        The answer that is most similar to the others is taken first, so that the groups hardly depend on the order of the answers. The
        others are matched with the first annotation of each group.
        """
        found: list[_SeenObject] = []
        values = [self.value(answer) for answer in answers]
        for index in _most_central_first(values):
            own = values[index]
            firsts = self.value([seen.first for seen in found])
            places = {b: a for a, b in match(firsts, own, same_concept=False)}
            for number, annotation in enumerate(own.annotations):
                if number in places:
                    seen = found[places[number]]
                else:
                    found.append(seen := _SeenObject({}, {}))
                seen.annotations[index], seen.numbers[index] = annotation, number
        return self._with_split_joined(found, len(answers))

    def _with_split_joined(self, found: Sequence["_SeenObject"], answer_count: int) -> list["_SeenObject"]:
        """Joins objects of fewer than half of the annotators that are near one another, if the annotators together are half of all."""
        few = [seen for seen in found if 2 * len(seen.annotations) < answer_count]
        groups = {place: [place] for place in range(len(few))}
        for one, other in near_pairs(self.value([seen.first for seen in few])):
            joined = [few[place] for place in (*groups[one], *groups[other])]
            annotators = [index for seen in joined for index in seen.annotations]
            if groups[one] is not groups[other] and len(set(annotators)) == len(annotators):
                groups[one] += groups[other]
                groups |= dict.fromkeys(groups[one], groups[one])
        split = list[_SeenObject]()
        for group in {id(group): group for group in groups.values()}.values():
            seen = _SeenObject({}, {}, is_one=False)
            for place in group:
                seen.annotations.update(few[place].annotations)
                seen.numbers.update(few[place].numbers)
            if len(group) > 1 and 2 * len(seen.annotations) >= answer_count:
                split.append(seen)
        taken = {index for seen in split for index in seen.numbers.items()}
        return [*(seen for seen in found if taken.isdisjoint(seen.numbers.items())), *split]


@dataclass(frozen=True)
class _SeenObject:
    """The annotations of one object, at most one per annotator.

    Attributes:
        annotations: by the index of the answer; the first one is that which the others were matched with.
        numbers: the index of each annotation in its answer.
        is_one: whether all annotations match; false if they are only near one another.
    """

    annotations: dict[int, Annotation]
    numbers: dict[int, int]
    is_one: bool = True

    @property
    def first(self) -> Annotation:
        return next(iter(self.annotations.values()))

    @cached_property
    def concept(self) -> str:
        """The concept that most annotators chose; the first in alphabetical order if several did."""
        counts = Counter(one.concept for one in self.annotations.values())
        return min(counts, key=lambda concept: (-counts[concept], concept))

    @property
    def chosen(self) -> dict[int, Annotation]:
        """The annotations with the most frequent concept, in the order of the answers."""
        return {index: one for index, one in sorted(self.annotations.items()) if one.concept == self.concept}

    def opinions(self, answers: Sequence[Submission]) -> list[Opinion]:
        """Returns what each annotator stated who annotated the object."""
        stated = [
            Opinion(annotator=answers[index].annotator, concept=one.concept, annotation_index=self.numbers[index])
            for index, one in self.annotations.items()
        ]
        return sorted(stated, key=lambda opinion: opinion.annotator)


def distance(one: Objects, other: Objects) -> float:
    """Returns 1 minus the summed similarity of matched objects of the same concept, by the number of all objects; 0 without objects."""
    if not len(one) or not len(other):
        return float(len(one) != len(other))
    pairs = match(one, other, same_concept=True)
    return 1 - sum(pairs.values()) / (len(one) + len(other) - len(pairs))


def add_attributes(merged: Annotation, annotations: Sequence[Annotation]) -> None:
    """Adds the attributes that more than half of the annotations state."""
    stated = Counter(attribute for one in annotations for attribute in one.attributes.items())
    for (name, value), count in sorted(stated.items()):
        if 2 * count > len(annotations):
            merged.attributes[name] = value


def attributes_disputed(annotations: Sequence[Annotation]) -> bool:
    """Whether at least half of the annotations of one object state an attribute, but none of its values has a majority."""
    stated = Counter(name for one in annotations for name in one.attributes)
    values = Counter(attribute for one in annotations for attribute in one.attributes.items())
    decided = {name for (name, _), count in values.items() if 2 * count > len(annotations)}
    return any(2 * count >= len(annotations) and name not in decided for name, count in stated.items())


def _most_central_first(answers: Sequence[Objects]) -> list[int]:
    """Returns the indices of the answers, by the sum of their similarities with all others, the largest first."""
    sums = [0.0] * len(answers)
    for a, one in enumerate(answers):
        for b, other in enumerate(answers[:a]):
            similarity = sum(match(one, other, same_concept=False).values())
            sums[a] += similarity
            sums[b] += similarity
    return sorted(range(len(answers)), key=lambda index: -sums[index])
