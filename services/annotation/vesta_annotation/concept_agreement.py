"""Agreement of annotators on the objects or image labels of each concept. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from vesta_contracts.annotation.v1 import ConceptAgreement

from vesta_annotation.task_types import AnnotationTask

T = TypeVar("T")

COMPARISONS_MAX = 1_000_000
"""The number of comparisons from which agreement by concept is estimated: those of a million tasks would take minutes."""
Pair = tuple[Any, Any]
"""Two values that a task type compares."""


class Parts:
    """The parts of answers about each concept, computed once for each answer. Answers are distinguished by identity."""

    def __init__(self, task_type: AnnotationTask[Any]) -> None:
        self.task_type = task_type
        self._parts: dict[int, tuple[Any, Mapping[str, Any]]] = {}

    def __call__(self, value: Any) -> Mapping[str, Any]:
        """Returns the part of an answer about each concept that it states."""
        if id(value) not in self._parts:
            self._parts[id(value)] = value, self.task_type.parts(value)
        return self._parts[id(value)][1]


def agreement_by_concept(
    units: Sequence[Sequence[Any]], stated: Iterable[Any], compared: Sequence[Pair], parts_of: Parts
) -> list[ConceptAgreement]:
    """Returns the agreement on each concept, sorted by concept; none if the task type does not measure it by concept.

    Args:
        units: the answers to each task from which alpha is computed, at least two per task.
        stated: the answers whose objects are counted.
        compared: the pairs of answers whose objects are matched for F1.
    """
    task_type = parts_of.task_type
    counts = {concept: 0 for pair in compared for value in pair for concept in parts_of(value)}
    for value in stated:
        for concept, part in parts_of(value).items():
            counts[concept] = counts.get(concept, 0) + task_type.count_objects(part)
    parts = [[parts_of(value) for value in unit] for unit in _some(units, len(counts))]
    compared_parts = [(parts_of(one), parts_of(other)) for one, other in _some(compared, len(counts))]
    nothing = task_type.value(())
    return [
        ConceptAgreement(
            concept=concept,
            object_count=count,
            alpha=task_type.alpha([part.get(concept, nothing) for part in unit] for unit in parts),
            f1=matched_f1(
                [(one.get(concept, nothing), other.get(concept, nothing)) for one, other in compared_parts], task_type
            ),
        )
        for concept, count in sorted(counts.items())
    ]


def _some(measured: Sequence[T], concept_count: int) -> Sequence[T]:
    """Returns evenly spaced ones of many, because each is compared for each concept."""
    return measured[:: -(-len(measured) * concept_count // COMPARISONS_MAX) or 1]


def matched_f1(pairs: Iterable[Pair], task_type: AnnotationTask[Any]) -> float | None:
    """Returns the harmonic mean of precision and recall of matched objects over all pairs of answers; None without objects."""
    matched = objects = 0
    for one, other in pairs:
        matched += task_type.count_matched(one, other)
        objects += task_type.count_objects(one) + task_type.count_objects(other)
    return 2 * matched / objects if objects else None
