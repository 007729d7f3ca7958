"""Models in Triton: rejected models, invalid outputs, and models that Triton has lost."""

import pytest
from serving_models import a_triton_model, an_onnx
from serving_service import RED, Serving, labels
from vesta_common.errors import (
    FailedPrecondition,
    Unavailable,
)
from vesta_contracts.serving.v1 import (
    Deployment,
)
from vesta_serving.triton.client import Triton
from vesta_serving.triton.repository import (
    find_configuration,
    write_configuration,
    write_model,
)


def test_a_model_that_triton_rejects_is_distinguished_from_an_unavailable_triton(serving: Serving) -> None:
    version = serving.registry.add(b"refused")
    serving.deployed(version)
    with pytest.raises(FailedPrecondition) as caught:
        serving.deployer.make_ready(serving.predictor._registry.get(version))
    assert caught.value.reason == "MODEL_REJECTED"


def test_a_model_that_returns_nan_is_not_promoted(serving: Serving) -> None:
    version = serving.registry.add(an_onnx(not_a_number=True))
    deployment = serving.deployed(version)
    with pytest.raises(Unavailable) as caught:
        serving.triton.probe(a_triton_model(serving.triton_name(version)))
    assert (deployment.state, caught.value.reason) == (Deployment.FAILED, "MODEL_OUTPUT_INVALID")


def test_a_ready_model_that_triton_now_rejects_is_unavailable(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    deployment = serving.deployed(version)
    name = serving.triton_name(version)
    serving.triton.unload(name)
    whole = serving.deployer._repository.get(f"triton/{name}/1/model.onnx", checked=False)
    serving.deployer._repository.put_named(f"triton/{name}/1/model.onnx", b"not whole")
    with pytest.raises(Unavailable) as caught:
        labels(serving, deployment, RED)
    assert caught.value.reason == "MODEL_REJECTED"

    serving.deployer._repository.put_named(f"triton/{name}/1/model.onnx", whole)
    assert labels(serving, deployment, RED) == ["red"]


def test_a_model_that_triton_lost_is_reloaded_by_the_next_call(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    deployment = serving.deployed(version)
    serving.triton.unload(serving.triton_name(version))

    assert labels(serving, deployment, RED) == ["red"]


def test_a_model_that_triton_lost_is_reloaded_by_the_deployer(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    serving.deployed(version)
    name = serving.triton_name(version)
    serving.triton.unload(name)
    with pytest.raises(Unavailable) as caught:
        serving.triton.probe(a_triton_model(name))
    assert caught.value.reason == "MODEL_NOT_LOADED"

    serving.deployer.keep()

    serving.triton.probe(a_triton_model(name))


def test_a_model_that_a_customer_loaded_stays_loaded(serving: Serving) -> None:
    write_model(
        serving.repository,
        "model-of-theirs",
        an_onnx(),
        a_triton_model("model-of-theirs").configuration(gpu=False, instance_count=2),
    )
    serving.triton.load("model-of-theirs")
    serving.deployer.keep()

    assert "model-of-theirs" in serving.triton.loaded()
    serving.triton.unload("model-of-theirs")


def test_changed_settings_are_applied_to_models_that_are_already_stored(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    deployment = serving.deployed(version)
    name = serving.triton_name(version)
    wanted = find_configuration(serving.repository, name)
    assert wanted is not None
    write_configuration(serving.repository, name, wanted.replace("count: 2", "count: 1"))
    serving.deployer._written.clear()  # as after a restart of the service
    serving.deployer.keep()

    assert find_configuration(serving.repository, name) == wanted
    assert labels(serving, deployment, RED) == ["red"]


def test_a_triton_that_does_not_respond_is_unavailable() -> None:
    with pytest.raises(Unavailable) as caught:
        Triton("127.0.0.1:1").load("model")
    assert caught.value.reason == "TRITON_UNAVAILABLE"
