"""The whole network of a detector is tuned, from a fitted head to a model file; it resumes after a crash and never gets worse."""

import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from boxed_scenes import CONCEPTS, Scenes, dependencies_of, train
from vesta_common.media.model_input import InputFormat
from vesta_training.errors import LearningError
from vesta_training.example import Split
from vesta_training.features.backbone import Backbone, load_network
from vesta_training.features.runtime import ModelRuntime
from vesta_training.models.detector_graph import Selection
from vesta_training.models.graph_layers import Calibration
from vesta_training.models.model_file import read_model
from vesta_training.progress import ProgressUpdate
from vesta_training.recipes.choices import DetectionFinetuneChoices, Task
from vesta_training.recipes.recipe import Recipe, builtin_recipe
from vesta_training.tasks.assignment import Assignment, Champion, Trained
from vesta_training.tasks.checkpoints import NO_CHECKPOINTS
from vesta_training.tasks.detection.default_boxes import choose_sizes, lay_out
from vesta_training.tasks.detection.detector import Detector
from vesta_training.tasks.detection.finetuning import finetune as finetune_module
from vesta_training.tasks.detection.finetuning.augment import augment
from vesta_training.tasks.detection.finetuning.finetune import DetectorTuning, Tuned, finetune
from vesta_training.tasks.detection.finetuning.learn import divide
from vesta_training.tasks.detection.finetuning.precision import Precision, precision_of
from vesta_training.tasks.detection.finetuning.tunable import tunable_backbone
from vesta_training.tasks.detection.network import DetectionHead
from vesta_training.tasks.group import ALONE, Group
from vesta_training.tasks.views.views import WHOLE, View, ViewChoices, draw_view, view_boxes, view_pixels

TRAIN_COUNT, COUNT = 14, 20
EPOCHS, BATCH_COUNT = 2, 3


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes(COUNT)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """A small detector, which is tuned in seconds."""
    shipped = builtin_recipe("detection-finetune")
    assert shipped.detection is not None
    assert shipped.detection_finetune is not None
    head = {
        "side_px": 128,
        "views": 2,
        "pyramid_channels": 16,
        "steps_min": 60,
        "steps_max": 60,
        "calibration_folds": 5,
    }
    tuning = {"epochs": EPOCHS, "batch_size": 4, "holdout_share": 0.3}
    return replace(
        shipped,
        detection=shipped.detection.model_copy(update=head),
        detection_finetune=shipped.detection_finetune.model_copy(update=tuning),
    )


@pytest.fixture(scope="module")
def assignment(scenes: Scenes, recipe: Recipe) -> Assignment:
    return Assignment(recipe=recipe, examples=scenes.examples(TRAIN_COUNT), concepts=CONCEPTS, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


def with_tuning(assignment: Assignment, **choices: Any) -> Assignment:
    tuning = assignment.recipe.detection_finetune
    assert tuning is not None
    return replace(assignment, recipe=replace(assignment.recipe, detection_finetune=tuning.model_copy(update=choices)))


@pytest.fixture(scope="module")
def trained(assignment: Assignment, scenes: Scenes, folder: Path) -> Trained:
    return train(assignment, dependencies_of(scenes, folder, "first"))


def test_a_tuned_detector_finds_the_objects_of_test_scenes(trained: Trained) -> None:
    fitted = trained.card["fitted"]

    assert trained.metrics is not None
    assert trained.metrics.mean_average_precision_50.value > 0.6
    assert trained.held_out_accuracy is not None
    assert trained.held_out_accuracy.value == pytest.approx(max(fitted["heldOutPrecisionByEpoch"]), abs=1e-3)
    assert len(fitted["heldOutPrecisionByEpoch"]) == EPOCHS + 1
    assert (fitted["imageCount"], fitted["heldOutCount"], fitted["arithmetic"]) == (10, 4, "float32")
    assert trained.finetune_skipped == ""
    assert trained.held_out is not None
    assert "detection_finetune.learning_rate" in trained.card_markdown


def test_the_file_is_a_detector_with_embeddings_of_its_own(
    trained: Trained, backbone: Backbone, scenes: Scenes
) -> None:
    model = read_model(trained.onnx_path)
    pixels = scenes.pixels(scenes.examples(0)[0].image_sha256, InputFormat(128, 128))[None]

    assert (model.task, model.concepts, model.thresholds) == (Task.DETECTION, CONCEPTS, trained.thresholds)
    assert [output.name for output in model.signature.outputs] == ["objects", "embedding"]
    assert trained.card["fitted"]["tunedEpoch"] > 0
    assert trained.embedding_digest == model.embedding_digest != backbone.digest
    assert trained.card["file"]["differenceMax"] <= 1e-3
    objects, embedding = ModelRuntime(trained.onnx_path).run_all(pixels, ["objects", "embedding"])
    assert objects.shape == (1, 100, 6)
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)


