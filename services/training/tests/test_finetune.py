"""Fine-tuning learns, selects the best epoch, resumes after a crash, and can be stopped."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from vesta_training.errors import LearningError
from vesta_training.example import Array
from vesta_training.features.backbone import Backbone, load_network
from vesta_training.heads.linear_head import fit_head
from vesta_training.recipes.choices import FinetuneChoices, HeadChoices, Task
from vesta_training.tasks.checkpoints import CheckpointFile
from vesta_training.tasks.classification.augment import crop, draw_crops
from vesta_training.tasks.classification.finetune import FinetuneInput, Images, Tuned, finetune

TAUGHT, HELD = range(12), range(12, 20)


class Killed(Exception):
    pass


@pytest.fixture
def tune(digits: Any, embeddings: Array, backbone: Backbone, tmp_path: Path) -> Callable[..., Tuned]:
    labels = np.array([[label == concept for concept in digits.concepts] for label in digits.labels])
    head = fit_head(embeddings[:12], labels[:12], digits.concepts, Task.CLASSIFICATION, HeadChoices(), seed=0).head

    def run(
        stepped: Callable[[int, int, float], None] = lambda step, steps, loss: None,
        folder: str = ".",
        fingerprint: str = "same",
        broken: bool = False,
        **choices: Any,
    ) -> Tuned:
        (tmp_path / folder).mkdir(exist_ok=True)
        inputs = FinetuneInput(
            replace(head, bias=head.bias * np.float32("nan")) if broken else head,
            Images(tuple(digits.sha256s[n] for n in TAUGHT), labels[list(TAUGHT)]),
            Images(tuple(digits.sha256s[n] for n in HELD), labels[list(HELD)]),
            choices=FinetuneChoices(**({"epochs": 2, "batch_size": 6} | choices)),
            head_choices=HeadChoices(),
            input_size_px=224,
            fingerprint=fingerprint,
            seed=3,
        )
        resumable = CheckpointFile(tmp_path / folder / "checkpoint")
        return finetune(
            load_network(backbone), inputs, pixels=digits.pixels, resumable=resumable, threads=1, stepped=stepped
        )

    return run


def test_a_killed_fine_tuning_resumes_to_the_same_result(tune: Callable[..., Tuned]) -> None:
    whole = tune(folder="whole")

    def kill_in_the_second_epoch(step: int, steps: int, loss: float) -> None:
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        tune(kill_in_the_second_epoch, folder="killed")
    steps: list[int] = []
    resumed = tune(lambda step, count, loss: steps.append(step), folder="killed")

    assert steps == [3, 4]
    assert resumed.embedding_digest == whole.embedding_digest
    assert resumed.head.weights == pytest.approx(whole.head.weights, abs=1e-6)


def test_another_training_does_not_resume_from_this_checkpoint(tune: Callable[..., Tuned]) -> None:
    tune(epochs=1)
    steps: list[tuple[int, int]] = []
    tune(lambda step, count, loss: steps.append((step, count)), fingerprint="another", epochs=1)

    assert steps == [(1, 2), (2, 2)]


def test_an_unreadable_checkpoint_is_ignored(tune: Callable[..., Tuned], tmp_path: Path) -> None:
    whole = tune(epochs=1)
    (tmp_path / "checkpoint").write_bytes((tmp_path / "checkpoint").read_bytes()[:-1000])
    steps: list[int] = []
    again = tune(lambda step, count, loss: steps.append(step), epochs=1)

    assert steps == [1, 2]
    assert again.embedding_digest == whole.embedding_digest


def test_harmful_fine_tuning_keeps_the_initial_state(tune: Callable[..., Tuned]) -> None:
    tuned = tune(epochs=1, learning_rate=0.5, head_learning_rate=5.0, warmup_share=0.0)

    assert tuned.epoch == 0


def test_a_loss_that_is_not_finite_ends_fine_tuning(tune: Callable[..., Tuned]) -> None:
    with pytest.raises(LearningError, match="use a smaller learning_rate"):
        tune(broken=True, epochs=1)


@pytest.mark.parametrize("flip", [True, False])
def test_crops_have_the_requested_size_and_lie_in_the_image(flip: bool) -> None:
    images = torch.arange(256.0).expand(5, 3, 64, 256)
    crops = crop(images, draw_crops(5, 0.3, flip=flip, generator=torch.Generator().manual_seed(1)), 32)
    directions = {bool(crop[0, 0, -1] > crop[0, 0, 0]) for crop in crops}

    assert crops.shape == (5, 3, 32, 32)
    assert crops.min() >= 0
    assert crops.max() <= 255
    assert directions == ({True, False} if flip else {True})


def test_a_crop_of_the_whole_image_is_the_image() -> None:
    images = torch.rand(2, 3, 16, 16)
    crops = crop(images, draw_crops(2, 1.0, flip=False, generator=torch.Generator().manual_seed(0)), 16)

    assert crops.shape == images.shape
