"""What a multi-label model predicts is decided once: training, serving, selection, pre-annotations and live accuracy agree."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from vesta_common.media.model_input import UNREAD
from vesta_common.media.model_signatures import PROBABILITIES
from vesta_conductor.reconciliation.control_arm import ControlAnswer, live_accuracy
from vesta_conductor.task_types import TASK_TYPES as LOOP_TASKS
from vesta_contracts.annotation.v1 import Task
from vesta_contracts.common.v1 import Annotation, ImageLabel, Prediction, TaskType
from vesta_contracts.datasets.v1 import SelectedItem, SelectionStrategy
from vesta_contracts.serving.v1 import UncertaintyPolicy
from vesta_datasets.selection.candidates import Candidates, PoolRow
from vesta_datasets.selection.pool_builder import choose
from vesta_datasets.task_types import TASK_TYPES as DATASET_TASKS
from vesta_serving.task_types import TASK_TYPES as SERVING_TASKS
from vesta_serving.task_types import Policy, Vocabulary
from vesta_training.heads.linear_head import decide
from vesta_training.recipes.choices import Task as RecipeTask

CONCEPTS = ("crack", "dent", "rust")
MODEL = "projects/acme/models/parts"
SHARES = st.floats(0, 1, width=32)

Shares = NDArray[np.float32]


def answers(probabilities: Shares, thresholds: tuple[float, ...], overrides: dict[str, float]) -> list[Prediction]:
    """What a deployment answers, an image a row of `(N, 3)`."""
    vocabulary = Vocabulary(f"{MODEL}/versions/1", CONCEPTS, thresholds)
    policy = Policy.of(UncertaintyPolicy(thresholds=overrides))
    task = SERVING_TASKS[TaskType.TASK_TYPE_MULTI_LABEL]
    return [task.prediction({PROBABILITIES: row}, vocabulary, policy, UNREAD) for row in probabilities]


def selected(said: list[Prediction]) -> list[SelectedItem]:
    """The items in the order in which they are asked about, with their pre-annotations."""
    rows = [PoolRow(str(place), False, scores) for place, scores in enumerate(said)]
    count = len(rows)
    candidates = Candidates(rows, np.eye(count, dtype=np.float32), np.ones(count, np.bool_), count)
    return list(
        choose(
            candidates,
            strategy=SelectionStrategy.SELECTION_STRATEGY_MARGIN,
            count=count,
            control_share=0.0,
            seed=1,
            scored_by=f"{MODEL}/versions/1",
            task=DATASET_TASKS[TaskType.TASK_TYPE_MULTI_LABEL],
            whole=lambda prediction: prediction,
        ).items
    )


def predicted(scores: Prediction) -> set[str]:
    """The labels of Predict's answer."""
    return {label.concept for label in scores.scores if label.predicted}


@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 12), st.just(len(CONCEPTS))), elements=SHARES),
    st.tuples(SHARES, SHARES, SHARES),
    st.dictionaries(st.sampled_from(CONCEPTS), SHARES),
)
def test_pre_annotations_and_selection_order_follow_the_predictions(
    probabilities: Shares, thresholds: tuple[float, ...], overrides: dict[str, float]
) -> None:
    said = answers(probabilities, thresholds, overrides)
    chosen = selected(said)

    for one in chosen:
        assert {label.concept for label in one.pre_annotations} == predicted(said[int(one.item)])
    margins = [said[int(one.item)].margin for one in chosen]
    np.testing.assert_allclose(margins, sorted(margins), atol=1e-5)
    np.testing.assert_allclose([one.score for one in chosen], [1 - margin for margin in margins], atol=1e-5)
    if not overrides:
        evaluated = decide(RecipeTask.MULTILABEL, probabilities, thresholds)
        named = [{concept for concept, yes in zip(CONCEPTS, row, strict=True) if yes} for row in evaluated]
        assert named == [predicted(scores) for scores in said]


def test_live_accuracy_uses_the_deployed_thresholds() -> None:
    probabilities = np.array([[0.1, 0.6, 0.0], [0.0, 0.85, 0.2], [0.3, 0.0, 0.0], [0.02, 0.1, 0.3]], np.float32)
    said = answers(probabilities, (0.05, 0.8, 0.5), {"rust": 0.15})
    truth = [{"crack"}, {"dent", "rust"}, {"crack"}, {"rust"}]  # the deployment is right about all, one half about none
    half = [{concept for concept, one in zip(CONCEPTS, row, strict=True) if one >= 0.5} for row in probabilities]
    assert all(guess != right for guess, right in zip(half, truth, strict=True))

    tasks = [
        Task(
            name=one.item,
            control=True,
            pre_annotations=one.pre_annotations,
            model_version=one.model_version,
            accepted=[Annotation(concept=concept, image_label=ImageLabel()) for concept in truth[int(one.item)]],
        )
        for one in selected(said)
    ]
    compared = [ControlAnswer.find(task, LOOP_TASKS[TaskType.TASK_TYPE_MULTI_LABEL]) for task in tasks]
    live = live_accuracy([answer for answer in compared if answer is not None], model=MODEL)
    assert live is not None
    assert (live.estimate.value, live.answer_count) == (1.0, 4)