def test_a_killed_training_resumes_to_the_same_file(
    trained: Trained, assignment: Assignment, scenes: Scenes, folder: Path
) -> None:
    dependencies = dependencies_of(scenes, folder, "second")
    steps: list[tuple[str, int]] = []

    def stop(update: ProgressUpdate) -> None:
        if (update.phase, update.step) == ("finetune", BATCH_COUNT + 1):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(assignment, dependencies, stop)
    resumed = train(assignment, dependencies, lambda update: steps.append((update.phase, update.step)))

    assert [step for phase, step in steps if phase == "finetune" and step] == [4, 5, 6]
    assert [step for phase, step in steps if phase == "head" and step] == []
    assert resumed.digest == trained.digest


def test_harmful_tuning_keeps_the_initial_state(assignment: Assignment, scenes: Scenes, folder: Path) -> None:
    harmful = with_tuning(assignment, epochs=1, learning_rate=0.5, head_learning_rate=0.5, warmup_share=0.0)

    fitted = train(harmful, dependencies_of(scenes, folder, "third")).card["fitted"]

    assert fitted["tunedEpoch"] == 0


def a_tuning(scenes: Scenes, backbone: Backbone, **choices: Any) -> DetectorTuning:
    """Returns the tuning of a random head with batches of 3 and 2 images."""
    torch.manual_seed(7)
    defaults = lay_out(choose_sizes(np.full((1, 2), 0.3, np.float32), 64, 2, seed=0), 64)
    detector = Detector(
        head=DetectionHead((40, 112, 320), 16, 2, len(CONCEPTS)),
        defaults=defaults,
        concepts=CONCEPTS,
        selection=Selection(0.02, 0.5, 100),
        calibration=Calibration((1.0, 1.0), (0.0, 0.0)),
        thresholds=(0.5, 0.5),
    )
    examples = scenes.examples(COUNT)
    return DetectorTuning(
        start=tunable_backbone(load_network(backbone), detector, 64, backbone),
        learn=examples[:5],
        held_out=examples[5:8],
        concepts=CONCEPTS,
        choices=DetectionFinetuneChoices(**({"epochs": 1, "batch_size": 3} | choices)),
        views=ViewChoices(0.65, 1.6, flip=True),
        fingerprint="same",
        seed=1,
    )


def test_a_loss_that_is_not_finite_ends_the_tuning(scenes: Scenes, backbone: Backbone) -> None:
    tuning = a_tuning(scenes, backbone)
    tuning.start.detector.head.classes[0].pointwise.bias.data.fill_(float("nan"))

    with pytest.raises(LearningError, match="use a smaller learning_rate"):
        finetune(tuning, pixels=scenes.pixels, resumable=NO_CHECKPOINTS, threads=1)


