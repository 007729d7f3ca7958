"""Fits a detection head on cached feature maps. Resumable, and deterministic for a number of threads.

The loss is that of SSD (Liu et al., arXiv 1512.02325): cross entropy with mining of hard negatives, and smooth L1 of the offsets. The
result is the moving average of the weights, which needs no held-out images to choose the best step.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torchvision.ops import box_iou

from vesta_training.errors import LearningError
from vesta_training.example import Array
from vesta_training.features.feature_maps import MapCache
from vesta_training.progress import ignore_progress
from vesta_training.recipes.recipe import DetectionChoices
from vesta_training.tasks.checkpoints import Resumable
from vesta_training.tasks.detection.default_boxes import lay_out
from vesta_training.tasks.detection.network import DetectionHead, encode

# A default box must predict an object that it overlaps with this IoU, and the one that overlaps an object most must in any case.
MATCH_IOU_MIN = 0.5
NEGATIVES_PER_POSITIVE = 3
NEGATIVES_MIN = 12
GRADIENT_NORM_MAX = 5.0
AVERAGE_DECAY_MAX = 0.998
STEPS_PER_CHECKPOINT = 200


@dataclass(frozen=True, slots=True)
class LearnedView:
    """A view of an image to learn from: the key of its maps, its boxes `(M, 4)`, and the numbers `(M,)` of their concepts."""

    key: str
    boxes: Array
    numbers: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FitInput:
    """The input of a fit.

    Attributes:
        images: the views of each image.
        sizes: of the default boxes; see `choose_sizes`.
        fingerprint: hash of all inputs. The fit resumes from a checkpoint with the same fingerprint.
    """

    images: Sequence[Sequence[LearnedView]]
    concept_count: int
    sizes: tuple[Array, ...]
    choices: DetectionChoices
    steps: int
    seed: int
    fingerprint: str


def fit(
    inputs: FitInput,
    maps: MapCache,
    *,
    resumable: Resumable,
    threads: int,
    device: str,
    stepped: Callable[[int, int, float], None] = ignore_progress,
) -> DetectionHead:
    """Returns the fitted head, on the CPU, in evaluation mode.

    Args:
        stepped: called after every step with its number, the total number of steps and the loss; raises an exception to stop.

    Raises:
        LearningError: the loss is not finite.
    """
    torch.set_num_threads(threads)
    choices = inputs.choices
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(inputs.seed)
        channels = [shape[0] for shape in maps.shapes]
        head = DetectionHead(channels, choices.pyramid_channels, choices.boxes_per_cell, inputs.concept_count)
    head = head.to(device).train()
    average = copy.deepcopy(head)
    optimizer = torch.optim.AdamW(head.parameters(), lr=choices.learning_rate, weight_decay=choices.weight_decay)
    defaults = torch.from_numpy(lay_out(inputs.sizes, choices.side_px)).to(device)
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
        loaded = [torch.from_numpy(one).to(device).float() for one in maps.load([view.key for view in batch])]
        logits, offsets = head(loaded)
        loss = _loss(logits, offsets, batch, defaults)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise LearningError(f"the loss is not finite at step {step + 1}; use a lower detection.learning_rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(head.parameters(), GRADIENT_NORM_MAX)
        optimizer.step()
        _follow(average, head, min(AVERAGE_DECAY_MAX, (1 + step) / (10 + step)))
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
        stepped(step + 1, inputs.steps, value)
    return average.cpu().eval()


def step_count(image_count: int, choices: DetectionChoices) -> int:
    """Returns the number of steps for so many images: the epochs of the recipe, within its limits."""
    return int(np.clip(choices.epochs * image_count // choices.batch_size, choices.steps_min, choices.steps_max))


def _schedule(inputs: FitInput) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
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


def _loss(
    logits: torch.Tensor, offsets: torch.Tensor, batch: Sequence[LearnedView], defaults: torch.Tensor
) -> torch.Tensor:
    """Returns the loss of a batch, by the number of matched default boxes."""
    classes = torch.zeros(logits.shape[:2], dtype=torch.int64, device=logits.device)
    box_loss = offsets.new_zeros(())
    for row, view in enumerate(batch):
        if not len(view.boxes):
            continue
        boxes = torch.from_numpy(view.boxes).to(logits.device)
        matched = _match(boxes, defaults)
        positive = matched >= 0
        classes[row, positive] = torch.from_numpy(view.numbers).to(logits.device)[matched[positive]] + 1
        wanted = encode(boxes[matched[positive]], defaults[positive])
        box_loss = box_loss + nn.functional.smooth_l1_loss(offsets[row, positive], wanted, reduction="sum")
    positive = classes > 0
    entropy = nn.functional.cross_entropy(logits.flatten(0, 1), classes.flatten(), reduction="none").view(classes.shape)
    # Negatives with the highest loss only, because nearly all default boxes are easy background.
    mined = (NEGATIVES_PER_POSITIVE * positive.sum(dim=1, keepdim=True)).clamp(min=NEGATIVES_MIN)
    negatives = torch.where(positive, -torch.inf, entropy.detach())
    rank = negatives.argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True)
    counted = positive | (rank < mined)
    total: torch.Tensor = (entropy[counted].sum() + box_loss) / positive.sum().clamp(min=len(batch))
    return total


def _match(boxes: torch.Tensor, defaults: torch.Tensor) -> torch.Tensor:
    """Returns `(A,)`, the number of the box that each default box must predict, or -1."""
    corners = torch.cat([defaults[:, :2] - defaults[:, 2:] / 2, defaults[:, :2] + defaults[:, 2:] / 2], dim=1)
    overlap: torch.Tensor = box_iou(boxes, corners)
    matched: torch.Tensor
    best, matched = overlap.max(dim=0)
    matched[best < MATCH_IOU_MIN] = -1
    matched[overlap.argmax(dim=1)] = torch.arange(len(boxes), device=boxes.device)
    return matched


def _follow(average: nn.Module, head: nn.Module, decay: float) -> None:
    """Moves the average towards the head; counts are copied."""
    with torch.no_grad():
        for own, new in zip(average.state_dict().values(), head.state_dict().values(), strict=True):
            if own.dtype.is_floating_point:
                own.lerp_(new, 1 - decay)
            else:
                own.copy_(new)
