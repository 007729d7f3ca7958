"""Replayed labelling: both arms on a few scenes, with a tiny detector."""

import numpy as np
import pytest
from boxes_saved import active_curve, random_curve
from detector_replay import Replay, prepare
from scenes import write_scenes
from task_types import read_data

TINY = {"side_px": 128, "views": 1, "pyramid_channels": 8, "steps_min": 4, "steps_max": 4, "calibration_folds": 2}
POOL, TEST = 40, 4


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Replay:
    folder = tmp_path_factory.mktemp("replay")
    _, photographs = read_data(write_scenes(folder / "scenes", POOL, TEST))
    return prepare(photographs, folder, seed=1, threads=1, choices=TINY)


def test_the_pool_has_the_boxes_of_the_images_and_embeddings_of_unit_length(replay: Replay) -> None:
    assert (len(replay.pool), len(replay.test)) == (POOL, TEST)
    assert replay.box_count(np.arange(POOL)) == sum(len(one.boxes) for one in replay.pool)
    assert np.linalg.norm(replay.embeddings, axis=1) == pytest.approx(np.ones(POOL), abs=1e-5)


def test_predictions_have_all_concepts_and_boxes_inside_of_their_images(replay: Replay) -> None:
    rows = np.arange(6)
    predictions = replay.predictions(replay.train(rows, calibrated=True), rows)
    assert len(predictions) == len(rows)
    for row, prediction in zip(rows, predictions, strict=True):
        assert {score.concept for score in prediction.scores} == set(replay.learner.assignment.concepts)
        for one in prediction.annotations:
            assert 0 <= one.box.x_min_px < one.box.x_max_px <= replay.pool[row].width_px


def test_both_arms_label_the_same_number_of_images_until_the_pool_is_empty(replay: Replay) -> None:
    counts = (10, 20, POOL, POOL + 10)
    active, drawn = active_curve(replay, 1, counts), random_curve(replay, 1, counts)
    assert [point.images for point in active] == [point.images for point in drawn] == [10, 20, POOL, POOL]
    assert active[-1].boxes == drawn[-1].boxes == replay.box_count(np.arange(POOL))
    assert all(0 <= point.quality <= 1 for point in (*active, *drawn))