class Kept:
    """Keeps the last state in memory."""

    state: dict[str, Any]

    def find(self, fingerprint: str) -> None:
        """Returns None: there is no earlier attempt."""

    def keep(self, fingerprint: str, state: dict[str, Any]) -> None:
        self.state = state


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_start_sets_the_learning_rate_of_its_network(scenes: Scenes, backbone: Backbone, share: float) -> None:
    tuning, kept = a_tuning(scenes, backbone), Kept()
    tuning = replace(tuning, start=replace(tuning.start, rate_share=share))  # type: ignore[type-var]
    before = {f"network.{name}": value for name, value in tuning.start.network.state_dict().items()} | {
        f"head.{name}": value for name, value in tuning.start.detector.head.state_dict().items()
    }

    finetune(tuning, pixels=scenes.pixels, resumable=kept, threads=1)

    moved = {name.split(".")[0] for name, value in kept.state["model"].items() if not torch.equal(value, before[name])}
    assert moved == ({"head"} if share == 0 else {"head", "network"})


class ThreadGroup:
    """A group of threads instead of processes."""

    size = 2

    def __init__(self, rank: int, barrier: threading.Barrier, values: list[Any]) -> None:
        self.rank, self._barrier, self._values = rank, barrier, values

    def sum(self, tensors: Sequence[torch.Tensor]) -> None:
        self._values[self.rank] = [one.detach().clone() for one in tensors]
        self._barrier.wait()
        for position, one in enumerate(tensors):
            one.copy_(self._values[0][position] + self._values[1][position])
        self._barrier.wait()

    def broadcast(self, make: Callable[[], Any]) -> Any:
        if self.rank == 0:
            self._values[0] = make()
        self._barrier.wait()
        value = self._values[0]
        self._barrier.wait()
        return value


def test_two_processes_take_the_same_steps_as_one(scenes: Scenes, backbone: Backbone) -> None:
    tuning = pickle.dumps(a_tuning(scenes, backbone))

    def tune(group: Group) -> Tuned:
        return finetune(
            pickle.loads(tuning),
            pixels=scenes.pixels,
            resumable=NO_CHECKPOINTS,
            threads=1,
            group=group,
        )

    alone = tune(ALONE)
    barrier, values = threading.Barrier(2), [None, None]
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda rank: tune(ThreadGroup(rank, barrier, values)), range(2)))

    for one in both:
        assert one.precisions == pytest.approx(alone.precisions, abs=1e-6)
        states = [
            each.detector.network.state_dict() | each.detector.detector.head.state_dict() for each in (one, alone)
        ]
        assert all(torch.allclose(states[0][name], states[1][name], atol=1e-5) for name in states[0])


def test_too_few_images_are_learned_without_tuning_and_the_card_says_so(
    assignment: Assignment, scenes: Scenes, folder: Path
) -> None:
    few = replace(assignment, examples=assignment.examples[:8])

    trained = train(few, dependencies_of(scenes, folder, "fifth"))

    assert "Fine-tuning was skipped: of the 8 labelled images, 4 have to be held out" in trained.finetune_skipped
    assert trained.finetune_skipped in trained.card_markdown


def test_a_tuned_detector_is_compared_with_the_champion(
    trained: Trained, assignment: Assignment, scenes: Scenes, folder: Path
) -> None:
    champion = Champion("projects/p/models/m/versions/1", trained.onnx_path)
    phases: list[str] = []

    again = train(
        replace(assignment, champion=champion),
        dependencies_of(scenes, folder, "sixth"),
        lambda update: phases.append(update.phase),
    )

    assert again.comparison is not None
    assert (again.comparison.difference.low, again.comparison.difference.high) == (0, 0)
    assert list(dict.fromkeys(phases)) == ["features", "head", "finetune", "export", "evaluate"]


