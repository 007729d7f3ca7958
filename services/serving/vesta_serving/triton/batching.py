"""Joins inferences that would wait for Triton into batches: a call costs serving and Triton as much for one image as for several."""

import copy
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from vesta_common import deadline
from vesta_common.rpc.admission import deadline_passed

from vesta_serving.triton.model import BATCH_MAX, Outputs

Infer = Callable[[str, NDArray[np.uint8], Sequence[str]], Outputs]
"""Runs a model, given its name, pixels `(N, height, width, 3)` and the names of the outputs, in one call."""


class _Inference:
    """The inference of one caller.

    Attributes:
        turn: locked until the inference has an outcome, or its caller has a batch to run.
        batch: the inferences that its caller runs together, itself first; empty as long as another caller may run it.
    """

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels
        self.deadline = deadline.find()
        self.turn = threading.Lock()
        self.turn.acquire()
        self.batch: list[_Inference] = []
        self.outcome: Outputs | Exception | None = None


class _Lane:
    """The inferences of one model with equal outputs: the number of running calls, and the inferences that wait for one to end."""

    def __init__(self) -> None:
        self.running = 0
        self.waiting: deque[_Inference] = deque()

    def next_batch(self) -> list[_Inference]:
        """Takes the first waiting inferences, at most `BATCH_MAX` images, and gives them to the caller of the first one."""
        batch: list[_Inference] = []
        image_count = 0
        while self.waiting and image_count + len(self.waiting[0].pixels) <= BATCH_MAX:
            batch.append(self.waiting.popleft())
            image_count += len(batch[-1].pixels)
        if batch:
            batch[0].batch = batch
        return batch


class Batching:
    """Runs inferences in a limited number of calls at a time. Those that find no free call wait, and are joined in their order.

    An inference that finds a free call starts at once: nothing waits for a batch to fill. Each batch is run by the caller of its first
    inference, so that no other threads are needed. Thread-safe.

    Args:
        infer: runs one batch of at most `BATCH_MAX` images.
        calls_max: returns the number of calls at a time, of each model.
    """

    def __init__(self, infer: Infer, calls_max: Callable[[], int]) -> None:
        self._infer = infer
        self._calls_max = calls_max
        self._lock = threading.Lock()
        self._lanes: defaultdict[tuple[str, ...], _Lane] = defaultdict(_Lane)

    def infer(self, name: str, pixels: NDArray[np.uint8], outputs: Sequence[str]) -> Outputs:
        """Runs a model, possibly together with other callers' images.

        Args:
            pixels: `(N, height, width, 3)`, N from 1 to `BATCH_MAX`, of the same size for all callers of a model.

        Raises:
            DeadlineExceeded: the caller's deadline has passed.
            Exception: the error of the call.
        """
        key, mine = (name, *outputs), _Inference(pixels)
        with self._lock:
            lane = self._lanes[key]
            if lane.running < self._calls_max():
                lane.running += 1
                mine.batch = [mine]
            else:
                lane.waiting.append(mine)
        if not mine.batch:
            self._await_turn(lane, mine)
        if mine.batch:
            self._run(key, mine.batch)
        if isinstance(mine.outcome, Exception):
            raise copy.copy(mine.outcome) from mine.outcome  # each caller adds its own traceback
        assert mine.outcome is not None
        return mine.outcome

    def _await_turn(self, lane: _Lane, mine: _Inference) -> None:
        """Returns when the inference has an outcome, or its caller a batch to run.

        Raises:
            DeadlineExceeded: the caller's deadline has passed before.
        """
        if mine.turn.acquire(timeout=-1 if mine.deadline is None else deadline.limited(threading.TIMEOUT_MAX)):
            return
        with self._lock:
            if mine.batch:  # the others of the batch wait for this caller
                return
            if mine in lane.waiting:
                lane.waiting.remove(mine)
        raise deadline_passed()

    def _run(self, key: tuple[str, ...], batch: Sequence[_Inference]) -> None:
        """Runs a batch, lets the next one begin, and wakes up the callers."""
        name, *outputs = key
        try:
            outcomes = self._outcomes(name, batch, outputs)
        except Exception as error:  # noqa: BLE001 - every caller of the batch gets the error
            outcomes = [error] * len(batch)
        with self._lock:
            lane = self._lanes[key]
            following = lane.next_batch()
            if not following:
                lane.running -= 1
                if not lane.running:
                    del self._lanes[key]
        if following:
            following[0].turn.release()
        for inference, outcome in zip(batch, outcomes, strict=True):
            inference.outcome = outcome
            if inference is not batch[0]:
                inference.turn.release()

    def _outcomes(
        self, name: str, batch: Sequence[_Inference], outputs: Sequence[str]
    ) -> Sequence[Outputs | Exception]:
        if len(batch) == 1:
            return [self._infer(name, batch[0].pixels, outputs)]
        deadlines = [inference.deadline for inference in batch]
        last = None if None in deadlines else max(each for each in deadlines if each is not None)
        with deadline.until(last):
            results = self._infer(name, np.concatenate([inference.pixels for inference in batch]), outputs)
        ends = np.cumsum([len(inference.pixels) for inference in batch])[:-1]
        parts = [np.split(results[output], ends) for output in outputs]
        return [dict(zip(outputs, part, strict=True)) for part in zip(*parts, strict=True)]
