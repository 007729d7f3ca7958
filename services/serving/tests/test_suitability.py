"""The task type of deployments: that of their model version, their datasets, and later versions."""

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from serving_builders import DATASET, PROJECT, a_picture
from serving_models import an_onnx, an_onnx_that_only_embeds
from serving_service import Serving
from vesta_common.errors import InvalidArgument, Unavailable
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.serving.v1 import Deployment, UpdateDeploymentRequest

BOXES = f"{PROJECT}/datasets/boxes"


@pytest.fixture(autouse=True)
def both_datasets(serving: Serving) -> None:
    for dataset in (DATASET, BOXES):
        serving.items.add(a_picture(), dataset)
    serving.datasets.task_types[BOXES] = TaskType.TASK_TYPE_DETECTION


def test_a_dataset_of_another_task_type_is_rejected(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    with pytest.raises(InvalidArgument) as refused:
        serving.deployed(version, datasets=[DATASET, BOXES])
    assert refused.value.reason == "TASK_TYPE_MISMATCH"
    assert f"{version} is for classification, but {BOXES} is for detection" in str(refused.value)

    deployment = serving.deployed(version, datasets=[DATASET])
    with pytest.raises(InvalidArgument) as refused:
        serving.deployments.UpdateDeployment(
            UpdateDeploymentRequest(
                deployment=Deployment(name=deployment.name, datasets=[DATASET, BOXES]),
                update_mask=FieldMask(paths=["datasets"]),
            )
        )
    assert refused.value.reason == "TASK_TYPE_MISMATCH"
    assert list(serving.got(deployment.name).datasets) == [DATASET]


def test_a_version_of_another_task_type_is_rejected(serving: Serving) -> None:
    first, other = serving.registry.add(an_onnx()), serving.registry.add_detector()
    deployment = serving.deployed(first)
    with pytest.raises(InvalidArgument) as refused:
        serving.moved(deployment, other)
    assert refused.value.reason == "TASK_TYPE_MISMATCH"
    assert f"{other} is for detection, but {first} of this deployment is for classification" in str(refused.value)
    assert serving.moved(deployment, serving.registry.add(an_onnx(9))).state == Deployment.READY


def test_a_model_that_only_embeds_suits_all_datasets_and_is_replaced_by_one_of_their_task_type(
    serving: Serving,
) -> None:
    embeds_only = serving.registry.add(an_onnx_that_only_embeds(), concepts=(), task_type=TaskType.TASK_TYPE_EMBEDDING)
    serving.deployed(embeds_only, "all", datasets=[DATASET, BOXES])
    deployment = serving.deployed(embeds_only, "boxes", datasets=[BOXES])
    with pytest.raises(InvalidArgument) as refused:
        serving.moved(deployment, serving.registry.add(an_onnx()))
    assert refused.value.reason == "TASK_TYPE_MISMATCH"
    detector = serving.registry.add_detector()
    assert serving.moved(deployment, detector).stable_version == detector


def test_datasets_that_do_not_exist_are_not_checked_and_unchanged_ones_not_again(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    deployment = serving.deployed(version, datasets=[DATASET, f"{PROJECT}/datasets/gone"])
    serving.datasets.unavailable.add(DATASET)
    serving.deployments.UpdateDeployment(
        UpdateDeploymentRequest(deployment=Deployment(name=deployment.name, display_name="Vans"))
    )
    with pytest.raises(Unavailable):
        serving.deployed(version, "other", datasets=[DATASET])


def test_a_model_of_an_unsupported_task_type_is_rejected(serving: Serving) -> None:
    version = serving.registry.add(an_onnx(), task_type=TaskType.TASK_TYPE_KEYPOINTS)
    with pytest.raises(InvalidArgument) as refused:
        serving.deployed(version)
    assert refused.value.reason == "TASK_TYPE_UNSUPPORTED"
