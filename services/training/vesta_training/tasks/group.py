"""The processes that tune one network together: each computes a part of every batch, and all take the same steps."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
Positions = npt.NDArray[np.int64]


class Group(Protocol):
    """All calls are collective: every process makes the same ones in the same order.

    Attributes:
        rank: of this process, from 0; only the first one writes anything.
        size: number of processes.

    Its methods raise Unavailable where another process is lost.
    """

    rank: int
    size: int

    def sum(self, tensors: Sequence["torch.Tensor"]) -> None:
        """Replaces each tensor by its sum over all processes."""
        ...

    def first(self, make: Callable[[], T]) -> T:
        """What the first process makes, in all of them; the others do not call `make`."""
        ...


class Helpers(Protocol):
    """Further processes of the same run, as the first one sees them."""

    def called(self, lesson: Any) -> AbstractContextManager[Group]:
        """Gives the others the same lesson, and answers the group that works on it."""
        ...


def share(group: Group, count: int) -> tuple[Positions, float]:
    """The positions of `count` images that this process computes, and their share of all.

    A process for which none is left computes the first one with a share of 0, so that it has gradients to add.
    """
    own = np.arange(count)[group.rank :: group.size]
    return (own, len(own) / count) if len(own) else (np.arange(1), 0.0)


class _Alone:
    """The group of one process."""

    rank, size = 0, 1

    def sum(self, tensors: Sequence["torch.Tensor"]) -> None:
        """They are the sum."""

    def first(self, make: Callable[[], T]) -> T:
        """This process is the first."""
        return make()


class _NoHelpers:
    @contextmanager
    def called(self, lesson: Any) -> Iterator[Group]:  # noqa: ARG002 - nobody else is to learn it
        """This process alone."""
        yield ALONE


ALONE: Group = _Alone()
NO_HELPERS: Helpers = _NoHelpers()
