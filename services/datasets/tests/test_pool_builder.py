"""The probabilities of a selection while the scores of a new model version arrive one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vesta_common.messages import copy_of
from vesta_contracts.common.v1 import ConceptScore, Prediction
from vesta_contracts.datasets.v1 import SelectionStrategy
from vesta_datasets.selection.candidates import Candidates, PoolRow
from vesta_datasets.selection.pool_builder import choose, uncertainty
from vesta_datasets.task_types.classification import Classification, distribution_uncertainty
from vesta_datasets.task_types.dataset_task import DatasetTask
from vesta_datasets.task_types.multi_label import MultiLabel, centred_on_thresholds, centred_uncertainty

CLASSIFICATION, MULTI_LABEL = Classification(), MultiLabel()


def of_several(**scored: tuple[float, float]) -> Prediction:
    """Returns a multi-label prediction: score and threshold by concept."""
    told = [
        ConceptScore(concept=concept, score=score, threshold=threshold, predicted=score >= threshold)
        for concept, (score, threshold) in scored.items()
    ]
    return Prediction(model_version="new", scores=sorted(told, key=lambda one: -one.score))


def a_row(version: str = "", **scores: float) -> PoolRow:
    told = [ConceptScore(concept=concept, score=score) for concept, score in scores.items()]
    return PoolRow("item", False, Prediction(model_version=version, scores=told) if version else None)


@pytest.mark.parametrize(
    ("rows", "task", "expected"),
    [
        ([], CLASSIFICATION, None),
        ([a_row()], CLASSIFICATION, None),
        ([a_row("new")], CLASSIFICATION, None),
        # One row has scores of the newest model, many have scores of the previous one: all are used.
        (
            [a_row("old", a=0.9, b=0.1), a_row("old", a=0.2, b=0.8), a_row("new", a=0.4, b=0.6), a_row()],
            CLASSIFICATION,
            [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.5, 0.5]],
        ),
        # The newest model has one additional concept, and lacks one of the previous model.
        (
            [a_row("old", a=0.3, b=0.1, gone=0.6), a_row("new", a=0.2, b=0.2, c=0.6), a_row("old", gone=1.0)],
            CLASSIFICATION,
            [[0.75, 0.25, 0.0], [0.2, 0.2, 0.6], [1 / 3, 1 / 3, 1 / 3]],
        ),
        # Multi-label: missing scores are undecided.
        ([a_row("old", a=0.9), a_row("new", a=0.2, b=0.1), a_row()], MULTI_LABEL, [[0.9, 0.5], [0.2, 0.1], [0.5, 0.5]]),
        # The newest model has no scores yet.
        ([a_row("old", a=0.9, b=0.1), a_row()], CLASSIFICATION, [[0.9, 0.1], [0.5, 0.5]]),
    ],
)
def test_each_row_uses_its_own_scores(
    rows: list[PoolRow], task: DatasetTask, expected: list[list[float]] | None
) -> None:
    found = uncertainty(rows, "new", task)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        measure = distribution_uncertainty if task is CLASSIFICATION else centred_uncertainty
        of_expected = measure(np.array(expected, np.float32))
        np.testing.assert_allclose(found.margin, of_expected.margin, atol=1e-6)
        np.testing.assert_allclose(found.entropy, of_expected.entropy, atol=1e-6)


def test_several_labels_are_selected_by_their_distance_to_the_threshold_and_suggested_as_predicted() -> None:
    # With a threshold of 0.5, the first would be certain and the second undecided, and `b` would be predicted for the second only.
    scores = {
        "at": of_several(a=(0.06, 0.05), b=(0.0, 0.9)),
        "far": of_several(a=(0.0, 0.05), b=(0.5, 0.9)),
        "sure": of_several(a=(0.9, 0.05), b=(0.1, 0.9)),
    }
    rows = [PoolRow(name, False, found) for name, found in scores.items()]
    candidates = Candidates(rows, np.eye(3, dtype=np.float32), np.ones(3, np.bool_), 3)
    chosen = choose(
        candidates,
        strategy=SelectionStrategy.SELECTION_STRATEGY_MARGIN,
        count=3,
        control_share=0.0,
        seed=1,
        scored_by="new",
        task=MULTI_LABEL,
        whole=copy_of,
    )

    assert [one.item for one in chosen.items] == ["at", "far", "sure"]
    assert [[label.concept for label in one.pre_annotations] for one in chosen.items] == [["a"], [], ["a"]]
    np.testing.assert_allclose([one.score for one in chosen.items], [1 - 0.01 / 0.95, 5 / 9, 1 / 9], atol=1e-3)


def test_a_single_label_dataset_gets_the_best_concept_as_suggestion_even_if_it_is_not_predicted() -> None:
    row = a_row("new", a=0.4, b=0.35)
    candidates = Candidates([row], np.eye(1, dtype=np.float32), np.ones(1, np.bool_), 1)
    (chosen,) = choose(
        candidates,
        strategy=SelectionStrategy.SELECTION_STRATEGY_UNSPECIFIED,
        count=1,
        control_share=0.0,
        seed=1,
        scored_by="new",
        task=CLASSIFICATION,
        whole=copy_of,
    ).items
    assert [label.concept for label in chosen.pre_annotations] == ["a"]


@given(st.floats(0, 1, width=32), st.floats(0, 1, width=32))
def test_centred_scores_keep_their_order_and_stay_on_the_same_side_of_the_threshold(
    score: float, threshold: float
) -> None:
    steps = np.array([[0.0, score, 1.0]], np.float32)
    found = centred_on_thresholds(steps, np.full_like(steps, threshold))[0]
    assert (np.diff(found) >= 0).all()
    assert 0 <= found.min() <= found.max() <= 1
    assert found[1] >= 0.5 if score >= threshold else found[1] <= 0.5
