"""Fits a head on cached feature maps. Resumable, and deterministic for a number of threads.

The result is the moving average of the weights, which needs no held-out images to choose the best step.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from vesta_training.errors import LearningError
from vesta_training.features.feature_maps import MapCache
from vesta_training.recipes.choices import MapHeadChoices
from vesta_training.tasks.checkpoints import Resumable
from vesta_training.tasks.optimisation import GRADIENT_NORM_MAX, MovingAverage
from vesta_training.tasks.views.parallel_fits import Running

STEPS_PER_CHECKPOINT = 200
# Batch normalisation and depthwise convolutions take a third less time on a CPU if the channels of a cell are adjacent.
LAYOUT = torch.channels_last
# Random weights are drawn from torch's only generator.
_GENERATOR = Lock()


class LearnedView(Protocol):
    """A view of an image with what is to be learned from it."""

    @property
    def key(self) -> str:
        """The key of its maps."""
        ...


Head = TypeVar("Head", bound=nn.Module)
LearnedFrom = TypeVar("LearnedFrom", bound=LearnedView)


@dataclass(frozen=True, slots=True)
class FitInput(Generic[LearnedFrom]):
    """The input of a fit.

    Attributes:
        images: the views of each image.
        fingerprint: hash of all inputs. The fit resumes from a checkpoint with the same fingerprint.
    """

    images: Sequence[Sequence[LearnedFrom]]
    choices: MapHeadChoices
    steps: int
    seed: int
    fingerprint: str


def fit(
    inputs: FitInput[LearnedFrom],
    maps: MapCache,
    *,
    make_head: Callable[[], Head],
    loss_of: Callable[[Head, Any, Sequence[LearnedFrom]], torch.Tensor],
    resumable: Resumable,
    device: str,
    running: Running,
) -> Head:
    """Returns the fitted head, on the CPU, in evaluation mode. Can be called from several threads.

    Args:
        make_head: returns a head with random weights. It maps the maps of a batch by stride, float32, to its outputs.
        loss_of: returns the loss of the head, given its outputs for a batch of views.

    Raises:
        LearningError: the loss is not finite.
    """
    torch.set_num_threads(running.threads)
    choices = inputs.choices
    with _GENERATOR, torch.random.fork_rng(devices=[]):
        torch.manual_seed(inputs.seed)
        head = make_head().to(device).to(memory_format=LAYOUT).train()
    average = copy.deepcopy(head)
    averaging = MovingAverage(average, head)
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=choices.learning_rate, weight_decay=choices.weight_decay, fused=True
    )
    images, views = _schedule(inputs)
    first = 0
    if (state := resumable.find(inputs.fingerprint)) is not None:
        head.load_state_dict(state["head"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    for step in range(first, inputs.steps):
        batch = [inputs.images[image][view] for image, view in zip(images[step], views[step], strict=True)]
        for group in optimizer.param_groups:
            group["lr"] = choices.learning_rate * _rate(step, inputs.steps, choices.warmup_steps)
        loaded = [
            torch.from_numpy(one).to(device).to(torch.float32, memory_format=LAYOUT)
            for one in maps.load([view.key for view in batch])
        ]
        loss = loss_of(head, head(loaded), batch)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise LearningError(f"the loss is not finite at step {step + 1}; use a recipe with a lower learning_rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(head.parameters(), GRADIENT_NORM_MAX)
        optimizer.step()
        averaging.follow(step)
        if (step + 1) % STEPS_PER_CHECKPOINT == 0 or step + 1 == inputs.steps:
            resumable.keep(
                inputs.fingerprint,
                {
                    "head": head.state_dict(),
                    "average": average.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step + 1,
                },
            )
        running.stepped(step + 1, inputs.steps, value)
    return average.cpu().to(memory_format=torch.contiguous_format).eval()


def step_count(image_count: int, choices: MapHeadChoices) -> int:
    """Returns the number of steps for so many images: the epochs of the recipe, within its limits."""
    return int(np.clip(choices.epochs * image_count // choices.batch_size, choices.steps_min, choices.steps_max))


def _schedule(inputs: FitInput[LearnedFrom]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns the numbers of the images and of their views in each batch, both `(steps, batch)`."""
    generator = np.random.default_rng(inputs.seed)
    count = inputs.steps * inputs.choices.batch_size
    epochs = -(-count // len(inputs.images))
    order = np.concatenate([generator.permutation(len(inputs.images)) for _ in range(epochs)])[:count]
    view_counts = np.array([len(views) for views in inputs.images])
    views = (generator.random(count) * view_counts[order]).astype(np.int64)
    shape = (inputs.steps, inputs.choices.batch_size)
    return order.reshape(shape), views.reshape(shape)


def _rate(step: int, steps: int, warmup: int) -> float:
    """Returns the share of the learning rate: a linear rise, then half a cosine."""
    rise = min(1.0, (step + 1) / max(1, warmup))
    return rise * 0.5 * (1 + float(np.cos(np.pi * step / steps)))
