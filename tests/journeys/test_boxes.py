"""A loop of boxes on the running platform: annotators draw, a detector is trained, serves, and is measured by its average precision."""

import pytest
from scenes import HEIGHT_PX, WIDTH_PX, write_scenes
from small_loop import SmallLoop, set_up_drawn
from task_types import read_data
from vesta_contracts.annotation.v1 import GetAgreementRequest
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.conductor.v1 import LoopStatus
from vesta_contracts.datasets.v1 import GetDatasetRequest, ListItemsRequest
from vesta_contracts.training.v1 import GetModelVersionRequest, ListModelVersionsRequest
from vesta_local.testing import WholePlatform

pytestmark = [pytest.mark.platform, pytest.mark.timeout(900)]

POOL_SCENES, TEST_SCENES = 90, 30
BATCH = 30


@pytest.fixture(scope="module")
def turned(platform: WholePlatform, tmp_path_factory: pytest.TempPathFactory) -> SmallLoop:
    """A loop that has spent its budget in two rounds, with annotators who err."""
    scenes = write_scenes(tmp_path_factory.mktemp("samples") / "scenes", POOL_SCENES, TEST_SCENES)
    small = set_up_drawn(platform, read_data(scenes)[1], rounds=2, batch=BATCH)
    small.turn_until(lambda status: status.phase == LoopStatus.EXHAUSTED, seconds=600)
    return small


def test_every_round_trains_a_detector_that_is_judged_by_its_average_precision(turned: SmallLoop) -> None:
    rounds = turned.ended_rounds()
    assert [one.number for one in rounds] == [1, 2]
    assert all("mAP@50" in one.verdict.reason for one in rounds)
    metrics = turned.status().champion_metrics
    estimate = metrics.mean_average_precision_50
    assert 0.0 < estimate.value <= 1.0
    assert estimate.low <= estimate.value <= estimate.high
    assert metrics.object_count == sum(len(turned.truth(item.name)) for item in turned.items("split = TEST"))
    version = turned.owner.models.GetModelVersion(GetModelVersionRequest(name=turned.status().champion))
    assert version.task_type == TaskType.TASK_TYPE_DETECTION
    assert "objects" in [output.name for output in version.signature.outputs]


def test_all_detectors_of_the_loop_share_the_embedding_space_that_its_items_have(turned: SmallLoop) -> None:
    model = turned.status().champion.partition("/versions/")[0]
    versions = turned.owner.models.ListModelVersions(ListModelVersionsRequest(parent=model)).model_versions
    embedded = turned.owner.items.ListItems(ListItemsRequest(parent=turned.dataset, embeddings=True)).embeddings
    assert len(versions) == 2
    assert {item.digest for item in embedded} == {version.embedding_digest for version in versions}


def test_consensus_and_review_catch_the_mistakes_of_annotators(turned: SmallLoop) -> None:
    caught, mistaken = turned.experts.caught(turned.items("labelled AND split = TRAIN"))
    assert mistaken > 0
    assert caught >= mistaken - 4  # two annotators rarely err alike
    agreement = turned.owner.campaigns.GetAgreement(GetAgreementRequest(name=turned.status().campaign))
    assert 0.5 < agreement.alpha < 1.0


def test_the_deployed_detector_predicts_boxes_within_the_image(turned: SmallLoop) -> None:
    test = turned.items("split = TEST")
    images = [turned.experts.photographs[item.name].path.read_bytes() for item in test]
    predictions = [one.prediction for one in turned.owner.predict(turned.status().deployment, images)]
    found = [one for prediction in predictions for one in prediction.annotations]
    assert found
    for annotation in found:
        box = annotation.box
        assert 0 <= box.x_min_px < box.x_max_px <= WIDTH_PX
        assert 0 <= box.y_min_px < box.y_max_px <= HEIGHT_PX
    assert {item.prediction.model_version for item in turned.items("split = TEST")} == {turned.status().champion}
    counts = turned.owner.datasets.GetDataset(GetDatasetRequest(name=turned.dataset)).counts
    assert counts.scored_model_version == turned.status().champion
