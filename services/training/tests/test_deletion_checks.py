"""Models and versions in use cannot be deleted. Files are deleted when no version uses them."""

from datetime import timedelta

import pytest
from training_service import PROJECT, SNAPSHOT, Training, refusal
from vesta_common.errors import Aborted, FailedPrecondition, NotFound, Unavailable
from vesta_contracts.serving.v1 import Deployment
from vesta_contracts.training.v1 import (
    CancelTrainingRunRequest,
    DeleteModelRequest,
    DeleteModelVersionRequest,
    GetModelRequest,
    GetModelVersionRequest,
    ListModelVersionsRequest,
    ModelVersion,
    TrainingRun,
)
from vesta_training.models.deletion_checks import check_removable, check_unused, deployed
from vesta_training.models.file_remover import RETRY

MODEL = f"{PROJECT}/models/vans"
V1, V2 = ModelVersion(name=f"{MODEL}/versions/1"), ModelVersion(name=f"{MODEL}/versions/2")


def a_run(**fields: str) -> TrainingRun:
    return TrainingRun(name=f"{PROJECT}/trainingRuns/r", snapshot=SNAPSHOT, **fields)


@pytest.mark.parametrize("field", ["model_version", "stable_version", "previous_version"])
def test_a_deployed_version_is_in_use(field: str) -> None:
    deployment = Deployment(name=f"{PROJECT}/deployments/d", **{field: V2.name})
    with pytest.raises(FailedPrecondition, match=r"version of .*deployments/d") as refused:
        check_unused([V1, V2], deployed([deployment]), [])
    assert (refused.value.reason, refused.value.metadata["used_by"]) == ("MODEL_VERSION_IN_USE", deployment.name)
    check_unused([V1], deployed([deployment]), [])


def test_the_champion_of_an_open_run_is_in_use() -> None:
    with pytest.raises(FailedPrecondition, match="trainingRuns/r compares with it"):
        check_unused([V1], {}, [a_run(champion=V1.name)])
    check_unused([V1], {}, [a_run(champion=V2.name), a_run()])


@pytest.mark.parametrize(
    ("versions", "runs", "force", "reason"),
    [
        ([V1], [], False, "MODEL_NOT_EMPTY"),
        ([], [a_run(model=MODEL)], False, "MODEL_IN_USE"),
        ([V1], [a_run(model=MODEL)], True, "MODEL_IN_USE"),
        ([], [a_run(model=f"{MODEL}2")], False, ""),
        ([V1], [], True, ""),
    ],
)
def test_a_model_is_deleted_if_empty_or_forced(
    versions: list[ModelVersion], runs: list[TrainingRun], force: bool, reason: str
) -> None:
    if not reason:
        check_removable(MODEL, versions, runs, force=force)
        return
    with pytest.raises(FailedPrecondition) as refused:
        check_removable(MODEL, versions, runs, force=force)
    assert refused.value.reason == reason


def delete_version(training: Training, name: str) -> None:
    training.models.DeleteModelVersion(DeleteModelVersionRequest(name=name))


def test_a_deleted_version_is_not_found_and_its_file_is_deleted(training: Training) -> None:
    first, second = training.a_version("a"), training.a_version("b")
    delete_version(training, second.name)

    refusal(NotFound, lambda: delete_version(training, second.name), "RESOURCE_NOT_FOUND")
    listed = training.models.ListModelVersions(ListModelVersionsRequest(parent=MODEL)).model_versions
    assert [version.name for version in listed] == [first.name]
    assert training.models.GetModel(GetModelRequest(name=MODEL)).latest_version == first.name
    assert training.event_types()[-1] == "deleted"
    training.file_remover.step()
    assert (training.objects.exists(first.onnx_key), training.objects.exists(second.onnx_key)) == (True, False)


def test_a_version_number_is_never_reused(training: Training) -> None:
    assert training.a_version("a").name == V1.name
    delete_version(training, V1.name)
    assert training.a_version("b").name == V2.name
    training.models.DeleteModel(DeleteModelRequest(name=MODEL, force=True))
    refusal(NotFound, lambda: training.models.GetModel(GetModelRequest(name=MODEL)), "RESOURCE_NOT_FOUND")
    assert training.a_version("c").name == f"{MODEL}/versions/3"


