"""Deployments whose models have the same backbone share one Triton model, which is unloaded while none of them is used."""

from datetime import timedelta

import numpy as np
import pytest
from serving_builders import a_picture
from serving_models import a_triton_model, an_onnx, an_onnx_with_a_head
from serving_service import IDLE_MAX, Serving
from vesta_common.errors import Unavailable
from vesta_common.events.cloudevents import new_event
from vesta_contracts.serving.v1 import DeleteDeploymentRequest, Deployment, PredictInput, RollbackDeploymentRequest
from vesta_contracts.training.v1 import ModelVersionDeleted
from vesta_serving.deployments.deployer import WHOLE_KEPT
from vesta_serving.event_handlers import EventHandlers
from vesta_serving.model_files import ModelFiles
from vesta_serving.triton.repository import whole_name, write_model

RED, GREEN = (PredictInput(data=a_picture(colour)) for colour in ("red", "green"))


def score_of_red(serving: Serving, deployment: Deployment) -> float:
    (found,) = serving.predict(deployment, RED).predictions
    return next(entry.score for entry in (*found.labels, *found.other_labels) if entry.concept == "red")


def ours(serving: Serving) -> set[str]:
    return {name for name in serving.triton.loaded() if name.startswith(("backbone-", "model-")) and "of" not in name}


def test_models_that_differ_in_the_head_share_one_triton_model(serving: Serving) -> None:
    first, second = (serving.registry.add(an_onnx_with_a_head(scale)) for scale in (20, 2))
    sure, unsure = serving.deployed(first, "sure"), serving.deployed(second, "unsure")
    serving.deployer.keep()

    assert ours(serving) == {serving.triton_name(first)} == {serving.triton_name(second)}
    assert score_of_red(serving, sure) > score_of_red(serving, unsure) + 0.1


def test_one_pass_returns_probabilities_and_the_embedding_if_it_is_requested(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx_with_a_head()))
    (plain,) = serving.predict(deployment, RED).predictions
    (embedded,) = serving.predict(deployment, RED, embedding=True).predictions

    assert list(plain.embedding) == []
    assert np.linalg.norm(embedded.embedding) == pytest.approx(1)
    assert plain.labels == embedded.labels


def test_a_model_that_cannot_be_divided_is_served_whole(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    serving.deployed(version)

    assert serving.triton_name(version).startswith("model-")


def test_a_head_that_returns_no_numbers_is_not_promoted(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx_with_a_head(float("nan"))))

    assert (deployment.state, deployment.stable_version) == (Deployment.FAILED, "")
    assert "not finite" in deployment.error


def test_models_of_deployments_that_are_not_used_are_unloaded_and_loaded_by_the_next_request(serving: Serving) -> None:
    idle_version, used_version = (serving.registry.add(an_onnx_with_a_head(shift=shift)) for shift in (0.3, 0.4))
    idle, used = serving.deployed(idle_version, "idle"), serving.deployed(used_version, "used")
    for _ in range(4):
        serving.clock.advance(IDLE_MAX / 3)
        serving.predictor.forget(used.name)
        serving.predict(used, RED)
    serving.deployer.keep()
    assert ours(serving) == {serving.triton_name(used_version)}

    serving.predictor.forget(idle.name)
    assert score_of_red(serving, idle) > 0.5
    serving.deployer.keep()
    assert ours(serving) == {serving.triton_name(idle_version), serving.triton_name(used_version)}


def test_a_rollback_to_a_version_that_was_unloaded_predicts(serving: Serving) -> None:
    first, second = (serving.registry.add(an_onnx_with_a_head(shift=shift)) for shift in (0.5, 0.6))
    deployment = serving.moved(serving.deployed(first), second)
    serving.clock.advance(IDLE_MAX)
    serving.deployer.keep()
    assert ours(serving) == set()

    serving.deployments.RollbackDeployment(RollbackDeploymentRequest(name=deployment.name))
    (found,) = serving.predict(deployment, RED).predictions
    assert found.model_version == first


def test_a_head_is_found_without_its_model_file(serving: Serving) -> None:
    version = serving.registry.add(an_onnx_with_a_head(21))
    deployment = serving.deployed(version)
    before = score_of_red(serving, deployment)
    serving.files._models.delete(serving.registry.key(version))
    serving.predictor._files = ModelFiles(serving.store, serving.files._models)  # as after a restart of the service
    serving.predictor.forget(deployment.name)

    assert score_of_red(serving, deployment) == before


def test_a_backbone_stays_in_the_repository_while_another_version_needs_it(serving: Serving) -> None:
    first, second = (serving.registry.add(an_onnx_with_a_head(scale, shift=0.7)) for scale in (22, 23))
    deployment, other = serving.deployed(first), serving.deployed(second, "other")
    name = serving.triton_name(first)
    serving.deployments.DeleteDeployment(DeleteDeploymentRequest(name=deployment.name))
    payload = ModelVersionDeleted(model_version=first, digest=serving.registry.remove(first).digest)
    with serving.store.postgres.transaction() as connection:
        EventHandlers(serving.store).handle_model_version_deleted(
            connection, new_event("training", first, payload, serving.clock.now())
        )
    serving.deployer.keep()
    assert list(serving.repository.list_keys(f"triton/{name}/")) != []

    serving.deployments.DeleteDeployment(DeleteDeploymentRequest(name=other.name))
    serving.deployer.keep()
    assert list(serving.repository.list_keys(f"triton/{name}/")) == []
    assert serving.store.list_to_remove() == []


def test_a_model_that_is_removed_while_it_is_loaded_is_retried(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = serving.registry.add(an_onnx_with_a_head(24, shift=0.8))
    load = serving.triton.load

    def load_after_removal(triton_name: str) -> None:
        serving.repository.delete(f"triton/{triton_name}/config.pbtxt")
        load(triton_name)

    monkeypatch.setattr(serving.triton, "load", load_after_removal)
    deployment = serving.deployed(version)
    assert (deployment.state, deployment.error) == (Deployment.LOADING, "")

    monkeypatch.undo()
    serving.clock.advance(timedelta(minutes=1))
    serving.deployer.step()
    assert serving.got(deployment.name).state == Deployment.READY
    assert serving.triton_name(version) in serving.triton.loaded()


def test_complete_models_of_an_earlier_version_of_the_service_stay_loaded_for_an_upgrade(serving: Serving) -> None:
    name = whole_name("f" * 64)
    write_model(serving.repository, name, an_onnx(), a_triton_model(name).configuration(gpu=False, instance_count=1))
    serving.triton.load(name)
    serving.deployer._start_time = serving.clock.now()
    serving.deployer.keep()
    assert name in serving.triton.loaded()

    serving.clock.advance(WHOLE_KEPT)
    serving.deployer.keep()
    assert name not in serving.triton.loaded()
    with pytest.raises(Unavailable):
        serving.triton.probe(a_triton_model(name))
