"""Fine-tunes the whole network of a detector, starting from a fitted head. Resumable after every epoch.

The moving average of the weights is measured on held-out images after every epoch, and the best one is the result. The state before
fine-tuning is one of the candidates, so that fine-tuning cannot make the detector worse on these images. Several processes take the same
steps as one; see `tasks/classification/finetune.py`.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from vesta_common.media.model_input import InputFormat

from vesta_training.example import Pixels
from vesta_training.features.features import BATCH_SIZE, PixelSource
from vesta_training.hardware import CPU
from vesta_training.metrics.average_precision import average_precisions
from vesta_training.metrics.objects import ObjectPredictions, Objects
from vesta_training.progress import ignore_progress
from vesta_training.recipes.choices import DetectionFinetuneChoices
from vesta_training.tasks.checkpoints import NO_CHECKPOINTS, Resumable
from vesta_training.tasks.detection.boxed_view import BoxedView
from vesta_training.tasks.detection.detector import predictions_of
from vesta_training.tasks.detection.examples import BoxedExample
from vesta_training.tasks.detection.finetuning.augment import augment
from vesta_training.tasks.detection.finetuning.precision import precision_of
from vesta_training.tasks.detection.finetuning.tunable import TunableDetector
from vesta_training.tasks.detection.loss import LossSums
from vesta_training.tasks.epochs import epoch_generator, epoch_parts, sum_gradients
from vesta_training.tasks.group import ALONE, Group
from vesta_training.tasks.optimisation import GRADIENT_NORM_MAX, MovingAverage, warm_cosine
from vesta_training.tasks.views.views import SOURCE_SCALE, ViewChoices, draw_view

OBJECT_VALUES = 6


@dataclass(frozen=True, slots=True)
class DetectorTuning:
    """The input of a fine-tuning, as serialisable values that can be sent to other processes.

    Attributes:
        start: the detector at the start.
        learn: the training images.
        held_out: the images that select the best epoch.
        fingerprint: hash of all inputs. Fine-tuning resumes from a checkpoint with the same fingerprint.
        device: name of the torch device.
    """

    start: TunableDetector
    learn: tuple[BoxedExample, ...]
    held_out: tuple[BoxedExample, ...]
    concepts: tuple[str, ...]
    choices: DetectionFinetuneChoices
    views: ViewChoices
    fingerprint: str
    seed: int
    device: str = CPU

    def take_part(
        self,
        load_network: Callable[[], nn.Module],  # noqa: ARG002 - `start` has the network
        *,
        pixels: PixelSource,
        threads: int,
        group: Group,
    ) -> None:
        """Takes part in the fine-tuning as another process; see `TuningInput`."""
        finetune(self, pixels=pixels, resumable=NO_CHECKPOINTS, threads=threads, group=group)


@dataclass(frozen=True, slots=True)
class Tuned:
    """The result of fine-tuning.

    Attributes:
        detector: on the CPU, in evaluation mode.
        epoch: the best epoch; 0 is the state before fine-tuning.
        precisions: mAP@50 on the held-out images, before fine-tuning and after every epoch.
        held_out: the predictions of the result for the held-out images.
        arithmetic: see `Precision.name`.
    """

    detector: TunableDetector
    epoch: int
    precisions: tuple[float, ...]
    held_out: ObjectPredictions
    arithmetic: str


def finetune(
    inputs: DetectorTuning,
    *,
    pixels: PixelSource,
    resumable: Resumable,
    threads: int,
    stepped: Callable[[int, int, float], None] = ignore_progress,
    group: Group = ALONE,
) -> Tuned:
    """Fine-tunes a detector.

    Args:
        resumable: storage of the state. The first process reads it at the start; all processes write it after every epoch.
        stepped: called after every step with its number, the total number of steps and the loss; raises an exception to stop.
        group: the process group.

    Raises:
        LearningError: the loss is not finite.
        Unavailable: another process of the group is lost.
    """
    torch.set_num_threads(threads)
    choices, learn = inputs.choices, inputs.learn
    tuning = _Tuning(inputs, pixels, threads, group)
    batch_count = math.ceil(len(learn) / choices.batch_size)
    steps = choices.epochs * batch_count
    optimizer = torch.optim.AdamW(
        [
            {
                "params": list(tuning.model["network"].parameters()),
                "lr": choices.learning_rate * inputs.start.rate_share,
            },
            {
                "params": [one for one in tuning.model["head"].parameters() if one.requires_grad],
                "lr": choices.head_learning_rate,
            },
        ],
        weight_decay=choices.weight_decay,
    )
    parameters = [one for part in optimizer.param_groups for one in part["params"]]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_cosine(steps, choices.warmup_share))
    averaging = MovingAverage(tuning.average, tuning.model)
    precision = precision_of(inputs.device, mixed=choices.mixed_precision)
    state = group.broadcast(lambda: resumable.find(inputs.fingerprint))
    if state is None:
        best = tuning.candidate(0)
        precisions, first = [best["precision"]], 0
    else:
        tuning.load(state)
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        precision.load(state["scaler"])
        best, precisions, first = state["best"], state["precisions"], state["epoch"]
    for epoch in range(first, choices.epochs):
        parts = epoch_parts(len(learn), batch_count, epoch_generator(inputs.seed, epoch), group)
        for index, (images, views) in enumerate(tuning.batches([part.images for part in parts], epoch)):
            with precision.autocast():
                outputs = tuning.model["head"](tuning.model["network"](images))
            sums = inputs.start.sums(_float32(outputs), views)
            counted = float(parts[index].weight > 0)
            objects = sums.objects.detach().float() * counted
            group.sum([objects])
            loss = LossSums(sums.total * counted, objects).mean(parts[index].batch_size)
            optimizer.zero_grad(set_to_none=True)
            precision.backward(loss)
            value = sum_gradients(parameters, loss, group, epoch)
            precision.step(optimizer, parameters, GRADIENT_NORM_MAX)
            schedule.step()
            step = epoch * batch_count + index
            averaging.follow(step)
            stepped(step + 1, steps, value)
        candidate = tuning.candidate(epoch + 1)
        precisions.append(candidate["precision"])
        if candidate["precision"] > best["precision"]:
            best = candidate
        state = {
            "epoch": epoch + 1,
            "model": _on_cpu(tuning.model),
            "average": _on_cpu(tuning.average),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "scaler": precision.state(),
            "precisions": precisions,
            "best": best,
        }
        resumable.keep(inputs.fingerprint, state)
    return tuning.finish(best, precisions, precision.name)


class _Tuning:
    """The network and the head, with the moving average of their weights."""

    def __init__(self, inputs: DetectorTuning, pixels: PixelSource, threads: int, group: Group) -> None:
        start = inputs.start
        model = nn.ModuleDict({"network": start.network, "head": start.detector.head})
        # Evaluation mode: the statistics of batch normalisation remain those of the start, so that small batches are possible.
        self.model: Any = copy.deepcopy(model).eval().to(inputs.device).to(memory_format=torch.channels_last)
        self.average: Any = copy.deepcopy(self.model)
        self._inputs = inputs
        self._pixels = pixels
        self._threads = threads
        self._group = group
        self._numbers = {concept: number for number, concept in enumerate(inputs.concepts)}

    def load(self, state: dict[str, Any]) -> None:
        """Continues from a checkpoint."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])

    def batches(self, parts: Sequence[Any], epoch: int) -> Iterator[tuple[torch.Tensor, list[BoxedView]]]:
        """Yields the views of an epoch: of each part, `(N, 3, S, S)` float, and their boxes. The next part is loaded in the background."""
        learn = self._inputs.learn
        with ThreadPoolExecutor(self._threads, thread_name_prefix="views") as pool:
            ahead = [pool.submit(self._view, learn[index], epoch) for index in parts[0]]
            for number in range(len(parts)):
                images, views = zip(*(future.result() for future in ahead), strict=True)
                following = parts[number + 1] if number + 1 < len(parts) else ()
                ahead = [pool.submit(self._view, learn[index], epoch) for index in following]
                yield self._on_device(torch.stack(images)), list(views)

    def candidate(self, epoch: int) -> dict[str, Any]:
        """Returns the averaged weights with what they find on the held-out images. Each process computes a part of the images."""
        held_out, group, start = self._inputs.held_out, self._group, self._inputs.start
        own = list(range(len(held_out)))[group.rank :: group.size]
        examples = [held_out[position] for position in own]
        shapes = self._shapes()
        detector = start.tuned(self.average["network"], copy.deepcopy(self.average["head"]).cpu()).detector
        found = detector.find_in_maps(examples, self._maps(examples), shapes) if examples else []
        rows = torch.zeros(len(held_out), detector.selection.objects_max, OBJECT_VALUES, dtype=torch.float64)
        for position, objects in zip(own, found, strict=True):
            columns = (objects.boxes_xyxy_px, objects.scores[:, None], objects.numbers[:, None])
            rows[position, : len(objects.scores)] = torch.from_numpy(np.concatenate(columns, axis=1))
        group.sum([rows])
        known = average_precisions(self._predictions(rows)).at_50
        precision = 0.0 if np.isnan(known).all() else float(np.nanmean(known))
        return {"epoch": epoch, "precision": precision, "rows": rows, "model": _on_cpu(self.average)}

    def finish(self, best: dict[str, Any], precisions: Sequence[float], arithmetic: str) -> Tuned:
        """Returns the best candidate."""
        self.average.load_state_dict(best["model"])
        model = self.average.cpu().to(memory_format=torch.contiguous_format).eval()
        return Tuned(
            detector=self._inputs.start.tuned(model["network"], model["head"]),
            epoch=best["epoch"],
            precisions=tuple(precisions),
            held_out=self._predictions(best["rows"]),
            arithmetic=arithmetic,
        )

    def _view(self, example: BoxedExample, epoch: int) -> tuple[torch.Tensor, BoxedView]:
        start = self._inputs.start
        # View 0 is the image itself.
        view = draw_view(example.image_sha256, epoch + 1, self._inputs.views)
        source = self._squared(example, round(start.side_px * SOURCE_SCALE))
        numbers = example.numbers(self._numbers)
        return augment(source, start.boxes(example), numbers, example.is_crowd, view, start.side_px)

    def _squared(self, example: BoxedExample, side_px: int) -> Pixels:
        return self._pixels(example.image_sha256, InputFormat(side_px, side_px, self._inputs.start.resize))

    def _on_device(self, images: torch.Tensor) -> torch.Tensor:
        return images.to(self._inputs.device).float().contiguous(memory_format=torch.channels_last)

    def _maps(self, examples: Sequence[BoxedExample]) -> Iterator[tuple[Any, ...]]:
        """Yields the maps of images in batches, as they are cached."""
        side_px = self._inputs.start.side_px
        with ThreadPoolExecutor(self._threads, thread_name_prefix="pixels") as pool, torch.inference_mode():
            for begin in range(0, len(examples), BATCH_SIZE):
                batch = examples[begin : begin + BATCH_SIZE]
                images = np.stack(list(pool.map(lambda one: self._squared(one, side_px), batch)))
                maps = self.average["network"](self._on_device(torch.from_numpy(images).permute(0, 3, 1, 2)))
                yield tuple(one.half().cpu().numpy() for one in maps)

    def _shapes(self) -> list[tuple[int, int, int]]:
        side_px = self._inputs.start.side_px
        with torch.inference_mode():
            maps = self.average["network"](self._on_device(torch.zeros(1, 3, side_px, side_px)))
        return [(one.shape[1], one.shape[2], one.shape[3]) for one in maps]

    def _predictions(self, rows: torch.Tensor) -> ObjectPredictions:
        found = []
        for one in rows.numpy():
            kept = one[one[:, 4] > 0]
            found.append(Objects(kept[:, :4], kept[:, 5].astype(np.int64), kept[:, 4]))
        detector, concepts = self._inputs.start.detector, self._inputs.concepts
        return predictions_of(self._inputs.held_out, found, concepts, detector.thresholds)


def _float32(outputs: Any) -> Any:
    """Returns the outputs of a head as float32, in which the loss is computed."""
    values = [one.float() for one in outputs]
    return type(outputs)(*values) if hasattr(outputs, "_fields") else tuple(values)


def _on_cpu(module: nn.Module) -> dict[str, torch.Tensor]:
    """Returns a copy of all parameters and buffers on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
