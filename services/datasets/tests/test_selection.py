"""All strategies satisfy the common contract, and each has its specific behaviour."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vesta_datasets.selection import STRATEGIES, Pool, Reason, UnusablePoolError, with_control_arm
from vesta_datasets.task_types.classification import distribution_uncertainty
from vesta_datasets.task_types.multi_label import centred_uncertainty
from vesta_datasets.task_types.uncertainty import Uncertainty

EVERY_STRATEGY = pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES.keys())


def of_margins(margins):
    values = np.array(margins, np.float32)
    return Uncertainty(values, np.zeros_like(values))


def unit(rows):
    rows = np.asarray(rows, dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def a_pool(
    *, count=60, dimensions=8, concepts=4, labelled=10, batch_size=8, seed=1, model=True, several_labels=False, draw=0
):
    random = np.random.default_rng(draw)
    embeddings = (
        unit(random.normal(size=(count, dimensions)) + 0.01) if count else np.zeros((0, dimensions), np.float32)
    )
    probabilities = random.dirichlet(np.ones(concepts), count).astype(np.float32).reshape(count, concepts)
    uncertainty = distribution_uncertainty(probabilities)
    if several_labels:
        uncertainty = centred_uncertainty(random.random((count, concepts), dtype=np.float32))
    mask = np.zeros(count, dtype=np.bool_)
    mask[random.permutation(count)[:labelled]] = True
    return Pool(embeddings, uncertainty if model else None, mask, batch_size, seed)


def assert_keeps_the_promise(pool, picks):
    chosen = [pick.index for pick in picks]
    assert len(chosen) == pool.pick_count
    assert len(set(chosen)) == len(chosen)
    assert not pool.labelled[chosen].any()
    assert all(np.isfinite(pick.score) for pick in picks)


pools = st.builds(
    a_pool,
    count=st.integers(0, 40),
    dimensions=st.sampled_from([1, 2, 16]),
    concepts=st.sampled_from([1, 2, 7]),
    labelled=st.integers(0, 45),
    batch_size=st.integers(0, 50),
    seed=st.integers(0, 2**63),
    model=st.booleans(),
    several_labels=st.booleans(),
    draw=st.integers(0, 1000),
)


@EVERY_STRATEGY
@settings(max_examples=60, deadline=None)
@given(pool=pools)
def test_a_batch_is_full_distinct_and_unlabelled_for_any_pool(strategy, pool):
    assert_keeps_the_promise(pool, strategy(pool))


@EVERY_STRATEGY
@settings(max_examples=15, deadline=None)
@given(pool=pools)
def test_the_same_pool_gives_the_same_picks(strategy, pool):
    assert strategy(pool) == strategy(pool)


@EVERY_STRATEGY
@pytest.mark.parametrize("model", [True, False])
def test_a_pool_of_equal_items_still_fills_its_batch(strategy, model):
    alike = np.tile(unit([[1.0, 2.0, 3.0]]), (30, 1))
    answers = distribution_uncertainty(np.full((30, 3), 1 / 3, dtype=np.float32)) if model else None
    mask = np.zeros(30, dtype=np.bool_)
    mask[:5] = True
    pool = Pool(alike, answers, mask, batch_size=10)
    assert_keeps_the_promise(pool, strategy(pool))


@EVERY_STRATEGY
def test_a_model_that_is_certain_of_everything_does_not_prevent_selection(strategy):
    pool = a_pool(concepts=1)
    assert_keeps_the_promise(pool, strategy(pool))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"embeddings": np.full((2, 3), np.nan, np.float32)}, "finite"),
        ({"embeddings": np.full((2, 3), 2.0, np.float32)}, "unit length"),
        ({"embeddings": np.ones(2, np.float32)}, r"\(N, D\)"),
        ({"uncertainty": of_margins([np.nan, 0])}, "finite"),
        ({"uncertainty": of_margins([0.5, 1.5])}, r"\[0, 1\]"),
        ({"uncertainty": of_margins([0.5])}, r"uncertainty.margin must be \(2,\)"),
        ({"labelled": np.zeros(3, np.bool_)}, "labelled must be"),
        ({"labelled": np.zeros(2, np.int64)}, "booleans"),
        ({"batch_size": -1}, "batch_size"),
        ({"seed": -1}, "seed"),
    ],
)
def test_invalid_scores_are_rejected_by_name(change, complaint):
    sound = {
        "embeddings": unit([[1, 0, 0], [0, 1, 0]]),
        "uncertainty": of_margins([0.5, 0.5]),
        "labelled": np.zeros(2, np.bool_),
        "batch_size": 1,
        "seed": 0,
    }
    with pytest.raises(UnusablePoolError, match=complaint):
        Pool(**(sound | change))


def test_margin_selects_the_smallest_difference_of_the_two_best_scores_first():
    answers = np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.4, 0.3, 0.3], [0.6, 0.2, 0.2]], np.float32)
    pool = Pool(unit(np.eye(4)), distribution_uncertainty(answers), np.zeros(4, np.bool_), batch_size=3)
    assert [pick.index for pick in STRATEGIES["margin"](pool)] == [1, 2, 3]


def test_entropy_selects_the_highest_entropy_first():
    answers = np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.4, 0.3, 0.3], [0.6, 0.2, 0.2]], np.float32)
    pool = Pool(unit(np.eye(4)), distribution_uncertainty(answers), np.zeros(4, np.bool_), batch_size=3)
    assert [pick.index for pick in STRATEGIES["entropy"](pool)] == [2, 3, 1]


def test_a_multi_label_model_is_uncertain_near_one_half_of_any_concept():
    answers = np.array([[0.99, 0.98, 0.01], [0.99, 0.55, 0.01], [0.7, 0.01, 0.02]], np.float32)
    pool = Pool(unit(np.eye(3)), centred_uncertainty(answers), np.zeros(3, np.bool_), batch_size=3)
    assert [pick.index for pick in STRATEGIES["margin"](pool)] == [1, 2, 0]


@pytest.mark.parametrize("name", ["margin", "entropy"])
def test_without_a_model_uncertainty_falls_back_to_random_selection_and_says_so(name):
    picks = STRATEGIES[name](a_pool(model=False))
    assert {pick.reason for pick in picks} == {Reason.RANDOM}


def test_k_center_selects_the_uncovered_region():
    embeddings = unit([[1, 0.0], [1, 0.1], [1, 0.2], [-1, 0.1], [0, 1]])
    labelled = np.array([True, False, False, False, False])
    picks = STRATEGIES["k_center"](Pool(embeddings, None, labelled, batch_size=2))
    assert [pick.index for pick in picks] == [3, 4]


def clusters_of(sizes, *, spread=0.05, draw=3):
    """Returns embeddings in well-separated clusters, and their clusters."""
    random = np.random.default_rng(draw)
    centres = unit(random.normal(size=(len(sizes), 32)))
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return unit(centres[owner] + spread * random.normal(size=(owner.size, 32)) / np.sqrt(32)), owner


@pytest.mark.parametrize("name", ["typiclust", "adaptive"])
def test_the_cold_start_selects_one_item_per_cluster(name):
    embeddings, owner = clusters_of([40, 30, 20, 10])
    pool = Pool(embeddings, None, np.zeros(100, np.bool_), batch_size=4)
    assert Counter(owner[pick.index] for pick in STRATEGIES[name](pool)) == {0: 1, 1: 1, 2: 1, 3: 1}


@pytest.mark.parametrize("name", ["typiclust", "adaptive"])
def test_the_cold_start_skips_clusters_with_a_label(name):
    embeddings, owner = clusters_of([40, 30, 20, 10])
    labelled = np.zeros(100, np.bool_)
    labelled[[0, 45]] = True
    picks = STRATEGIES[name](Pool(embeddings, None, labelled, batch_size=2))
    assert {int(owner[pick.index]) for pick in picks} == {2, 3}


def test_a_cold_start_without_typical_items_is_random():
    embeddings, _ = clusters_of([40, 30, 20, 10])
    pool = Pool(embeddings, None, np.arange(100) < 50, batch_size=4, typical_start=False)
    assert STRATEGIES["adaptive"](pool) == STRATEGIES["random"](pool)
    gain = np.linspace(0, 1, 100, dtype=np.float32)
    later = STRATEGIES["adaptive"](replace(pool, uncertainty=Uncertainty(gain, gain, gain)))
    assert {pick.reason for pick in later} == {Reason.INSTRUCTIVE_AND_TYPICAL}


def test_the_default_selects_uncertain_dense_regions_once_each():
    embeddings, owner = clusters_of([300, 60, 40])
    answers = np.tile(np.array([[1.0, 0.0]], np.float32), (400, 1))
    answers[owner > 0] = [0.5, 0.5]
    picks = STRATEGIES["adaptive"](
        Pool(embeddings, distribution_uncertainty(answers), np.zeros(400, np.bool_), batch_size=2)
    )
    assert [int(owner[pick.index]) for pick in picks] == [1, 2]
    assert {pick.reason for pick in picks} == {Reason.UNCERTAIN_AND_TYPICAL}


def test_the_default_picks_from_the_most_uncertain_fifth_of_a_small_pool():
    random = np.random.default_rng(2)
    embeddings, _ = clusters_of([100, 100])
    uncertain = of_margins(random.permutation(np.linspace(0, 1, 200)))
    picks = STRATEGIES["adaptive"](Pool(embeddings, uncertain, np.zeros(200, np.bool_), batch_size=10))
    assert 0.8 <= min(uncertain.margin[[pick.index for pick in picks]]) < 0.89


def test_the_default_picks_from_the_tenth_with_the_most_gain_of_a_small_pool():
    gain = np.random.default_rng(2).permutation(np.linspace(0, 1, 200)).astype(np.float32)
    embeddings, _ = clusters_of([100, 100])
    uncertain = Uncertainty(1 - gain, 1 - gain, gain)
    picks = STRATEGIES["adaptive"](Pool(embeddings, uncertain, np.zeros(200, np.bool_), batch_size=10))
    assert min(gain[[pick.index for pick in picks]]) >= 0.89


def test_the_default_selects_by_the_gain_where_items_take_different_times():
    embeddings, owner = clusters_of([200, 40])
    gain = (owner == 1).astype(np.float32)
    margin = 1 - gain
    pool = Pool(embeddings, Uncertainty(margin, margin, gain), np.zeros(240, np.bool_), batch_size=5)
    picks = STRATEGIES["adaptive"](pool)
    assert {int(owner[pick.index]) for pick in picks} == {1}
    assert {pick.reason for pick in picks} == {Reason.INSTRUCTIVE_AND_TYPICAL}


def test_the_scores_of_the_default_are_decreasing_shares_of_the_uncovered_uncertainty():
    scores = [pick.score for pick in STRATEGIES["adaptive"](a_pool(count=200, batch_size=20))]
    assert scores == sorted(scores, reverse=True)
    assert 0.0 < sum(scores) <= 1.0


def test_a_pool_beyond_every_sample_limit_still_fills_its_batch():
    pool = a_pool(count=12_000, dimensions=16, labelled=300, batch_size=40)
    for strategy in STRATEGIES.values():
        assert_keeps_the_promise(pool, strategy(pool))


@settings(max_examples=100, deadline=None)
@given(pool=pools, share=st.floats(0, 1), seed=st.integers(0, 2**63))
def test_a_batch_with_a_control_arm_is_full_distinct_and_unlabelled(pool, share, seed):
    picks = with_control_arm(STRATEGIES["margin"](pool), pool.free, pool.batch_size, share, seed)
    assert_keeps_the_promise(pool, picks)
    drawn = sum(pick.reason is Reason.CONTROL for pick in picks)
    assert abs(drawn - share * pool.pick_count) <= 1.0


def test_the_control_arm_draws_every_unlabelled_item_equally_often():
    pool = a_pool(count=20, labelled=4, batch_size=8)
    picks = STRATEGIES["margin"](pool)
    drawn = Counter(
        pick.index
        for seed in range(4000)
        for pick in with_control_arm(picks, pool.free, 8, 0.25, seed)
        if pick.reason is Reason.CONTROL
    )
    expected = 4000 * 2 / 16
    chi_square = sum((drawn[int(index)] - expected) ** 2 / expected for index in pool.free)
    assert set(drawn) == set(pool.free.tolist())
    assert chi_square < 37.7  # 15 degrees of freedom, one in a thousand


def test_the_control_arm_keeps_its_share_over_many_small_batches():
    pool = a_pool(count=200, labelled=0, batch_size=5)
    picks = STRATEGIES["random"](pool)
    drawn = sum(
        pick.reason is Reason.CONTROL
        for seed in range(2000)
        for pick in with_control_arm(picks, pool.free, 5, 0.15, seed)
    )
    assert drawn / (2000 * 5) == pytest.approx(0.15, abs=0.01)


def test_the_control_arm_reaches_items_that_the_strategy_could_not_see():
    pool = a_pool(count=10, labelled=0, batch_size=4)
    picks = with_control_arm(STRATEGIES["margin"](pool), np.arange(1000), 4, 1.0, seed=2)
    assert max(pick.index for pick in picks) >= 10


def test_control_items_are_spread_over_the_batch():
    pool = a_pool(count=200, labelled=0, batch_size=40)
    picks = with_control_arm(STRATEGIES["margin"](pool), pool.free, 40, 0.25, seed=1)
    quarters = [sum(pick.reason is Reason.CONTROL for pick in picks[start : start + 10]) for start in range(0, 40, 10)]
    assert max(quarters) - min(quarters) <= 1


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_out_of_range_is_rejected(share):
    with pytest.raises(ValueError, match="share"):
        with_control_arm([], np.arange(3), 2, share, seed=0)
