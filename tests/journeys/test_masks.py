"""Loops of masks on the running platform: annotators mark pixels, a model is trained, serves, suggests masks, and is measured by them."""

import pytest
from scenes import HEIGHT_PX, WIDTH_PX, write_scenes
from small_loop import SmallLoop, set_up_drawn
from task_types import TASK_TYPES, DemoTask, read_data, task_named
from task_types.drawn_masks import SCENES
from vesta_contracts.annotation.v1 import GetAgreementRequest, ListTasksRequest
from vesta_contracts.common.v1 import Annotation
from vesta_contracts.conductor.v1 import LoopStatus
from vesta_contracts.datasets.v1 import GetDatasetRequest
from vesta_contracts.training.v1 import GetModelVersionRequest
from vesta_local.testing import WholePlatform

pytestmark = [pytest.mark.platform, pytest.mark.timeout(900)]

POOL_SCENES, TEST_SCENES = 60, 20
BATCH = 25
OUTPUTS = {"instance-segmentation": "masks", "semantic-segmentation": "segmentation"}


@pytest.fixture(scope="module", params=OUTPUTS)
def task(request: pytest.FixtureRequest) -> DemoTask:
    """One of the task types whose annotations are masks."""
    return task_named(request.param)


@pytest.fixture(scope="module")
def turned(platform: WholePlatform, tmp_path_factory: pytest.TempPathFactory, task: DemoTask) -> SmallLoop:
    """A loop that has spent its budget in two rounds, with annotators who err."""
    scenes = write_scenes(tmp_path_factory.mktemp("samples") / "scenes", POOL_SCENES, TEST_SCENES, style=SCENES)
    small = set_up_drawn(platform, read_data(scenes, task)[1], rounds=2, batch=BATCH)
    small.turn_until(lambda status: status.phase == LoopStatus.EXHAUSTED, seconds=600)
    return small


def test_every_round_trains_a_model_that_is_judged_by_its_masks(turned: SmallLoop, task: DemoTask) -> None:
    rounds = turned.ended_rounds()
    assert [one.number for one in rounds] == [1, 2]
    assert all(task.metric in one.verdict.reason for one in rounds)
    estimate = task.quality(turned.status().champion_metrics)
    assert 0.0 < estimate.value <= 1.0
    assert estimate.low <= estimate.value <= estimate.high
    version = turned.owner.models.GetModelVersion(GetModelVersionRequest(name=turned.status().champion))
    assert TASK_TYPES[version.task_type] is task
    assert OUTPUTS[task.recipe] in [output.name for output in version.signature.outputs]


def test_consensus_and_review_catch_the_mistakes_of_annotators(turned: SmallLoop) -> None:
    caught, mistaken = turned.experts.caught(turned.items("labelled AND split = TRAIN"))
    assert mistaken > 0
    assert caught >= mistaken - 4  # two annotators rarely err alike
    agreement = turned.owner.campaigns.GetAgreement(GetAgreementRequest(name=turned.status().campaign))
    assert 0.5 < agreement.alpha < 1.0


def test_the_deployed_model_predicts_masks_of_the_size_of_the_image(turned: SmallLoop, task: DemoTask) -> None:
    test = turned.items("split = TEST")
    images = [turned.experts.photographs[item.name].path.read_bytes() for item in test]
    predictions = [one.prediction for one in turned.owner.predict(turned.status().deployment, images)]
    found = [one for prediction in predictions for one in task.predicted(prediction)]
    assert found
    assert all(_fits(one) for one in found)
    assert {item.prediction.model_version for item in test} == {turned.status().champion}
    counts = turned.owner.datasets.GetDataset(GetDatasetRequest(name=turned.dataset)).counts
    assert counts.scored_model_version == turned.status().champion


def test_annotators_of_the_second_round_are_shown_predicted_masks(turned: SmallLoop) -> None:
    request = ListTasksRequest(parent=turned.status().campaign)
    tasks = list(turned.owner.pages(turned.owner.tasks.ListTasks, request))
    shown = [one for task in tasks for one in task.pre_annotations]
    assert shown
    assert all(_fits(one) for one in shown)


def _fits(one: Annotation) -> bool:
    """Whether an annotation is a mask with pixels, of the size of a scene."""
    mask = one.mask
    size = (mask.height_px, mask.width_px, sum(mask.runs_px))
    return size == (HEIGHT_PX, WIDTH_PX, HEIGHT_PX * WIDTH_PX) and sum(mask.runs_px[1::2]) > 0
