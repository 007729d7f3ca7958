"""Inferences that would wait share batches, and each caller gets its own results."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from vesta_common import deadline
from vesta_common.errors import DeadlineExceeded, Unavailable
from vesta_serving.triton.batching import Batching
from vesta_serving.triton.client import ModelMissing
from vesta_serving.triton.model import BATCH_MAX, Outputs

PATIENCE_SECONDS = 60
OUTPUTS = ["embedding"]


class SlowModel:
    """Returns the mean of each image as its embedding, once the test lets the call end."""

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []
        self.remaining_seconds: list[float] = []
        self.error: Exception | None = None
        self._calls = threading.Semaphore(0)
        self._released = threading.Semaphore(0)

    def infer(self, name: str, pixels: NDArray[np.uint8], outputs: Sequence[str]) -> Outputs:
        self.batch_sizes.append(len(pixels))
        self.remaining_seconds.append(deadline.limited(PATIENCE_SECONDS))
        self._calls.release()
        assert self._released.acquire(timeout=PATIENCE_SECONDS)
        if self.error:
            raise self.error
        return {output: pixels.mean((1, 2, 3), np.float32)[:, None] for output in outputs}

    def await_call(self) -> None:
        assert self._calls.acquire(timeout=PATIENCE_SECONDS)

    def end_calls(self, count: int = 1) -> None:
        self._released.release(count)


@pytest.fixture
def model() -> SlowModel:
    return SlowModel()


@pytest.fixture
def batching(model: SlowModel) -> Batching:
    return Batching(model.infer, lambda: 1)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(16) as threads:
        yield threads


def images(*values: int) -> NDArray[np.uint8]:
    return np.array(values, np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)


def means(outputs: Outputs) -> list[float]:
    return [float(value) for value in outputs["embedding"][:, 0]]


def await_waiting(batching: Batching, count: int) -> None:
    """Waits until so many inferences wait for a call to end."""
    condition = threading.Condition()
    with condition:
        assert condition.wait_for(
            lambda: condition.wait(0.001) or sum(len(lane.waiting) for lane in [*batching._lanes.values()]) == count,
            PATIENCE_SECONDS,
        )


def queue(
    pool: ThreadPoolExecutor, batching: Batching, act: Callable[[int], Outputs], values: Sequence[int], ahead: int = 0
) -> list[Future[Outputs]]:
    """Starts the inference of each value while a call runs, in order."""
    started = []
    for place, value in enumerate(values, 1):
        started.append(pool.submit(act, value))
        await_waiting(batching, ahead + place)
    return started


def test_an_inference_that_finds_a_free_call_starts_alone(batching: Batching, model: SlowModel) -> None:
    model.end_calls()
    assert means(batching.infer("model", images(7), OUTPUTS)) == [7]
    assert model.batch_sizes == [1]


def test_inferences_that_wait_share_full_batches_in_order(
    batching: Batching, model: SlowModel, pool: ThreadPoolExecutor
) -> None:
    running = pool.submit(batching.infer, "model", images(0), OUTPUTS)
    model.await_call()
    values = range(1, BATCH_MAX + 3)
    waiting = queue(pool, batching, lambda value: batching.infer("model", images(value), OUTPUTS), values)

    model.end_calls(3)

    assert means(running.result()) == [0]
    assert [means(each.result()) for each in waiting] == [[value] for value in values]
    assert model.batch_sizes == [1, BATCH_MAX, 2]


def test_a_batch_does_not_divide_an_inference_of_several_images(
    batching: Batching, model: SlowModel, pool: ThreadPoolExecutor
) -> None:
    pool.submit(batching.infer, "model", images(0), OUTPUTS)
    model.await_call()
    several = range(1, BATCH_MAX + 1)
    (alone,) = queue(pool, batching, lambda value: batching.infer("model", images(value), OUTPUTS), [9])
    (together,) = queue(pool, batching, lambda _: batching.infer("model", images(*several), OUTPUTS), [0], ahead=1)

    model.end_calls(3)

    assert (means(alone.result()), means(together.result())) == ([9], [*several])
    assert model.batch_sizes == [1, 1, BATCH_MAX]


def test_models_and_outputs_are_not_mixed(batching: Batching, model: SlowModel, pool: ThreadPoolExecutor) -> None:
    calls = [
        pool.submit(batching.infer, name, images(value), outputs)
        for value, (name, outputs) in enumerate(
            [("first", OUTPUTS), ("second", OUTPUTS), ("first", [*OUTPUTS, "probabilities"])]
        )
    ]
    for _ in calls:
        model.await_call()
    model.end_calls(3)

    assert [means(call.result()) for call in calls] == [[0], [1], [2]]
    assert model.batch_sizes == [1, 1, 1]


def test_an_error_reaches_every_caller_of_the_batch_and_the_next_batch_runs(
    batching: Batching, model: SlowModel, pool: ThreadPoolExecutor
) -> None:
    pool.submit(batching.infer, "model", images(0), OUTPUTS)
    model.await_call()
    waiting = queue(pool, batching, lambda value: batching.infer("model", images(value), OUTPUTS), [1, 2])
    model.end_calls()
    model.await_call()
    model.error = ModelMissing("model is not loaded", reason="MODEL_NOT_LOADED")
    model.end_calls()

    failures = [each.exception() for each in waiting]

    assert [type(each) for each in failures] == [ModelMissing, ModelMissing]
    assert failures[0] is not failures[1]
    assert isinstance(failures[0], Unavailable)
    assert failures[0].reason == "MODEL_NOT_LOADED"
    model.error = None
    model.end_calls()
    assert means(batching.infer("model", images(3), OUTPUTS)) == [3]


def test_a_caller_whose_deadline_passes_leaves_the_queue(
    batching: Batching, model: SlowModel, pool: ThreadPoolExecutor
) -> None:
    running = pool.submit(batching.infer, "model", images(0), OUTPUTS)
    model.await_call()

    with pytest.raises(DeadlineExceeded), deadline.within(0.01):
        batching.infer("model", images(1), OUTPUTS)

    model.end_calls()
    assert means(running.result()) == [0]
    assert model.batch_sizes == [1]


def test_a_batch_has_the_latest_deadline_of_its_callers(
    batching: Batching, model: SlowModel, pool: ThreadPoolExecutor
) -> None:
    def within(seconds: float) -> Outputs:
        with deadline.within(seconds):
            return batching.infer("model", images(1), OUTPUTS)

    pool.submit(batching.infer, "model", images(0), OUTPUTS)
    model.await_call()
    queue(pool, batching, within, [20, 40, 30])
    model.end_calls(2)
    model.await_call()

    assert 30 < model.remaining_seconds[1] <= 40


def test_a_batch_has_no_deadline_if_one_of_its_callers_has_none(
    batching: Batching, model: SlowModel, pool: ThreadPoolExecutor
) -> None:
    def within(seconds: float) -> Outputs:
        with deadline.within(seconds or None):
            return batching.infer("model", images(1), OUTPUTS)

    pool.submit(batching.infer, "model", images(0), OUTPUTS)
    model.await_call()
    queue(pool, batching, within, [20, 0])
    model.end_calls(2)
    model.await_call()

    assert model.remaining_seconds[1] == PATIENCE_SECONDS


def test_nothing_is_kept_of_a_model_that_is_not_in_use(batching: Batching, model: SlowModel) -> None:
    model.end_calls()
    batching.infer("model", images(1), OUTPUTS)
    assert not batching._lanes
