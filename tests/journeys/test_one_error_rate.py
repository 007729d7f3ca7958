"""The error rate of accepted predictions is one number: the evidence of training, the answers of serving, and the control arm agree."""

from dataclasses import dataclass

import numpy as np
import pytest
from vesta_common.media.model_input import UNREAD, InputFormat, place
from vesta_common.media.model_signatures import OBJECTS, OVERLAP, PRESENCE, PROBABILITIES, SEGMENTATION
from vesta_common.risk_control import level_of, pack, unpack
from vesta_conductor.reconciliation.control_arm import ControlAnswer, accepted_errors
from vesta_conductor.task_types import TASK_TYPES as LOOP_TASKS
from vesta_contracts.annotation.v1 import Task
from vesta_contracts.common.v1 import Annotation, ImageLabel, Prediction, TaskType
from vesta_contracts.datasets.v1 import SelectedItem, SelectionStrategy
from vesta_contracts.serving.v1 import UncertaintyPolicy
from vesta_contracts.training.v1 import ModelVersion
from vesta_datasets.selection.candidates import Candidates, PoolRow
from vesta_datasets.selection.pool_builder import choose
from vesta_datasets.task_types import TASK_TYPES as DATASET_TASKS
from vesta_serving.task_types import TASK_TYPES as SERVING_TASKS
from vesta_serving.task_types import Policy, Vocabulary
from vesta_training.example import Split
from vesta_training.heads.linear_head import Head
from vesta_training.recipes.choices import Task as RecipeTask
from vesta_training.tasks.classification.held_out import held_out
from vesta_training.tasks.detection.detector import objects_of, predictions_of
from vesta_training.tasks.detection.examples import BoxedExample
from vesta_training.tasks.detection.held_out import held_out_predictions as held_out_objects
from vesta_training.tasks.semantic_segmentation.examples import MaskedExample
from vesta_training.tasks.semantic_segmentation.held_out import held_out_predictions as held_out_maps
from vesta_training.tasks.semantic_segmentation.segmenter import Output, compared
from vesta_training.tasks.semantic_segmentation.segmenter import Vocabulary as SegmenterVocabulary

CONCEPTS = ("crack", "dent", "rust")
MODEL = "projects/acme/models/parts"
ITEMS = 600
LIMIT = 0.02


@dataclass(frozen=True)
class Model:
    """A head, its version with evidence, and items with their true labels that it predicts."""

    head: Head
    version: ModelVersion
    embeddings: np.ndarray[tuple[int, int], np.dtype[np.float32]]
    labels: list[tuple[str, ...]]
    task_type: TaskType.ValueType

    def answers(self, policy: UncertaintyPolicy) -> list[Prediction]:
        vocabulary = Vocabulary(self.version.name, CONCEPTS, self.head.thresholds)
        task, applied = SERVING_TASKS[self.task_type], Policy.of(policy, self.version)
        return [
            task.prediction({PROBABILITIES: row}, vocabulary, applied, UNREAD)
            for row in self.head.probabilities(self.embeddings)
        ]


@pytest.fixture(params=[TaskType.TASK_TYPE_CLASSIFICATION, TaskType.TASK_TYPE_MULTI_LABEL])
def model(request: pytest.FixtureRequest) -> Model:
    """A model that is mostly right; some items have none of the concepts."""
    generator = np.random.default_rng(7)
    several = request.param == TaskType.TASK_TYPE_MULTI_LABEL
    has = generator.random((ITEMS, 3)) < 0.3
    if not several:
        has = np.eye(4, dtype=np.bool_)[generator.choice(4, ITEMS, p=[0.32, 0.33, 0.33, 0.02])][:, :3]
    embeddings = (6.0 * has - 3.0 + generator.standard_normal((ITEMS, 3)) * 1.6).astype(np.float32)
    head = Head(
        task=RecipeTask.MULTILABEL if several else RecipeTask.CLASSIFICATION,
        concepts=CONCEPTS,
        weights=np.eye(3, dtype=np.float32),
        bias=np.zeros(3, np.float32),
        thresholds=(0.4, 0.5, 0.6) if several else (),
    )
    labels = [tuple(concept for concept, yes in zip(CONCEPTS, row, strict=True) if yes) for row in has]
    version = ModelVersion(
        name=f"{MODEL}/versions/1",
        concepts=CONCEPTS,
        thresholds=head.thresholds,
        held_out=pack(held_out(head, embeddings, labels), CONCEPTS, drawn_at_random=True),
    )
    return Model(head, version, embeddings, labels, request.param)


def test_serving_predicts_the_same_concepts_with_the_same_margin_as_the_evidence(model: Model) -> None:
    policy = UncertaintyPolicy(score_threshold=0.0)
    for said, known in zip(model.answers(policy), held_out(model.head, model.embeddings, model.labels), strict=True):
        assert {one.concept for one in said.scores if one.predicted} == set(known.concepts)
        assert said.margin == np.float32(known.margin)
        assert level_of(said.margin) == level_of(known.margin)


def test_the_control_arm_counts_exactly_the_errors_among_the_accepted_predictions(model: Model) -> None:
    policy = UncertaintyPolicy(error_rate_max=LIMIT)
    said = model.answers(policy)
    certain = [place for place, one in enumerate(said) if not one.uncertain]
    wrong = [
        place
        for place in certain
        if {one.concept for one in said[place].scores if one.predicted} != set(model.labels[place])
    ]
    answers = [ControlAnswer.find(_answered(model, one), LOOP_TASKS[model.task_type]) for one in _selected(model, said)]
    errors = accepted_errors(
        [one for one in answers if one is not None], model=MODEL, policy=policy, version=model.version
    )
    assert errors is not None
    assert 100 < len(certain) < ITEMS
    assert (errors.answer_count, errors.control_answer_count) == (len(certain), ITEMS)
    assert errors.error_rate.value == len(wrong) / len(certain) <= LIMIT
    assert not errors.exceeded


