"""Process groups for data-parallel fine-tuning: each process computes a part of every batch, and all take the same steps."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from vesta_training.features.features import PixelSource

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
Positions = npt.NDArray[np.int64]


class Group(Protocol):
    """A process group. All calls are collective: every process makes the same calls in the same order.

    The methods raise Unavailable if another process is lost.

    Attributes:
        rank: of this process, from 0. Only rank 0 writes results.
        size: number of processes.
    """

    rank: int
    size: int

    def sum(self, tensors: Sequence["torch.Tensor"]) -> None:
        """Replaces each tensor by its sum over all processes (all-reduce)."""
        ...

    def broadcast(self, make: Callable[[], T]) -> T:
        """Returns the result of `make` of the first process in all processes (broadcast). The others do not call `make`."""
        ...


class TuningInput(Protocol):
    """The input of a fine-tuning, as serialisable values that can be sent to other processes."""

    @property
    def device(self) -> str:
        """The name of the torch device of the first process."""
        ...

    def take_part(
        self, load_network: Callable[[], "torch.nn.Module"], *, pixels: PixelSource, threads: int, group: Group
    ) -> None:
        """Takes part in the fine-tuning as another process than the first one. Writes nothing.

        Args:
            load_network: loads the backbone of the recipe.

        Raises:
            LearningError: the training failed permanently.
            Unavailable: another process of the group is lost.
        """
        ...


class OtherRanks(Protocol):
    """The other processes of a distributed run, as the first process sees them."""

    def process_group(self, inputs: TuningInput) -> AbstractContextManager[Group]:
        """Sends the inputs of fine-tuning to the other processes, and returns the group of all processes."""
        ...


def share(group: Group, count: int) -> tuple[Positions, float]:
    """Returns the positions of the images, out of `count`, that this process computes, and their share of the batch.

    If there are fewer images than processes, a process without images computes the first one with a share of 0, so that it takes part in
    the sum of gradients.
    """
    own = np.arange(count)[group.rank :: group.size]
    return (own, len(own) / count) if len(own) else (np.arange(1), 0.0)


class _Alone:
    """The group of one process."""

    rank, size = 0, 1

    def sum(self, tensors: Sequence["torch.Tensor"]) -> None:
        """Does nothing: the tensors are the sum."""

    def broadcast(self, make: Callable[[], T]) -> T:
        """Returns the result of `make`."""
        return make()


class _NoOtherRanks:
    @contextmanager
    def process_group(self, inputs: TuningInput) -> Iterator[Group]:  # noqa: ARG002 - there are no other processes
        """Returns a group of this process only."""
        yield ALONE


ALONE: Group = _Alone()
NO_OTHER_RANKS: OtherRanks = _NoOtherRanks()
