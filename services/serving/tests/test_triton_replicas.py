"""Two real Tritons: a version is ready when both have loaded it, requests are distributed, and a lost server does not block forever."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import pytest
from numpy.typing import NDArray
from serving_builders import a_picture, eventually
from serving_models import a_triton_model, an_onnx
from serving_service import Serving
from vesta_common import deadline
from vesta_common.errors import DeadlineExceeded, Unavailable
from vesta_common.media.model_pictures import model_picture
from vesta_common.runtime.engine_watch import TRITON, describe_failure
from vesta_contracts.serving.v1 import Deployment, PredictInput
from vesta_local.platform import Platform
from vesta_local.testing import RECOVERY_DEADLINE
from vesta_serving.triton.client import Triton
from vesta_serving.triton.model import BATCH_MAX, Outputs
from vesta_serving.triton.replicas import RETIRED_OPEN, UNAVAILABLE_MAX, Tritons, addresses_of

pytestmark = pytest.mark.own_engines
RED = PredictInput(data=a_picture("red"))
PICTURE = np.zeros((1, 256, 256, 3), np.uint8)
NOBODY = "127.0.0.1:1"


@pytest.fixture(scope="session")
def both(engines: Platform) -> Platform:
    """Two Tritons on the engines' object store."""
    engines.home.choose_replicas(2)
    platform = Platform(engines.home, ["inference"])
    platform.up()
    return platform


@pytest.fixture(scope="session")
def triton(both: Platform) -> str:
    """The addresses of both, as the setting of the service."""
    return both.home.addresses("inference")


def answered(address: str, name: str) -> int:
    """Returns the number of images that a Triton has predicted with a model."""
    statistics = Triton(address)._client.get_inference_statistics(name)
    return sum(model.inference_stats.success.count for model in statistics.model_stats)


def triton_name(serving: Serving, deployment: Deployment) -> str:
    return serving.triton_name(deployment.stable_version)


def test_serving_reports_a_problem_only_if_no_triton_responds(triton: str) -> None:
    Tritons(f"{NOBODY},{triton.partition(',')[0]}").check()
    with pytest.raises(Unavailable) as away:
        Tritons(NOBODY).check()
    assert (
        describe_failure(TRITON, away.value) == "Triton does not respond; check that it is running, and TRITON_ADDRESS"
    )


def test_a_version_is_ready_once_both_replicas_have_loaded_it_and_each_gets_half_of_the_calls(
    serving: Serving, triton: str
) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    name = triton_name(serving, deployment)
    before = [answered(address, name) for address in triton.split(",")]
    assert all(before)  # each was probed
    for _ in range(20):
        serving.triton.infer(name, PICTURE, ["probabilities"])

    def more() -> list[int]:
        after = [answered(address, name) for address in triton.split(",")]
        return [now - then for now, then in zip(after, before, strict=True)]

    assert eventually(more, lambda counts: sum(counts) == 20) == [10, 10]  # a Triton counts after it has answered


def test_a_restarting_triton_fails_no_call_and_gets_the_current_models(serving: Serving, both: Platform) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    name, address = triton_name(serving, deployment), both.home.address("inference-2")
    both.restart("inference-2")
    both.wait_healthy(["inference-2"], RECOVERY_DEADLINE)
    answers = [serving.predict(deployment, RED).predictions[0] for _ in range(4)]
    assert [one.labels[0].concept for one in answers] == ["red"] * 4
    with pytest.raises(Unavailable):
        Triton(address).probe(a_triton_model(name))

    serving.deployer.keep()

    Triton(address).probe(a_triton_model(name))
    assert [replica.is_current for replica in serving.triton.replicas()] == [True, True]


