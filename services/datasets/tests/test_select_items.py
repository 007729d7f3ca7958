"""Selection over gRPC: candidates, pre-annotations, the control arm, and concurrency."""

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
from datasets_builders import DIMENSION, Datasets, a_medium, refusal
from vesta_common.errors import (
    FailedPrecondition,
    ResourceExhausted,
)
from vesta_contracts.common.v1 import ConceptScore, Prediction, TaskType
from vesta_contracts.datasets.v1 import (
    SelectedItem,
    SelectionStrategy,
    SelectItemsRequest,
    Split,
)
from vesta_datasets.api.item_service import ItemService
from vesta_datasets.selection.candidates import Candidates
from vesta_datasets.store.pool import CandidatePool, PoolLimits


def test_selection_requires_embeddings_unless_it_is_random(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    datasets.add(dataset, *map(a_medium, range(10)), split=Split.SPLIT_TRAIN)
    request = SelectItemsRequest(parent=dataset, count=3)
    refusal(FailedPrecondition, lambda: datasets.items.SelectItems(request), "EMBEDDING_MISSING")
    request.strategy = SelectionStrategy.SELECTION_STRATEGY_RANDOM
    assert len(datasets.items.SelectItems(request).items) == 3


def test_while_items_get_new_embeddings_selection_compares_those_of_most_items(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    names = [one.name for one in datasets.add(dataset, *map(a_medium, range(6)), split=Split.SPLIT_TRAIN)]
    request = SelectItemsRequest(parent=dataset, count=6, strategy=SelectionStrategy.SELECTION_STRATEGY_K_CENTER)

    datasets.scored(dataset, names, space="old")
    selected = []
    for scored in (names[:2], names[2:4], names[4:]):
        datasets.scored(dataset, scored, generation=2, space="new")
        selected.append({one.item for one in datasets.items.SelectItems(request).items})

    assert selected == [set(names[2:]), set(names[:4]), set(names)]


def test_selection_skips_labelled_excluded_and_test_items_and_marks_its_control_arm(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    names = [one.name for one in datasets.add(dataset, *map(a_medium, range(30)), split=Split.SPLIT_TRAIN)]
    datasets.add(dataset, a_medium(99), split=Split.SPLIT_TEST)
    datasets.scored(dataset, names)
    datasets.annotate(dataset, names[0], "van")
    request = SelectItemsRequest(parent=dataset, count=100, excluded=[names[1]], control_share=0.5, seed=3)
    chosen = datasets.items.SelectItems(request)
    assert {one.item for one in chosen.items} == set(names[2:])
    assert chosen.pool_count == 28
    assert sum(one.control for one in chosen.items) == 14
    assert all(one.pre_annotations[0].concept == "van" and one.reason for one in chosen.items)
    assert datasets.items.SelectItems(request) == chosen


def test_the_predicted_labels_of_a_multi_label_item_are_those_of_its_prediction(datasets: Datasets) -> None:
    dataset = datasets.a_dataset(task_type=TaskType.TASK_TYPE_MULTI_LABEL)
    names = [one.name for one in datasets.add(dataset, *map(a_medium, range(2)), split=Split.SPLIT_TRAIN)]
    low, high = {"threshold": 0.1}, {"threshold": 0.9}
    both = [
        ConceptScore(concept="car", score=0.95, predicted=True, **high),
        ConceptScore(concept="van", score=0.2, predicted=True, **low),
    ]
    none = [ConceptScore(concept="car", score=0.8, **high), ConceptScore(concept="van", score=0.05, **low)]
    said = [Prediction(model_version="m", scores=scores) for scores in (both, none)]
    datasets.predicts(dataset, dict(zip(names, said, strict=True)))
    chosen = datasets.items.SelectItems(
        SelectItemsRequest(parent=dataset, count=2, strategy=SelectionStrategy.SELECTION_STRATEGY_MARGIN)
    ).items

    assert {one.item: [label.concept for label in one.pre_annotations] for one in chosen} == {
        names[0]: ["car", "van"],
        names[1]: [],
    }
    assert datasets.listed(dataset, "predicted = van") == datasets.listed(dataset, "predicted : car") == [names[0]]
    assert datasets.listed(dataset, "predicted != car") == [names[1]]


def test_selected_items_state_whether_their_prediction_is_certain(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    names = [one.name for one in datasets.add(dataset, *map(a_medium, range(3)), split=Split.SPLIT_TRAIN)]
    scores = [ConceptScore(concept="van", score=0.9), ConceptScore(concept="car", score=0.1)]
    uncertain, certain = (Prediction(model_version="m", scores=scores, uncertain=doubt) for doubt in (True, False))
    datasets.predicts(dataset, {names[0]: uncertain, names[1]: certain})
    chosen = datasets.items.SelectItems(SelectItemsRequest(parent=dataset, count=3)).items
    assert {one.item for one in chosen if one.prediction_certain} == {names[1]}


def test_the_predicted_label_of_a_single_label_item_is_the_best(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    (item,) = datasets.add(dataset, a_medium(1), split=Split.SPLIT_TRAIN)
    datasets.scored(dataset, [item.name])
    assert datasets.listed(dataset, "predicted = van") == [item.name]
    assert datasets.listed(dataset, "predicted = car") == []


def test_selection_from_a_pool_above_the_limits_reads_a_sample_of_each_kind(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    names = [one.name for one in datasets.add(dataset, *map(a_medium, range(9)), split=Split.SPLIT_TRAIN)]
    datasets.scored(dataset, names)
    datasets.annotate(dataset, names[0], "van")

    pool = CandidatePool(PoolLimits(free_max=3, held_max=1))

    def drawn(seed: int) -> Candidates:
        with datasets.store.postgres.transaction() as connection:
            return pool.read(connection, dataset, "space", names[1:3], seed)

    seen = [drawn(seed) for seed in range(40)]
    for candidates in seen:
        assert sorted(row.held for row in candidates.rows) == [False, False, False, True]
        assert (candidates.free_count, candidates.embeddings.shape) == (6, (4, DIMENSION))
        assert candidates.embedded.all()
        np.testing.assert_allclose(np.linalg.norm(candidates.embeddings, axis=1), 1.0, atol=1e-5)
    assert drawn(7).rows == seen[7].rows
    assert {row.name for candidates in seen for row in candidates.rows} == set(names)


def test_selections_run_one_after_another(datasets: Datasets) -> None:
    service = ItemService(datasets.store, datasets.objects, wait_max=timedelta(milliseconds=1))
    request = SelectItemsRequest(
        parent=datasets.a_dataset(), count=1, strategy=SelectionStrategy.SELECTION_STRATEGY_RANDOM
    )
    with service.selecting:
        refusal(ResourceExhausted, lambda: service.SelectItems(request, None), "SELECTION_BUSY")
    assert not service.SelectItems(request, None).items  # type: ignore[arg-type]


def test_items_of_the_test_split_are_drawn_at_random_without_pre_annotations(datasets: Datasets) -> None:
    dataset = datasets.a_dataset()
    names = [one.name for one in datasets.add(dataset, *map(a_medium, range(12)), split=Split.SPLIT_TEST)]
    datasets.add(dataset, a_medium(99), split=Split.SPLIT_TRAIN)
    datasets.scored(dataset, names)
    datasets.annotate(dataset, names[0], "van")
    request = SelectItemsRequest(
        parent=dataset, count=4, excluded=[names[0], names[1]], control_share=1, split=Split.SPLIT_TEST
    )
    drawn = datasets.items.SelectItems(request)
    assert len({one.item for one in drawn.items} & set(names[2:])) == 4
    assert drawn.pool_count == 10
    assert drawn.strategy == SelectionStrategy.SELECTION_STRATEGY_RANDOM
    assert not any(one.pre_annotations or one.model_version or one.control for one in drawn.items)
    assert datasets.items.SelectItems(request) == drawn
    assert {one.item for seed in range(20) for one in _drawn(datasets, request, seed)} == set(names[2:])


def _drawn(datasets: Datasets, request: SelectItemsRequest, seed: int) -> Sequence[SelectedItem]:
    request.seed = seed
    return datasets.items.SelectItems(request).items
