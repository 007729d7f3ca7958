"""Deployments on a real Triton: create, promote, roll back, update, fail, recover and delete."""

import uuid

import pytest
from serving_builders import DATASET, PROJECT, a_picture
from serving_models import an_onnx
from serving_service import GREEN, RED, Serving, labels
from vesta_common.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.serving.v1 import (
    CreateDeploymentRequest,
    DeleteDeploymentRequest,
    Deployment,
    GetDeploymentRequest,
    ListDeploymentsRequest,
    RollbackDeploymentRequest,
)
from vesta_serving.backoff import BACKOFF_FIRST


def _forget_versions(serving: Serving) -> None:
    """Clears the cache of model versions, as after a restart of the service with an empty table."""
    serving.predictor._registry._known.clear()
    with serving.store.postgres.transaction() as connection:
        connection.execute("DELETE FROM versions")


def test_a_deployment_predicts_once_its_version_is_loaded(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    deployment = serving.deployed(version)

    assert (deployment.state, deployment.stable_version, deployment.error) == (Deployment.READY, version, "")
    assert labels(serving, deployment, RED, GREEN) == ["red", "green"]
    assert serving.told() == ["vesta.serving.deployment.v1.promoted"]


def test_a_deployment_states_the_task_type_of_its_version(serving: Serving) -> None:
    made = serving.deployments.CreateDeployment(
        CreateDeploymentRequest(parent=PROJECT, deployment=Deployment(model_version=serving.registry.add(an_onnx())))
    )
    shown = serving.deployments.GetDeployment(GetDeploymentRequest(name=made.name))
    assert made.task_type == shown.task_type == TaskType.TASK_TYPE_CLASSIFICATION


def test_a_deployment_that_is_not_loaded_yet_is_unavailable(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    made = serving.deployments.CreateDeployment(
        CreateDeploymentRequest(parent=PROJECT, deployment=Deployment(model_version=version))
    )
    with pytest.raises(Unavailable) as caught:
        serving.predictor.served_model(made.name)
    assert (caught.value.reason, caught.value.retry_after is not None) == ("DEPLOYMENT_NOT_READY", True)


def test_a_new_version_is_promoted_and_the_previous_one_is_kept(serving: Serving) -> None:
    first, second = serving.registry.add(an_onnx()), serving.registry.add(an_onnx(7))
    deployment = serving.moved(serving.deployed(first), second)

    assert (deployment.stable_version, deployment.previous_version) == (second, first)
    assert serving.predict(deployment, RED).predictions[0].model_version == second


def test_a_rollback_takes_effect_immediately_and_a_second_one_reverts_it(serving: Serving) -> None:
    first, second = serving.registry.add(an_onnx()), serving.registry.add(an_onnx(7))
    deployment = serving.moved(serving.deployed(first), second)
    request = RollbackDeploymentRequest(name=deployment.name)

    stable = []
    for _ in range(2):
        serving.deployments.RollbackDeployment(request)
        stable.append(serving.predict(deployment, RED).predictions[0].model_version)
    assert stable == [first, second]


def test_a_repeated_rollback_returns_the_first_response_after_the_deployment_is_deleted(serving: Serving) -> None:
    first, second = serving.registry.add(an_onnx()), serving.registry.add(an_onnx(7))
    deployment = serving.moved(serving.deployed(first), second)
    request = RollbackDeploymentRequest(name=deployment.name, request_id=str(uuid.uuid4()))
    answer = serving.deployments.RollbackDeployment(request)
    serving.deployments.DeleteDeployment(DeleteDeploymentRequest(name=deployment.name))
    assert serving.deployments.RollbackDeployment(request) == answer


def test_the_first_version_cannot_be_rolled_back(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    with pytest.raises(FailedPrecondition) as caught:
        serving.deployments.RollbackDeployment(RollbackDeploymentRequest(name=deployment.name))
    assert caught.value.reason == "NO_PREVIOUS_VERSION"


def test_a_broken_version_fails_and_the_stable_version_still_predicts(serving: Serving) -> None:
    good, broken = serving.registry.add(an_onnx()), serving.registry.add(b"no onnx at all")
    deployment = serving.moved(serving.deployed(good), broken)

    assert (deployment.state, deployment.stable_version, broken in deployment.error) == (Deployment.FAILED, good, True)
    assert labels(serving, deployment, RED) == ["red"]
    assert serving.told()[-1] == "vesta.serving.deployment.v1.failed"


def test_a_failed_deployment_recovers_with_another_version(serving: Serving) -> None:
    broken, good = serving.registry.add(b"broken"), serving.registry.add(an_onnx())
    failed = serving.deployed(broken)
    recovered = serving.moved(failed, good)

    assert (failed.state, recovered.state) == (Deployment.FAILED, Deployment.READY)


def test_an_unregistered_version_is_rejected(serving: Serving) -> None:
    with pytest.raises(InvalidArgument) as caught:
        serving.deployed(f"{PROJECT}/models/vans/versions/99")
    assert caught.value.reason == "MODEL_VERSION_NOT_FOUND"


def test_an_existing_name_is_rejected(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    serving.deployed(version)
    with pytest.raises(AlreadyExists) as caught:
        serving.deployed(version)
    assert caught.value.reason == "RESOURCE_EXISTS"


def test_no_transaction_is_open_during_calls_to_the_registry(serving: Serving) -> None:
    first, second = serving.registry.add(an_onnx()), serving.registry.add(an_onnx(7))
    open_ones: list[int] = []
    serving.registry.look = lambda: open_ones.append(serving.open_transactions())
    deployment = serving.moved(serving.deployed(first), second)
    _forget_versions(serving)
    serving.deployments.RollbackDeployment(RollbackDeploymentRequest(name=deployment.name))

    assert open_ones == [0, 0, 0, 0]


def test_an_update_without_a_version_is_rejected(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    with pytest.raises(InvalidArgument) as caught:
        serving.moved(deployment, "")
    assert caught.value.reason == "FIELD_INVALID"


def test_an_update_with_the_current_etag_is_accepted(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    deployment = serving.deployed(version)

    assert serving.moved(deployment, version, deployment.etag).stable_version == version


def test_an_update_with_a_stale_etag_is_aborted(serving: Serving) -> None:
    first, second = serving.registry.add(an_onnx()), serving.registry.add(an_onnx(7))
    deployment = serving.deployed(first)
    serving.moved(deployment, second)
    with pytest.raises(Aborted) as caught:
        serving.moved(deployment, first, deployment.etag)
    assert caught.value.reason == "ETAG_STALE"


def test_a_deleted_deployment_is_not_found_and_its_model_is_unloaded(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    deployment = serving.deployed(version)
    serving.deployments.DeleteDeployment(DeleteDeploymentRequest(name=deployment.name))
    serving.deployer.keep()

    with pytest.raises(NotFound) as caught:
        serving.deployments.GetDeployment(GetDeploymentRequest(name=deployment.name))
    assert caught.value.reason == "RESOURCE_NOT_FOUND"
    assert serving.triton_name(version) not in serving.triton.loaded()


def test_deployments_are_listed_by_name_in_pages(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    for name in ("b", "c", "a"):
        serving.deployed(version, name)
    first = serving.deployments.ListDeployments(ListDeploymentsRequest(parent=PROJECT, page_size=2))
    second = serving.deployments.ListDeployments(
        ListDeploymentsRequest(parent=PROJECT, page_size=2, page_token=first.next_page_token)
    )

    assert [found.name[-1] for found in (*first.deployments, *second.deployments)] == ["a", "b", "c"]


def test_listed_deployments_contain_their_scoring_progress(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    serving.items.add(a_picture())
    for name, datasets in (("a", [DATASET]), ("b", []), ("c", [DATASET])):
        serving.deployed(version, name, datasets=datasets)
    serving.score()
    listed = serving.deployments.ListDeployments(ListDeploymentsRequest(parent=PROJECT)).deployments

    assert [found.scoring.scored_count for found in listed] == [1, 0, 1]
    assert list(listed) == [serving.got(found.name) for found in listed]


def test_a_deployment_that_cannot_be_loaded_is_retried_after_its_backoff_and_does_not_block_others(
    serving: Serving,
) -> None:
    first, second = serving.registry.add(an_onnx()), serving.registry.add(an_onnx(7))
    for name, version in (("first", first), ("second", second)):
        serving.deployments.CreateDeployment(
            CreateDeploymentRequest(parent=PROJECT, deployment_id=name, deployment=Deployment(model_version=version))
        )
    _forget_versions(serving)
    serving.registry.unavailable.add(first)
    assert serving.deployer.step()  # the older deployment
    assert serving.deployer.step()
    assert not serving.deployer.step()  # not a third time: the older deployment is in backoff
    states = [serving.got(f"{PROJECT}/deployments/{name}").state for name in ("first", "second")]
    assert states == [Deployment.LOADING, Deployment.READY]

    serving.registry.unavailable.clear()
    serving.clock.advance(BACKOFF_FIRST)
    assert serving.deployer.step()
    assert serving.got(f"{PROJECT}/deployments/first").state == Deployment.READY


def test_an_update_of_a_deployment_ends_its_backoff(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    serving.deployments.CreateDeployment(
        CreateDeploymentRequest(parent=PROJECT, deployment_id="vans", deployment=Deployment(model_version=version))
    )
    _forget_versions(serving)
    serving.registry.unavailable.add(version)
    serving.deployer.step()
    moved = serving.moved(serving.got(f"{PROJECT}/deployments/vans"), serving.registry.add(an_onnx(7)))
    assert moved.state == Deployment.READY
