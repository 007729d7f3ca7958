"""Model files predict as the head does, contain their metadata, and are deterministic."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from vesta_training.errors import ExportError
from vesta_training.features.backbone import Backbone
from vesta_training.features.runtime import ModelRuntime
from vesta_training.heads.linear_head import LOGIT_UNSEEN, Head
from vesta_training.models.export import export_backbone, export_model, probe_pixels
from vesta_training.models.model_file import PROBABILITIES, read_model
from vesta_training.recipes.choices import Task


def a_head(task: Task = Task.CLASSIFICATION) -> Head:
    generator = np.random.default_rng(0)
    return Head(
        task=task,
        concepts=("cat", "Hündin", "owl"),
        weights=generator.normal(0, 3, (1280, 3)).astype(np.float32),
        bias=np.array([0.1, -0.2, LOGIT_UNSEEN], dtype=np.float32),
        thresholds=(0.5, 0.25, 0.5) if task is Task.MULTILABEL else (),
    )


@pytest.mark.parametrize("task", [Task.CLASSIFICATION, Task.MULTILABEL])
def test_the_file_predicts_the_same_as_the_head(
    backbone: Backbone, backbone_path: Path, tmp_path: Path, task: Task
) -> None:
    head = a_head(task)
    export = export_model(backbone_path, head, backbone.digest, tmp_path / "model.onnx")
    made, pixels = ModelRuntime(export.path), probe_pixels()

    assert made.outputs == ("probabilities", "embedding")
    assert made.run(pixels, PROBABILITIES) == pytest.approx(head.probabilities(made.embed(pixels)), abs=1e-5)
    assert np.linalg.norm(made.embed(pixels), axis=1) == pytest.approx(1, abs=1e-5)
    assert (made.run(pixels, PROBABILITIES)[:, 2] == 0).all()


def test_a_model_without_a_head_only_embeds(backbone: Backbone, backbone_path: Path, tmp_path: Path) -> None:
    export = export_model(backbone_path, None, backbone.digest, tmp_path / "model.onnx")
    model = read_model(export.path)

    assert ModelRuntime(export.path).outputs == ("embedding",)
    assert (model.task, model.concepts, model.embedding_dimension) == (Task.EMBEDDING, (), 1280)


def test_images_of_any_number_and_size_are_accepted(backbone_path: Path) -> None:
    runtime = ModelRuntime(backbone_path)
    one = runtime.embed(np.zeros((1, 31, 500, 3), dtype=np.uint8))

    assert one.shape == (1, 1280)
    assert runtime.embed(np.zeros((3, 256, 256, 3), dtype=np.uint8)).shape == (3, 1280)


def test_the_embedding_of_an_image_does_not_depend_on_the_batch(backbone_path: Path) -> None:
    runtime, pixels = ModelRuntime(backbone_path), probe_pixels()

    assert runtime.embed(pixels[1:2])[0] == pytest.approx(runtime.embed(pixels)[1], abs=1e-5)


def test_the_file_contains_its_metadata(backbone: Backbone, backbone_path: Path, tmp_path: Path) -> None:
    head = a_head(Task.MULTILABEL)
    model = read_model(export_model(backbone_path, head, backbone.digest, tmp_path / "model.onnx").path)

    assert model.embedding_digest == backbone.digest
    assert (model.concepts, model.thresholds) == (head.concepts, head.thresholds)
    assert model.head is not None
    assert model.head.weights.tobytes() == head.weights.tobytes()


def test_equal_models_are_equal_bytes(backbone: Backbone, backbone_path: Path, tmp_path: Path) -> None:
    again = export_backbone(backbone, tmp_path)
    first = export_model(backbone_path, a_head(), backbone.digest, tmp_path / "first.onnx")
    second = export_model(again, a_head(), backbone.digest, tmp_path / "second.onnx")

    assert first.digest == second.digest


@pytest.mark.parametrize("content", [b"", b"cut off"])
def test_a_damaged_backbone_file_is_exported_again(backbone: Backbone, tmp_path: Path, content: bytes) -> None:
    path = export_backbone(backbone, tmp_path)
    whole = path.read_bytes()
    path.write_bytes(content)

    assert export_backbone(backbone, tmp_path).read_bytes() == whole


def test_the_file_uses_versions_that_older_runtimes_support(backbone_path: Path) -> None:
    model = onnx.load(backbone_path)

    assert (model.ir_version, model.opset_import[0].version) == (9, 18)


def test_a_head_that_differs_from_the_exported_file_is_detected(
    backbone: Backbone, backbone_path: Path, tmp_path: Path
) -> None:
    broken = replace(a_head(), bias=np.full(3, np.nan, dtype=np.float32))
    with pytest.raises(ExportError, match="differ by nan"):
        export_model(backbone_path, broken, backbone.digest, tmp_path / "model.onnx")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x09"])
def test_another_file_is_rejected(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ExportError, match="not a model file"):
        read_model(path)
