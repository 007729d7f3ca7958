"""Predictions on a real Triton: images, stored items, embeddings, thresholds, and the limit of images in flight."""

import hashlib
import io
import threading
import tracemalloc
from datetime import timedelta

import grpc
import numpy as np
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from PIL import Image
from serving_builders import DATASET, PROJECT, a_picture
from serving_models import an_onnx, an_onnx_of_several_labels, an_onnx_that_only_embeds
from serving_service import GREEN, IMAGES_IN_FLIGHT_MAX, RED, Serving, labels
from vesta_common.errors import (
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.serving.v1 import (
    DeleteDeploymentRequest,
    Deployment,
    GetPredictionRequest,
    ImagePrediction,
    ListPredictionsRequest,
    PredictInput,
    PredictionCreated,
    PredictRequest,
    UncertaintyPolicy,
    UpdateDeploymentRequest,
)
from vesta_local.testing import identity_of
from vesta_serving.api import OUTLINED


def test_an_invalid_image_does_not_affect_others(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    bad = PredictInput(data=a_picture()[:-100])

    assert labels(serving, deployment, RED, bad, GREEN) == ["red", "IMAGE_TRUNCATED", "green"]


def test_stored_items_and_bytes_are_predicted_in_one_request(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    item = PredictInput(item=serving.items.add(a_picture("blue")).name)
    none = PredictInput(item=f"{DATASET}/items/none")

    assert labels(serving, deployment, item, RED, none) == ["blue", "red", "RESOURCE_NOT_FOUND"]


def test_stored_items_are_fetched_concurrently(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    items = [serving.items.add(a_picture(colour)) for colour in ("red", "blue")]
    serving.items.look = threading.Barrier(2, timeout=10).wait

    assert labels(serving, deployment, *(PredictInput(item=item.name) for item in items)) == ["red", "blue"]


def test_an_item_of_another_project_is_not_found(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    item = serving.items.add(a_picture(), dataset="projects/other/datasets/vans")

    assert labels(serving, deployment, PredictInput(item=item.name)) == ["RESOURCE_NOT_FOUND"]


def a_large_picture(colour: str) -> bytes:
    """A picture of about 800 kB with noise below the threshold of the model."""
    noise = np.random.default_rng(1).integers(0, 40, (512, 512, 3), dtype=np.uint8)
    noise[..., "rgb".index(colour)] += 200
    target = io.BytesIO()
    Image.fromarray(noise).save(target, "PNG")
    return target.getvalue()


def test_large_and_small_files_and_items_are_predicted_in_their_order(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    large = [PredictInput(data=a_large_picture(colour)) for colour in "bgr"]
    item = PredictInput(item=serving.items.add(a_picture("blue")).name)
    broken = PredictInput(data=b"\xff\xd8\xff" + bytes(100_000))

    found = labels(serving, deployment, large[0], RED, item, large[1], broken, large[2])
    assert found == ["blue", "red", "blue", "green", "IMAGE_TRUNCATED", "red"]
    serving.log.step()
    with serving.store.postgres.transaction() as connection:
        digests = {row["sha256"] for row in connection.execute("SELECT sha256 FROM predictions")}
    assert digests >= {hashlib.sha256(sent.data).hexdigest() for sent in (*large, RED)}


def test_this_process_holds_a_large_file_once_while_it_is_decoded(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    file = a_large_picture("r") + bytes(6_000_000)
    request = PredictRequest(name=deployment.name, inputs=[PredictInput(data=file)]).SerializeToString()
    with grpc.insecure_channel(serving.address) as channel:
        predict = channel.unary_unary(OUTLINED[0])  # of bytes, so that this client copies nothing in Python
        metadata = [identity_of("gateway").metadata("serving")]
        predict(request, metadata=metadata)
        tracemalloc.start()
        try:
            predict(request, metadata=metadata)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # gRPC gathers the file in a buffer that grows, and returns a copy of that buffer.
    assert peak_bytes < 2.3 * len(file)


def test_embeddings_are_returned_only_on_request(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))

    (asked,) = serving.predict(deployment, RED, embedding=True).predictions
    (unasked,) = serving.predict(deployment, RED).predictions
    assert ([round(value, 3) for value in asked.embedding], list(unasked.embedding)) == ([0.5] * 4, [])
    assert (asked.embedding_digest, unasked.embedding_digest) == ("space", "")


def test_deleting_a_deployment_deletes_its_predictions(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    gone, stays = serving.deployed(version), serving.deployed(version, "stays")
    for deployment in (gone, stays):
        serving.predict(deployment, RED)
    serving.log.step()
    serving.deployments.DeleteDeployment(DeleteDeploymentRequest(name=gone.name))
    with serving.store.postgres.transaction() as connection:
        left = [row["deployment"] for row in connection.execute("SELECT deployment FROM predictions")]
    assert left == [stays.name]


def test_more_images_than_the_limit_in_flight_are_rejected_with_a_retry_delay(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    with pytest.raises(ResourceExhausted) as caught:
        serving.predict(deployment, *[RED] * (IMAGES_IN_FLIGHT_MAX + 1))
    assert (caught.value.reason, caught.value.retry_after is not None) == ("OVERLOADED", True)


def test_capacity_is_released_after_a_response(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    for _ in range(2):
        assert labels(serving, deployment, *[RED] * IMAGES_IN_FLIGHT_MAX) == ["red"] * IMAGES_IN_FLIGHT_MAX


def test_the_prediction_log_is_read_newest_first_and_by_filter(serving: Serving) -> None:
    deployment = serving.deployed(serving.registry.add(an_onnx()))
    serving.predict(deployment, RED)
    serving.predict(deployment, GREEN)
    serving.log.step()

    every = serving.predictions.ListPredictions(ListPredictionsRequest(parent=deployment.name)).predictions
    green = serving.predictions.ListPredictions(
        ListPredictionsRequest(parent=deployment.name, filter='label = "green" AND score > 0.5')
    ).predictions
    assert [entry.prediction.scores[0].concept for entry in every] == ["green", "red"]
    assert list(green) == [serving.predictions.GetPrediction(GetPredictionRequest(name=every[0].name))]


def test_an_unknown_prediction_is_not_found(serving: Serving) -> None:
    with pytest.raises(NotFound) as caught:
        serving.predictions.GetPrediction(GetPredictionRequest(name=f"{PROJECT}/deployments/d/predictions/none"))
    assert caught.value.reason == "RESOURCE_NOT_FOUND"


def test_a_recreated_deployment_does_not_have_the_log_of_the_deleted_one(serving: Serving) -> None:
    version = serving.registry.add(an_onnx())
    deployment = serving.deployed(version)
    serving.predict(deployment, RED)
    serving.log.step()
    request = ListPredictionsRequest(parent=deployment.name)
    (logged,) = serving.predictions.ListPredictions(request).predictions
    serving.deployments.DeleteDeployment(DeleteDeploymentRequest(name=deployment.name))
    serving.clock.advance(timedelta(seconds=1))
    serving.deployed(version)

    assert list(serving.predictions.ListPredictions(request).predictions) == []
    with pytest.raises(NotFound):
        serving.predictions.GetPrediction(GetPredictionRequest(name=logged.name))


def predicted(prediction: ImagePrediction) -> tuple[list[str], bool]:
    return [label.concept for label in prediction.labels], prediction.uncertain


def test_a_multi_label_model_predicts_by_its_thresholds_as_the_log_and_the_events_state(
    serving: Serving,
) -> None:
    colours = [(40, 0, 250), (10, 200, 0), (0, 0, 0), (255, 255, 255)]
    items = [serving.items.add(a_picture(colour, "PNG")) for colour in colours]
    version = serving.registry.add(an_onnx_of_several_labels(), thresholds=(0.1, 0.9, 0.5))
    serving.datasets.task_types[DATASET] = TaskType.TASK_TYPE_MULTI_LABEL
    fixed = UncertaintyPolicy(margin_certain=0.2)
    deployment = serving.deployed(version, datasets=[DATASET], uncertainty=fixed)
    serving.score()
    answers = serving.predict(deployment, *(PredictInput(item=item.name) for item in items)).predictions
    serving.log.step()

    assert [predicted(answer) for answer in answers] == [
        (["blue", "red"], True),
        ([], True),
        ([], False),
        (["red", "green", "blue"], False),
    ]
    (made,) = serving.told(PredictionCreated)
    logged = serving.predictions.ListPredictions(ListPredictionsRequest(parent=deployment.name)).predictions
    assert len(logged) == len(items)
    for label, found in (("red", [0, 3]), ("green", [3])):
        request = ListPredictionsRequest(parent=deployment.name, filter=f"label = {label}")
        listed = serving.predictions.ListPredictions(request).predictions
        assert [entry.item for entry in reversed(listed)] == [items[place].name for place in found]
    for kept in ([one.prediction for one in made.predictions], [one.prediction for one in reversed(logged)]):
        for scores, answer in zip(kept, answers, strict=True):
            assert [one.concept for one in scores.scores if one.predicted] == predicted(answer)[0]
            assert (scores.uncertain, scores.margin) == (answer.uncertain, answer.margin)


def test_new_thresholds_of_a_deployment_are_applied_and_its_datasets_are_scored_again(serving: Serving) -> None:
    item = serving.items.add(a_picture((40, 0, 250), "PNG"))
    version = serving.registry.add(an_onnx_of_several_labels(), thresholds=(0.1, 0.9, 0.5))
    serving.datasets.task_types[DATASET] = TaskType.TASK_TYPE_MULTI_LABEL
    deployment = serving.deployed(version, datasets=[DATASET], uncertainty=UncertaintyPolicy(margin_certain=0.2))
    serving.score()
    changed = serving.deployments.UpdateDeployment(
        UpdateDeploymentRequest(
            deployment=Deployment(name=deployment.name, uncertainty=UncertaintyPolicy(thresholds={"red": 0.3})),
            update_mask=FieldMask(paths=["uncertainty.thresholds"]),
        )
    )
    serving.score()

    assert dict(changed.uncertainty.thresholds) == {"red": 0.3}
    (answer,) = serving.predict(deployment, PredictInput(item=item.name)).predictions
    assert predicted(answer) == (["blue"], False)
    _, again = serving.told(PredictionCreated)
    assert [(one.concept, one.predicted) for one in again.predictions[0].prediction.scores] == [
        ("blue", True),
        ("red", False),
        ("green", False),
    ]


def test_thresholds_are_validated_against_the_requested_version_and_ignored_by_versions_that_cannot_use_them(
    serving: Serving,
) -> None:
    several = serving.registry.add(an_onnx_of_several_labels(), thresholds=(0.5, 0.5, 0.5))
    single = serving.registry.add(an_onnx())
    for version, thresholds, reason in (
        (several, {"pink": 0.3}, "THRESHOLD_CONCEPT_UNKNOWN"),
        (single, {"red": 0.3}, "MODEL_NOT_MULTI_LABEL"),
        (several, {"red": 1.1}, "FIELD_INVALID"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            serving.deployed(version, uncertainty=UncertaintyPolicy(thresholds=thresholds))
        assert caught.value.reason == reason

    deployment = serving.deployed(several, uncertainty=UncertaintyPolicy(thresholds={"red": 0.1}))
    with pytest.raises(InvalidArgument) as caught:
        serving.deployments.UpdateDeployment(
            UpdateDeploymentRequest(
                deployment=Deployment(name=deployment.name, uncertainty=UncertaintyPolicy(thresholds={"pink": 0.1}))
            )
        )
    assert caught.value.reason == "THRESHOLD_CONCEPT_UNKNOWN"
    embeds_only = serving.registry.add(an_onnx_that_only_embeds(), concepts=())
    moved = serving.moved(deployment, embeds_only)
    assert (moved.stable_version, dict(moved.uncertainty.thresholds)) == (embeds_only, {"red": 0.1})
