"""Hostile media before a deployed model: each is answered with its reason, and what is sound beside or after it is looked at."""

import base64
import io
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cameras import FRAME_TOPIC, frame_headers, observed
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from hostile_media import HOSTILE, REASONS, noise
from kafka import KafkaProducer
from PIL import Image
from vesta import Vesta
from vesta.waiting import wait_until
from vesta_contracts.datasets.v1 import (
    ArchiveFormat,
    Concept,
    CreateDatasetRequest,
    CreateSnapshotRequest,
    CreateTaxonomyRequest,
    Dataset,
    ImportDatasetRequest,
    Snapshot,
    Taxonomy,
)
from vesta_contracts.pipelining.v1 import (
    CreatePipelineRequest,
    CreateStreamRequest,
    GetStreamRequest,
    ModelStep,
    Pipeline,
    Step,
    Stream,
)
from vesta_contracts.serving.v1 import (
    CreateDeploymentRequest,
    Deployment,
    GetDeploymentRequest,
    ImagePrediction,
    PredictResponse,
)
from vesta_contracts.training.v1 import CreateTrainingRunRequest, TrainingRun
from vesta_local.testing import WholePlatform
from vesta_pipelining.frames import FRAME_BYTES_MAX

pytestmark = [pytest.mark.platform, pytest.mark.timeout(300), pytest.mark.usefixtures("bounded")]

FILES = [data for data, _ in HOSTILE.values()]
# What a model looks at is kept by nobody, so that it matters not how large it would become.
SEEN_REASONS = {**REASONS, "growing.webp": ""}
PICTURES_PER_CONCEPT = 8


@pytest.fixture(scope="module")
def deployment(door: tuple[Vesta, str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that tells noise from plain colours, and answers."""
    owner, project, _ = door
    snapshot = _labelled(owner, project, tmp_path_factory.mktemp("labelled"))
    wanted = TrainingRun(
        snapshot=snapshot, recipe=f"{project}/recipes/classification", model=f"{project}/models/textures"
    )
    run = owner.training_runs.CreateTrainingRun(CreateTrainingRunRequest(parent=project, training_run=wanted))
    ended = owner.wait_for_run(run.name)
    assert ended.state == TrainingRun.SUCCEEDED, ended.error
    made = owner.deployments.CreateDeployment(
        CreateDeploymentRequest(
            parent=project, deployment_id="textures", deployment=Deployment(model_version=ended.model_version)
        )
    )
    wait_until(
        lambda: owner.deployments.GetDeployment(GetDeploymentRequest(name=made.name)),
        lambda now: bool(now.stable_version),
        deadline=timedelta(minutes=2),
    )
    return str(made.name)


def _labelled(owner: Vesta, project: str, folder: Path) -> str:
    """The name of a snapshot of some labelled pictures."""
    concepts = [Concept(id="noise"), Concept(id="plain")]
    taxonomy = owner.taxonomies.CreateTaxonomy(
        CreateTaxonomyRequest(parent=project, taxonomy_id="textures", taxonomy=Taxonomy(concepts=concepts))
    ).name
    dataset = owner.datasets.CreateDataset(
        CreateDatasetRequest(parent=project, dataset_id="textures", dataset=Dataset(taxonomy=taxonomy))
    ).name
    with zipfile.ZipFile(folder / "labelled.zip", "w") as opened:
        for number in range(PICTURES_PER_CONCEPT):
            opened.writestr(f"noise/{number}.jpg", noise(320 + number))
            opened.writestr(f"plain/{number}.png", _plain(number))
    key = owner.upload_archive(project, folder / "labelled.zip")
    layout = ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER
    owner.wait_for_operation(
        owner.datasets.ImportDataset(ImportDatasetRequest(name=dataset, format=layout, archive_key=key)).name
    )
    request = CreateSnapshotRequest(parent=dataset, snapshot=Snapshot())
    return str(owner.snapshots.CreateSnapshot(request).name)


def _plain(number: int) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (64, 64), (30 * number, 255 - 30 * number, 90)).save(target, "PNG")
    return target.getvalue()


def _by_grpc(platform: WholePlatform, owner: Vesta, deployment: str, images: list[bytes]) -> list[ImagePrediction]:
    return owner.predict(deployment, images)


def _by_rest(platform: WholePlatform, owner: Vesta, deployment: str, images: list[bytes]) -> list[ImagePrediction]:
    answer = httpx.post(
        f"http://{platform.addresses['gateway']}/v1/{deployment}:predict",
        json={"inputs": [{"data": base64.b64encode(image).decode()} for image in images]},
        headers={"Authorization": f"Bearer {platform.owner_key}"},
        timeout=60,
    )
    answer.raise_for_status()
    return list(json_format.Parse(answer.content, PredictResponse()).predictions)


@pytest.mark.parametrize("ask", [_by_grpc, _by_rest])
def test_each_is_answered_with_its_reason_and_the_sound_one_with_its_label(
    platform: WholePlatform,
    door: tuple[Vesta, str, str],
    deployment: str,
    ask: Callable[[WholePlatform, Vesta, str, list[bytes]], list[ImagePrediction]],
) -> None:
    *hostile, sound = ask(platform, door[0], deployment, [*FILES, noise(303)])
    assert {name: answer.reason for name, answer in zip(HOSTILE, hostile, strict=True)} == SEEN_REASONS
    assert all(bool(answer.message) == bool(answer.reason) != bool(answer.labels) for answer in hostile)
    assert [one.concept for one in sound.labels] == ["noise"]


def test_a_camera_s_are_counted_as_refused_and_the_sound_frame_after_them_is_observed(
    platform: WholePlatform, door: tuple[Vesta, str, str], deployment: str
) -> None:
    owner, project, _ = door
    # However busy the machine is: none may be too old when its turn comes.
    wanted = Pipeline(steps=[Step(model=ModelStep(deployment=deployment))], age_max=Duration(seconds=3600))
    pipeline = owner.pipelines.CreatePipeline(
        CreatePipelineRequest(parent=project, pipeline_id="yard", pipeline=wanted)
    )
    stream = owner.streams.CreateStream(
        CreateStreamRequest(parent=pipeline.name, stream_id="gate", stream=Stream())
    ).name
    frames = [*FILES, noise(304)]
    producer = KafkaProducer(**platform.broker.connection, acks="all", max_request_size=2 * FRAME_BYTES_MAX)
    for frame in frames:
        sent = datetime.now(UTC)
        producer.send(
            platform.topic(FRAME_TOPIC), value=frame, key=stream.encode(), headers=frame_headers(stream, sent)
        )
    producer.flush()
    producer.close()
    observations = observed(owner, [stream], len(frames))
    counted = owner.streams.GetStream(GetStreamRequest(name=stream))
    refused = sum(bool(reason) for reason in SEEN_REASONS.values())
    assert (counted.rejected_count, counted.dropped_count) == (refused, 0)
    assert counted.observed_count == len(observations) == len(frames) - refused
    (last,) = (one for one in observations if one.frame_time.ToDatetime(UTC) == sent)
    assert [one.concept for one in last.labels] == ["noise"]
