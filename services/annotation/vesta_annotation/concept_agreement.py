"""Agreement of annotators on the objects of each concept. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any

from vesta_contracts.annotation.v1 import ConceptAgreement

from vesta_annotation.task_types import AnnotationTask

Pair = tuple[Any, Any]
"""Two values that a task type compares."""


def agreement_by_concept(
    units: Sequence[Sequence[Any]], stated: Iterable[Any], compared: Sequence[Pair], task_type: AnnotationTask[Any]
) -> list[ConceptAgreement]:
    """Returns the agreement on each concept, sorted by concept; none if the task type does not measure it by concept.

    Args:
        units: the answers to each task from which alpha is computed, at least two per task.
        stated: the answers whose objects are counted.
        compared: the pairs of answers whose objects are matched for F1.
    """
    counts = {concept: 0 for pair in compared for value in pair for concept in task_type.parts(value)}
    for value in stated:
        for concept, part in task_type.parts(value).items():
            counts[concept] = counts.get(concept, 0) + task_type.count_objects(part)
    parts = [[task_type.parts(value) for value in unit] for unit in units]
    compared_parts = [(task_type.parts(one), task_type.parts(other)) for one, other in compared]
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


def matched_f1(pairs: Iterable[Pair], task_type: AnnotationTask[Any]) -> float | None:
    """Returns the harmonic mean of precision and recall of matched objects over all pairs of answers; None without objects."""
    matched = objects = 0
    for one, other in pairs:
        matched += task_type.count_matched(one, other)
        objects += task_type.count_objects(one) + task_type.count_objects(other)
    return 2 * matched / objects if objects else None