@pytest.mark.parametrize("size", [(100, 100), (100, 40), (30, 90)])
def test_serving_finds_the_same_objects_with_the_same_margin_as_the_evidence(size: tuple[int, int]) -> None:
    """Also where objects are found beside the image, in the border of the model's input."""
    generator = np.random.default_rng(7)
    declared, thresholds = InputFormat(100, 100, "letterbox"), (0.4, 0.5, 0.6)
    placement = place(declared, *size)
    policy = Policy.of(UncertaintyPolicy(margin_certain=0.2))
    task, vocabulary = SERVING_TASKS[TaskType.TASK_TYPE_DETECTION], Vocabulary("v", CONCEPTS, thresholds)
    examples, found, said = [], [], []
    for number in range(50):
        rows = _some_objects(generator, generator.integers(0, 4))
        example = BoxedExample(
            f"{number}",
            f"{number:03}",
            (),
            Split.TEST,
            boxes=np.zeros((0, 4), np.float32),
            width_px=size[0],
            height_px=size[1],
        )
        examples.append(example)
        found.append(objects_of(rows, example, declared))
        said.append(task.prediction({OBJECTS: rows}, vocabulary, policy, placement))
    evidence = held_out_objects(predictions_of(examples, found, CONCEPTS, thresholds), examples, drawn_at_random=True)
    assert evidence is not None
    for answer, known, is_correct in zip(said, unpack(evidence, CONCEPTS), evidence.correct, strict=True):
        predicted = {one.concept for one in answer.scores if one.predicted}
        assert (predicted, level_of(answer.margin)) == (set(known.concepts), level_of(known.margin))
        assert is_correct == (not predicted)


@pytest.mark.parametrize("size", [(100, 100), (100, 40), (30, 90)])
def test_serving_predicts_the_same_map_with_the_same_margin_as_the_evidence(size: tuple[int, int]) -> None:
    generator = np.random.default_rng(7)
    declared, thresholds = InputFormat(40, 40, "letterbox"), (0.4, 0.5, 0.6)
    placement = place(declared, *size)
    policy = Policy.of(UncertaintyPolicy(margin_certain=0.2))
    task, vocabulary = SERVING_TASKS[TaskType.TASK_TYPE_SEMANTIC_SEGMENTATION], Vocabulary("v", CONCEPTS, thresholds)
    examples, outputs, said = [], [], []
    for number in range(30):
        blocks = generator.integers(0, 4, (4, 4), np.uint8) * (generator.random((4, 4)) < 0.6).astype(np.uint8)
        found = np.kron(blocks, np.ones((10, 10), np.uint8))
        presence, overlap = generator.random((2, 3)).astype(np.float32)
        examples.append(MaskedExample(f"{number}", f"{number:03}", (), Split.TEST, width_px=size[0], height_px=size[1]))
        outputs.append(Output(found, presence, overlap))
        of_image = {SEGMENTATION: found, PRESENCE: presence, OVERLAP: overlap}
        said.append(task.prediction(of_image, vocabulary, policy, placement))
    evidence = held_out_maps(
        compared(examples, outputs, SegmenterVocabulary(CONCEPTS, thresholds), CONCEPTS, declared),
        examples,
        drawn_at_random=True,
    )
    assert evidence is not None
    for answer, known, is_correct in zip(said, unpack(evidence, CONCEPTS), evidence.correct, strict=True):
        predicted = {one.concept for one in answer.scores if one.predicted}
        assert predicted == set(answer.segmentation_map.concepts)
        assert (predicted, level_of(answer.margin)) == (set(known.concepts), level_of(known.margin))
        assert is_correct == (not predicted)


def _some_objects(generator: np.random.Generator, count: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Rows `(6, 6)` of a detector's output, padded."""
    rows = np.zeros((6, 6), np.float32)
    low = generator.uniform(0, 90, (count, 2))
    rows[:count, :4] = np.concatenate([low, low + generator.uniform(1, 10, (count, 2))], axis=1)
    rows[:count, 4] = -np.sort(-generator.random(count))
    rows[:count, 5] = generator.integers(0, 3, count)
    return rows


def _selected(model: Model, said: list[Prediction]) -> list[SelectedItem]:
    rows = [PoolRow(str(place), False, one) for place, one in enumerate(said)]
    return list(
        choose(
            Candidates(rows, np.eye(ITEMS, dtype=np.float32), np.ones(ITEMS, np.bool_), ITEMS),
            strategy=SelectionStrategy.SELECTION_STRATEGY_RANDOM,
            count=ITEMS,
            control_share=1.0,
            seed=1,
            scored_by=model.version.name,
            task=DATASET_TASKS[model.task_type],
            whole=lambda prediction: prediction,
        ).items
    )


def _answered(model: Model, selected: SelectedItem) -> Task:
    """The task of a selected item with its true labels as the answer. An answer without labels has "none of the concepts"."""
    return Task(
        name=selected.item,
        control=selected.control,
        pre_annotations=selected.pre_annotations,
        model_version=selected.model_version,
        prediction_certain=selected.prediction_certain,
        accepted=[
            Annotation(concept=concept, image_label=ImageLabel()) for concept in model.labels[int(selected.item)]
        ],
    )