def test_a_deployed_version_cannot_be_deleted(training: Training) -> None:
    version = training.a_version()
    training.deployments.known = [
        Deployment(name=f"{PROJECT}/deployments/other", stable_version=f"{MODEL}/versions/9"),
        Deployment(name=f"{PROJECT}/deployments/loop", stable_version=version.name),
    ]
    refusal(FailedPrecondition, lambda: delete_version(training, version.name), "MODEL_VERSION_IN_USE")
    force = DeleteModelRequest(name=MODEL, force=True)
    refusal(FailedPrecondition, lambda: training.models.DeleteModel(force), "MODEL_VERSION_IN_USE")
    assert training.models.GetModelVersion(GetModelVersionRequest(name=version.name)) == version


def test_nothing_is_deleted_while_serving_is_unavailable(training: Training) -> None:
    version = training.a_version()
    training.deployments.away = True
    with pytest.raises(Unavailable):
        delete_version(training, version.name)
    assert training.models.GetModelVersion(GetModelVersionRequest(name=version.name)) == version


def test_the_champion_of_a_run_cannot_be_deleted_until_the_run_has_ended(training: Training) -> None:
    version = training.a_version("a")
    run = training.a_run("b", champion=version.name)
    refusal(FailedPrecondition, lambda: delete_version(training, version.name), "MODEL_VERSION_IN_USE")
    training.runs.CancelTrainingRun(CancelTrainingRunRequest(name=run.name))
    delete_version(training, version.name)
    refusal(NotFound, lambda: training.a_run("c", champion=version.name), "RESOURCE_NOT_FOUND")


def test_a_model_with_versions_is_deleted_only_by_force_and_with_the_current_etag(training: Training) -> None:
    version = training.a_version()
    read = training.models.GetModel(GetModelRequest(name=MODEL))
    refusal(FailedPrecondition, lambda: training.models.DeleteModel(DeleteModelRequest(name=MODEL)), "MODEL_NOT_EMPTY")
    training.a_version("b")
    stale = DeleteModelRequest(name=MODEL, force=True, etag=read.etag)
    refusal(Aborted, lambda: training.models.DeleteModel(stale), "ETAG_STALE")
    training.models.DeleteModel(DeleteModelRequest(name=MODEL, force=True))
    refusal(NotFound, lambda: training.models.DeleteModel(DeleteModelRequest(name=MODEL)), "RESOURCE_NOT_FOUND")
    training.file_remover.step()
    assert not training.objects.exists(version.onnx_key)


def test_the_model_of_an_open_run_cannot_be_deleted(training: Training) -> None:
    training.a_version("a")
    training.a_run("b")
    force = DeleteModelRequest(name=MODEL, force=True)
    refusal(FailedPrecondition, lambda: training.models.DeleteModel(force), "MODEL_IN_USE")


def equal_to(version: ModelVersion) -> ModelVersion:
    """Returns a version for the fake executor, so that the next version has the same file."""
    return ModelVersion(onnx_key=version.onnx_key, digest=version.digest)


def test_a_shared_file_is_kept_until_all_its_versions_are_deleted(training: Training) -> None:
    first = training.a_version("a")
    training.executor.adds = equal_to(first)
    second = training.a_version("b")
    delete_version(training, first.name)
    training.file_remover.step()
    assert training.objects.exists(first.onnx_key)
    delete_version(training, second.name)
    training.file_remover.step()
    assert not training.objects.exists(first.onnx_key)


def test_a_file_is_kept_while_a_concurrent_deployment_uses_it(training: Training) -> None:
    version = training.a_version()
    delete_version(training, version.name)
    training.deployments.known = [Deployment(name=f"{PROJECT}/deployments/d", model_version=version.name)]
    training.file_remover.step()
    assert training.objects.exists(version.onnx_key)
    training.deployments.known = []
    training.clock.advance(RETRY + timedelta(seconds=1))
    training.file_remover.step()
    assert not training.objects.exists(version.onnx_key)


def test_a_file_is_deleted_once_serving_is_available_again(training: Training) -> None:
    version = training.a_version()
    delete_version(training, version.name)
    training.deployments.away = True
    training.file_remover.step()
    assert training.objects.exists(version.onnx_key)
    training.deployments.away = False
    training.clock.advance(RETRY + timedelta(seconds=1))
    training.file_remover.step()
    assert not training.objects.exists(version.onnx_key)


def test_a_run_whose_file_was_deleted_with_an_equal_version_is_retried(training: Training) -> None:
    version = training.a_version("a")
    content = training.objects.get(version.onnx_key)
    delete_version(training, version.name)
    training.file_remover.step()
    training.executor.adds = equal_to(version)
    run = training.a_run("b")
    refusal(Unavailable, training.worker.step, "MODEL_FILE_DELETED")
    training.objects.put("models", content)
    training.worker.step()
    assert training.get(run).state == TrainingRun.SUCCEEDED