def test_a_model_that_one_replica_lost_is_served_by_the_other_and_reloaded_only_there(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    name = triton_name(serving, deployment)
    first, second = serving.triton.replicas()
    first.triton.unload(name)
    for _ in range(4):
        serving.triton.infer(name, PICTURE, ["probabilities"])
    assert (first.is_current, name in first.triton.loaded()) == (False, False)

    serving.deployer.keep()

    assert name in first.triton.loaded()
    assert name in second.triton.loaded()


def test_a_model_that_another_replica_loads_during_the_check_stays_loaded(serving: Serving, triton: str) -> None:
    version = serving.registry.add(an_onnx())
    deployments: list[Deployment] = []

    class Meanwhile(Tritons):
        def loaded(self) -> set[str]:
            found = super().loaded()
            if not is_deploying:
                is_deploying.append(True)
                deployments.append(serving.deployed(version))
                found |= super().loaded()
            return found

    is_deploying: list[bool] = []
    serving.deployer._triton = Meanwhile(triton)
    serving.deployer.keep()

    serving.triton.probe(a_triton_model(triton_name(serving, deployments[0])))


def test_an_unavailable_replica_is_awaited_for_a_bounded_time_then_reported_and_skipped(
    serving: Serving, both: Platform
) -> None:
    name = triton_name(serving, serving.deployed(serving.registry.add(an_onnx())))
    now = 0.0
    tritons = Tritons(f"{both.home.address('inference')},{NOBODY}", monotonic=lambda: now)
    with pytest.raises(Unavailable, match=NOBODY):
        tritons.load(name)
    assert not tritons.is_live()
    now = (UNAVAILABLE_MAX + timedelta(seconds=1)).total_seconds()

    tritons.load(name)
    tritons.probe(a_triton_model(name))

    assert tritons.is_live()
    assert (tritons.count(available=True), tritons.count(available=False)) == (1, 1)


def test_the_error_says_that_no_replica_responds(serving: Serving) -> None:
    with pytest.raises(Unavailable, match=NOBODY) as caught:
        Tritons(NOBODY).infer("model", PICTURE, ["probabilities"])
    assert caught.value.reason == "TRITON_UNAVAILABLE"


def test_a_server_that_replaced_all_known_ones_is_found_at_the_next_call(
    serving: Serving, both: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    name, address = triton_name(serving, deployment), both.home.address("inference")
    resolved, now = [NOBODY], [0.0]
    monkeypatch.setattr("vesta_serving.triton.replicas.addresses_of", lambda part: resolved)
    tritons = Tritons("inference:8001", monotonic=lambda: now[0])
    with pytest.raises(Unavailable, match=NOBODY):
        tritons.infer(name, PICTURE, ["probabilities"])

    resolved[:] = [address]
    now[0] += 1

    assert tritons.infer(name, PICTURE, ["probabilities"])["probabilities"].shape[0] == 1


def test_a_server_that_is_gone_stays_open_for_the_calls_that_still_know_it(
    serving: Serving, both: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    name, first, second = triton_name(serving, deployment), *(both.home.address(f"inference{n}") for n in ("", "-2"))
    resolved, now = [first], [0.0]
    monkeypatch.setattr("vesta_serving.triton.replicas.addresses_of", lambda part: resolved)
    tritons = Tritons("inference:8001", monotonic=lambda: now[0])
    (gone,) = tritons.replicas()

    resolved[:] = [second]
    now[0] = 5
    assert [replica.address for replica in tritons.replicas()] == [second]
    assert gone.triton.infer(name, PICTURE, ["probabilities"])["probabilities"].shape[0] == 1

    now[0] = 5 + RETIRED_OPEN.total_seconds()
    tritons.replicas()
    with pytest.raises(ValueError, match="closed"):
        gone.triton.infer(name, PICTURE, ["probabilities"])


def test_callers_that_miss_a_model_at_once_load_it_once(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    serving.triton.unload(triton_name(serving, deployment))
    loads: list[str] = []
    load = serving.triton.load
    monkeypatch.setattr(serving.triton, "load", lambda name: (loads.append(name), load(name)))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: serving.predict(deployment, RED), range(8)))

    assert [one.predictions[0].labels[0].concept for one in answers] == ["red"] * 8
    assert loads == [triton_name(serving, deployment)]


def test_a_server_that_ends_does_not_keep_another_from_loading_a_missed_model(
    serving: Serving, both: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    name, address = triton_name(serving, deployment), both.home.address("inference")
    monkeypatch.setattr("vesta_serving.triton.replicas.addresses_of", lambda part: [address, NOBODY])
    monkeypatch.setattr(serving.triton, "_resolved", -10.0)
    assert len(serving.triton.replicas()) == 2
    Triton(address).unload(name)

    served = serving.predictor.served_model(deployment.name)
    predicted = serving.predictor.predict(served, [model_picture(a_picture("red"))], embeds=False)

    assert [score.concept for score in predicted[0].prediction.scores if score.score > 0.5] == ["red"]


def test_a_host_name_is_resolved_to_all_its_addresses() -> None:
    assert addresses_of("localhost:8001") == addresses_of("dns:///localhost:8001") == ["127.0.0.1:8001"]
    with pytest.raises(Unavailable, match="resolves to no address of Triton"):
        Tritons("nowhere.invalid:8001").load("model")


class MeetingTriton(Triton):
    """Returns the mean of each image as its embedding, once a number of batches are in progress at the same time."""

    def __init__(self, together: threading.Barrier) -> None:
        self._together = together

    def infer(self, name: str, pixels: NDArray[np.uint8], outputs: Sequence[str]) -> Outputs:
        assert len(pixels) <= BATCH_MAX
        self._together.wait(RECOVERY_DEADLINE.total_seconds())
        return {output: pixels.mean((1, 2, 3), np.float32)[:, None] for output in outputs}


def test_the_batches_of_a_request_run_concurrently_and_keep_their_order() -> None:
    together = threading.Barrier(3)
    tritons = Tritons("127.0.0.1:1", connect=lambda _: MeetingTriton(together))
    pixels = np.arange(2 * BATCH_MAX + 1, dtype=np.uint8)[:, None, None, None] * np.ones((1, 256, 256, 3), np.uint8)

    found = tritons.infer("model", pixels, ["embedding"])

    assert {name: values[:, 0].tolist() for name, values in found.items()} == {
        "embedding": list(range(2 * BATCH_MAX + 1))
    }


def test_a_deadline_of_the_caller_that_passes_is_not_a_failure_of_triton(serving: Serving, both: Platform) -> None:
    name = triton_name(serving, serving.deployed(serving.registry.add(an_onnx())))
    tritons = Tritons(both.home.address("inference"))
    with pytest.raises(DeadlineExceeded), deadline.within(0):
        tritons.infer(name, PICTURE, ["probabilities"])

    assert tritons.count(available=True) == 1
    assert tritons.infer(name, PICTURE, ["probabilities"])["probabilities"].shape == (1, 3)
