"""Fine-tunes the whole network, starting from a fitted head (LP-FT, Kumar et al., arXiv 2202.10054). Resumable after every epoch.

The state before fine-tuning is one of the candidates, so that fine-tuning cannot increase the loss on the held-out images. With several
processes, each computes its part of every batch, the gradients are summed, and all processes take the same step. The result equals that
of a single process, except for the summation order of floating-point numbers.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from vesta_contracts.training.v1 import Estimate

from vesta_training.example import Array
from vesta_training.features.features import PixelSource
from vesta_training.hardware import CPU
from vesta_training.heads.calibration import fit_temperature, fit_thresholds, log_loss
from vesta_training.heads.linear_head import LOGIT_UNSEEN, Head, Labels, decide, exact_match_share, imbalance_terms
from vesta_training.heads.logistic_regression import Link, sigmoid, softmax
from vesta_training.progress import ignore_progress
from vesta_training.recipes.choices import FinetuneChoices, HeadChoices, Task
from vesta_training.tasks.checkpoints import NO_CHECKPOINTS, Resumable
from vesta_training.tasks.classification.augment import crop, draw_crops
from vesta_training.tasks.epochs import epoch_generator, epoch_parts, sum_gradients
from vesta_training.tasks.group import ALONE, Group
from vesta_training.tasks.optimisation import warm_cosine

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Images:
    """Images by their SHA-256, with labels `(N, C)` in the same order."""

    sha256s: tuple[str, ...]
    labels: Labels


@dataclass(frozen=True, slots=True)
class FinetuneInput:
    """The input of fine-tuning, as serialisable values that can be sent to other processes.

    Attributes:
        head: the head at the start.
        learn: the training images.
        held_out: the images that select the best epoch and calibrate the head.
        fingerprint: hash of all inputs. Fine-tuning resumes from a checkpoint with the same fingerprint.
        device: name of the torch device.
    """

    head: Head
    learn: Images
    held_out: Images
    choices: FinetuneChoices
    head_choices: HeadChoices
    input_size_px: int
    fingerprint: str
    seed: int
    device: str = CPU

    def take_part(
        self, load_network: Callable[[], "torch.nn.Module"], *, pixels: PixelSource, threads: int, group: Group
    ) -> None:
        """Takes part in the fine-tuning as another process; see `TuningInput`."""
        finetune(load_network(), self, pixels=pixels, resumable=NO_CHECKPOINTS, threads=threads, group=group)


@dataclass(frozen=True, slots=True)
class Tuned:
    """The result of fine-tuning.

    Attributes:
        network: on the CPU, in evaluation mode.
        embedding_digest: of the new embedding space.
        epoch: the best epoch; 0 is the state before fine-tuning.
    """

    network: "torch.nn.Module"
    head: Head
    embedding_digest: str
    temperature: float
    epoch: int
    held_out_loss: float
    held_out_accuracy: Estimate


def finetune(
    network: "torch.nn.Module",
    inputs: FinetuneInput,
    *,
    pixels: PixelSource,
    resumable: Resumable,
    threads: int,
    stepped: Callable[[int, int, float], None] = ignore_progress,
    group: Group = ALONE,
) -> Tuned:
    """Fine-tunes `network` in place.

    Args:
        resumable: storage of the state. The first process reads it at the start; all processes write it after every epoch.
        stepped: called after every step with its number, the total number of steps and the loss; raises an exception to stop.
        group: the process group.

    Raises:
        LearningError: the loss is not finite.
        Unavailable: another process of the group is lost.
    """
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(inputs.seed)
    choices, learn, device = inputs.choices, inputs.learn, inputs.device
    tuning = _Tuning(network, inputs, pixels, threads, group)
    batch_count = math.ceil(len(learn.sha256s) / choices.batch_size)
    steps = choices.epochs * batch_count
    parameters = [*network.parameters(), *tuning.linear.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": list(network.parameters()), "lr": choices.learning_rate},
            {"params": list(tuning.linear.parameters()), "lr": choices.head_learning_rate},
        ],
        weight_decay=choices.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_cosine(steps, choices.warmup_share))
    link: Link = "softmax" if inputs.head.task is Task.CLASSIFICATION else "sigmoid"
    weights, offset = (
        torch.from_numpy(term).to(device) for term in imbalance_terms(learn.labels, link, inputs.head_choices)
    )
    state = group.broadcast(lambda: resumable.find(inputs.fingerprint))
    if state is None:
        tuning.load(group.broadcast(tuning.state))
        best = tuning.candidate(0)
        first = 0
    else:
        tuning.load(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        best, first = state["best"], state["epoch"]
    for epoch in range(first, choices.epochs):
        generator = epoch_generator(inputs.seed, epoch)
        parts = epoch_parts(len(learn.sha256s), batch_count, generator, group)
        loaded = tuning.batches(learn.sha256s, [part.images for part in parts])
        for index, (part, images) in enumerate(zip(parts, loaded, strict=True)):
            crops = draw_crops(part.batch_size, choices.crop_area_min, flip=choices.flip, generator=generator)
            own = torch.from_numpy(part.images)
            truth = torch.from_numpy(learn.labels)[own].to(device)
            logits = tuning.logits(crop(images, crops[torch.from_numpy(part.positions)], inputs.input_size_px))
            loss = _loss(logits, truth, weights[own.to(device)], offset, link) * part.weight
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            value = sum_gradients(parameters, loss, group, epoch)
            optimizer.step()
            schedule.step()
            stepped(epoch * batch_count + index + 1, steps, value)
        candidate = tuning.candidate(epoch + 1)
        if candidate["loss"] < best["loss"]:
            best = candidate
        state = {
            "epoch": epoch + 1,
            "model": tuning.state(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "best": best,
        }
        resumable.keep(inputs.fingerprint, state)
    return tuning.finish(best)


class _Tuning:
    """The network with the head as a torch layer."""

    def __init__(
        self, network: "torch.nn.Module", inputs: FinetuneInput, pixels: PixelSource, threads: int, group: Group
    ) -> None:
        import torch

        head, device = inputs.head, inputs.device
        # Evaluation mode: the batch statistics remain those of ImageNet, so that small batches are possible.
        # The channels-last memory format makes depthwise convolutions 1.7 times faster on a CPU.
        self.network: Any = network.eval().to(device).to(memory_format=torch.channels_last)
        self.linear = torch.nn.Linear(*head.weights.shape).to(device)
        self._seen = head.bias > LOGIT_UNSEEN / 2
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(head.weights.T.copy()))
            self.linear.bias.copy_(torch.from_numpy(head.bias.copy()))
        self._inputs = inputs
        self._pixels = pixels
        self._threads = threads
        self._group = group

    def logits(self, images: "torch.Tensor") -> "torch.Tensor":
        """`(N, 3, S, S)` in [0, 255] → `(N, C)`."""
        import torch

        images = (images / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        features = self.network.extract_features(images).mean((2, 3))
        logits: torch.Tensor = self.linear(torch.nn.functional.normalize(features))
        return logits

    def batches(self, sha256s: Sequence[str], parts: Sequence[Any]) -> Iterator["torch.Tensor"]:
        """Yields the images of each part, `(N, 3, H, W)` float. The next part is fetched in the background."""
        import torch

        with ThreadPoolExecutor(self._threads, thread_name_prefix="pixels") as pool:
            ahead = [pool.submit(self._pixels, sha256s[index]) for index in parts[0]] if len(parts) else []
            for number in range(len(parts)):
                now = np.stack([future.result() for future in ahead])
                following = parts[number + 1] if number + 1 < len(parts) else ()
                ahead = [pool.submit(self._pixels, sha256s[index]) for index in following]
                yield torch.from_numpy(now).to(self._inputs.device).permute(0, 3, 1, 2).float()

    def candidate(self, epoch: int) -> dict[str, Any]:
        """Returns the current state with its calibrated loss on the held-out images. Each process computes a part of the images."""
        import torch

        held_out, head, group = self._inputs.held_out, self._inputs.head, self._group
        size, batch_size = self._inputs.input_size_px, self._inputs.choices.batch_size
        own = np.arange(len(held_out.sha256s))[group.rank :: group.size]
        parts = [own[start : start + batch_size] for start in range(0, len(own), batch_size)]
        answers = torch.zeros(held_out.labels.shape)
        with torch.inference_mode():
            for part, images in zip(parts, self.batches(held_out.sha256s, parts), strict=True):
                seen = torch.nn.functional.interpolate(images, size=(size, size), mode="bilinear")
                answers[torch.from_numpy(part)] = self.logits(seen).cpu()
        group.sum([answers])
        logits: Array = answers.numpy()
        link: Link = "softmax" if head.task is Task.CLASSIFICATION else "sigmoid"
        temperature = fit_temperature(logits, held_out.labels, link)
        probabilities = (softmax if link == "softmax" else sigmoid)(logits / np.float32(temperature))
        thresholds = list(fit_thresholds(probabilities, held_out.labels))
        right = exact_match_share(decide(head.task, probabilities, thresholds), held_out.labels)
        return {
            "epoch": epoch,
            "loss": log_loss(probabilities, held_out.labels, link),
            "temperature": temperature,
            "accuracy": (right.value, right.low, right.high),
            "thresholds": thresholds,
            "model": self.state(),
        }

    def state(self) -> dict[str, "torch.Tensor"]:
        """Returns a copy of all parameters and buffers on the CPU."""
        parts = {"network": self.network, "linear": self.linear}
        return {
            f"{part}.{name}": value.detach().cpu().clone()
            for part, module in parts.items()
            for name, value in module.state_dict().items()
        }

    def load(self, state: dict[str, "torch.Tensor"]) -> None:
        for part, module in (("network", self.network), ("linear", self.linear)):
            prefix = f"{part}."
            module.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})

    def finish(self, best: dict[str, Any]) -> Tuned:
        """Returns the best candidate as a network and a calibrated head."""
        head = self._inputs.head
        self.load(best["model"])
        temperature = np.float32(best["temperature"])
        share, low, high = best["accuracy"]
        weights = self.linear.weight.detach().cpu().numpy().T / temperature
        bias = self.linear.bias.detach().cpu().numpy() / temperature
        network = self.network.cpu().eval()
        digest = hashlib.sha256()
        for name, value in sorted(network.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.numpy().tobytes())
        return Tuned(
            network=network,
            head=replace(
                head,
                weights=np.ascontiguousarray(weights),
                bias=np.where(self._seen, bias, np.float32(LOGIT_UNSEEN)),
                thresholds=tuple(best["thresholds"]) if head.task is Task.MULTILABEL else (),
            ),
            embedding_digest=digest.hexdigest(),
            temperature=float(temperature),
            epoch=best["epoch"],
            held_out_loss=best["loss"],
            held_out_accuracy=Estimate(value=share, low=low, high=high),
        )


def _loss(
    logits: "torch.Tensor", truth: "torch.Tensor", weights: "torch.Tensor", offset: "torch.Tensor", link: Link
) -> "torch.Tensor":
    """Returns the mean loss, as in the fit of the head, from logits and labels `(N, C)`, and weights `(N, 1)` or `(N, C)`."""
    import torch

    if link == "softmax":
        targets = truth.to(logits.dtype).argmax(dim=1)
        losses = torch.nn.functional.cross_entropy(logits + offset, targets, reduction="none")[:, None]
    else:
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            logits + offset, truth.to(logits.dtype), reduction="none"
        )
    return (losses * weights).mean()
