"""Folds include every item, and never hold out the only item of a concept."""

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from vesta_training.heads.folds import deal_folds


def one_hot(classes: list[int], concept_count: int = 4) -> npt.NDArray[np.bool_]:
    return np.eye(concept_count, dtype=np.bool_)[classes].reshape(len(classes), concept_count)


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(2, 5), st.integers(0, 9))
def test_each_concept_is_held_out_but_never_completely(classes: list[int], fold_count: int, seed: int) -> None:
    folds = deal_folds(one_hot(classes), fold_count, seed)
    counts = np.bincount(np.array(classes, dtype=np.int64), minlength=4)
    usable = (counts >= 2).sum() >= 2

    for concept in range(4):
        dealt = folds[np.array(classes, dtype=np.int64) == concept]
        if counts[concept] >= 2 and usable:
            assert (dealt >= 0).all()
            assert len(set(dealt.tolist())) >= 2
        else:
            assert (dealt == -1).all()


def test_folds_have_similar_sizes() -> None:
    folds = deal_folds(one_hot([0] * 7 + [1] * 7 + [2] * 7), 3, seed=0)

    assert np.bincount(folds).tolist() == [7, 7, 7]


def test_equal_seeds_give_equal_folds() -> None:
    labels = one_hot([0] * 20 + [1] * 20)

    assert (deal_folds(labels, 3, seed=1) == deal_folds(labels, 3, seed=1)).all()
    assert (deal_folds(labels, 3, seed=1) != deal_folds(labels, 3, seed=2)).any()


def test_items_without_a_concept_are_distributed_over_folds() -> None:
    labels = np.zeros((6, 2), dtype=np.bool_)
    labels[:3, 0] = True

    assert (deal_folds(labels, 3, seed=0) >= 0).all()


def test_no_items_give_no_folds() -> None:
    assert deal_folds(np.zeros((0, 3), dtype=np.bool_), 3, seed=0).tolist() == []