def test_the_validation_split_is_held_out(scenes: Scenes) -> None:
    examples = scenes.examples(COUNT)
    choices = DetectionFinetuneChoices()
    with_validation = [*examples[:12], *(replace(one, split=Split.VALIDATION) for one in examples[12:])]

    parts = divide(with_validation, choices, seed=0)
    by_share = divide(examples, choices, seed=0)

    assert parts is not None
    assert parts.held_out == tuple(with_validation[12:])
    assert by_share is not None
    assert (len(by_share.learn), len(by_share.held_out)) == (16, 4)
    assert divide(examples[:11], choices, seed=0) is None


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4])
def test_images_and_boxes_are_moved_together(number: int) -> None:
    generator = np.random.default_rng(number)
    pixels = generator.integers(0, 256, (96, 96, 3), dtype=np.uint8)
    starts = generator.uniform(0, 0.7, (20, 2)).astype(np.float32)
    boxes = np.concatenate([starts, starts + generator.uniform(0.05, 0.3, (20, 2)).astype(np.float32)], axis=1)
    view = draw_view(f"{number:064x}", number, ViewChoices(0.6, 1.6, flip=True))

    image, learned = augment(pixels, boxes, np.arange(20), np.zeros(20, np.bool_), view, 64)

    expected, visible = view_boxes(boxes, view, 64)
    common = [one for one in learned.numbers if visible[one]]
    assert image.numpy().transpose(1, 2, 0) == pytest.approx(view_pixels(pixels, view, 64))
    assert len(common) >= len(learned.numbers) - 2  # on the edge of visibility, the pixels of the window decide
    assert learned.boxes == pytest.approx(expected[learned.numbers], abs=1.5 / 64)


def test_a_view_without_boxes_is_a_negative() -> None:
    pixels = np.full((64, 64, 3), 9, dtype=np.uint8)
    corner = np.array([[0.9, 0.9, 1.0, 1.0]], dtype=np.float32)
    enlarged = View((0.0, 0.0, 0.5, 0.5), flipped=False, colours=(1.0, 1.0, 1.0))

    image, learned = augment(pixels, corner, np.zeros(1, dtype=np.int64), np.zeros(1, np.bool_), enlarged, 32)
    whole, kept = augment(pixels, corner, np.zeros(1, dtype=np.int64), np.zeros(1, np.bool_), WHOLE, 32)
    _, crowded = augment(pixels, corner, np.zeros(1, dtype=np.int64), np.ones(1, np.bool_), WHOLE, 32)

    assert learned.boxes.shape == (0, 4)
    assert kept.boxes == pytest.approx(corner)
    assert (image == 9).all()
    assert (whole == 9).all()
    assert (len(crowded.boxes), len(crowded.crowds if crowded.crowds is not None else ())) == (0, 1)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_with_16_bits_nearly_the_same_is_learned(
    scenes: Scenes, backbone: Backbone, monkeypatch: pytest.MonkeyPatch, kind: torch.dtype
) -> None:
    losses: dict[str, list[float]] = {"exact": [], "mixed": []}

    def tune(name: str) -> Tuned:
        return finetune(
            a_tuning(scenes, backbone),
            pixels=scenes.pixels,
            resumable=NO_CHECKPOINTS,
            threads=1,
            stepped=lambda _, __, loss: losses[name].append(loss),
        )

    exact = tune("exact")
    monkeypatch.setattr(finetune_module, "precision_of", lambda device, mixed: Precision(device, kind))
    mixed = tune("mixed")

    assert (exact.arithmetic, mixed.arithmetic) == ("float32", str(kind).removeprefix("torch."))
    assert losses["mixed"] == pytest.approx(losses["exact"], rel=0.05)
    assert losses["mixed"] != losses["exact"]


def test_processors_compute_with_32_bits() -> None:
    layer = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    precision = precision_of("cpu", mixed=True)
    before = layer.weight.detach().clone()

    with precision.autocast():
        answer = layer(torch.ones(1, 2))
    precision.backward(answer.sum() * 100)
    precision.step(optimizer, list(layer.parameters()), norm_max=1.0)

    assert (precision.name, answer.dtype) == ("float32", torch.float32)
    assert float((layer.weight.detach() - before).norm()) == pytest.approx((2 / 3) ** 0.5, abs=1e-4)
