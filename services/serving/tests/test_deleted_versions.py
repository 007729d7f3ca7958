"""Deleted model versions: they cannot be deployed, and are removed from Triton's repository once unused."""

import pytest
from serving_builders import PROJECT
from serving_models import an_onnx
from serving_service import Serving
from vesta_common.errors import InvalidArgument, Unavailable
from vesta_common.events.cloudevents import new_event
from vesta_contracts.serving.v1 import CreateDeploymentRequest, DeleteDeploymentRequest, Deployment
from vesta_contracts.training.v1 import ModelVersionDeleted
from vesta_serving.event_handlers import EventHandlers
from vesta_serving.triton.repository import PREFIX, whole_name


def files(serving: Serving, name: str) -> list[str]:
    return [key.removeprefix(f"{PREFIX}/{name}/") for key in serving.repository.list_keys(f"{PREFIX}/{name}/")]


def is_deleted(serving: Serving, version: str) -> str:
    """Deletes a version and handles its event; returns Triton's name of it."""
    digest = serving.registry.remove(version).digest
    payload = ModelVersionDeleted(model_version=version, digest=digest)
    event = new_event("training", version, payload, serving.clock.now())
    with serving.store.postgres.transaction() as connection:
        EventHandlers(serving.store).handle_model_version_deleted(connection, event)
    return whole_name(digest)


def test_a_deleted_version_is_removed_from_the_repository(serving: Serving) -> None:
    first, second = serving.registry.add(an_onnx(11)), serving.registry.add(an_onnx(12))
    deployment = serving.deployed(first)
    serving.deployments.DeleteDeployment(DeleteDeploymentRequest(name=deployment.name))
    other = serving.deployed(second, "other")
    name = is_deleted(serving, first)
    assert files(serving, name) == ["1/model.onnx", "config.pbtxt"]
    serving.deployer.keep()
    assert files(serving, name) == []
    assert serving.store.find_version(first) is None
    assert serving.store.list_to_remove() == []
    assert serving.got(other.name).state == Deployment.READY


def test_the_model_of_a_deployment_is_kept_until_the_deployment_is_deleted(serving: Serving) -> None:
    version = serving.registry.add(an_onnx(13))
    deployment = serving.deployed(version)
    name = is_deleted(serving, version)
    serving.deployer.keep()
    assert files(serving, name) == ["1/model.onnx", "config.pbtxt"]
    serving.deployments.DeleteDeployment(DeleteDeploymentRequest(name=deployment.name))
    serving.deployer.keep()
    assert files(serving, name) == []


def test_the_same_model_of_another_version_is_kept(serving: Serving) -> None:
    first, second = serving.registry.add(an_onnx(14)), serving.registry.add(an_onnx(14))
    serving.deployed(second)
    name = is_deleted(serving, first)
    serving.deployer.keep()
    assert files(serving, name) == ["1/model.onnx", "config.pbtxt"]


def test_a_removed_model_is_stored_again_for_a_version_with_the_same_model(serving: Serving) -> None:
    first = serving.registry.add(an_onnx(15))
    deployment = serving.deployed(first)
    serving.deployments.DeleteDeployment(DeleteDeploymentRequest(name=deployment.name))
    is_deleted(serving, first)
    serving.deployer.keep()
    again = serving.deployed(serving.registry.add(an_onnx(15)), "again")
    assert (again.state, again.error) == (Deployment.READY, "")


def test_a_cached_but_deleted_version_cannot_be_deployed(serving: Serving) -> None:
    version = serving.registry.add(an_onnx(16))
    deployment = serving.deployed(version)
    other = serving.deployed(serving.registry.add(an_onnx(17)), "other")
    serving.registry.remove(version)
    with pytest.raises(InvalidArgument) as refused:
        serving.deployed(version, "late")
    assert refused.value.reason == "MODEL_VERSION_NOT_FOUND"
    with pytest.raises(InvalidArgument):
        serving.moved(other, version)
    assert serving.got(deployment.name).state == Deployment.READY  # what answers goes on to


def test_cached_versions_are_used_while_the_registry_is_unavailable(serving: Serving) -> None:
    version = serving.registry.add(an_onnx(18))
    serving.deployed(version)

    def away() -> None:
        raise Unavailable("training does not respond")

    serving.registry.look = away
    request = CreateDeploymentRequest(
        parent=PROJECT, deployment_id="more", deployment=Deployment(model_version=version)
    )
    assert serving.deployments.CreateDeployment(request).model_version == version
