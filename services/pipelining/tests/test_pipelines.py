"""Pipelines and streams are created, validated and listed."""

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from pipelining_builders import DEPLOYMENT, FOLDER, PIPELINE, PROJECT, SOURCE
from pipelining_service import Pipelining
from vesta_common.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, VestaError
from vesta_contracts.pipelining.v1 import (
    CreatePipelineRequest,
    CreateStreamRequest,
    DeletePipelineRequest,
    GetPipelineRequest,
    GetStreamRequest,
    ListPipelinesRequest,
    ListStreamsRequest,
    ModelStep,
    Pipeline,
    Step,
    Stream,
    UpdatePipelineRequest,
    UpdateStreamRequest,
)

MODEL = Step(model=ModelStep(deployment=DEPLOYMENT))


@pytest.mark.parametrize(
    ("wanted", "error", "reason"),
    [
        (Pipeline(steps=[Step()]), InvalidArgument, "STEP_KIND_MISSING"),
        (
            Pipeline(steps=[Step(model=ModelStep(deployment=f"{PROJECT}/deployments/none"))]),
            NotFound,
            "RESOURCE_NOT_FOUND",
        ),
        (
            Pipeline(steps=[Step(model=ModelStep(deployment="projects/other/deployments/vans"))]),
            NotFound,
            "RESOURCE_NOT_FOUND",
        ),
        (Pipeline(steps=[MODEL], uncertain_source=f"{PROJECT}/sources/none"), NotFound, "RESOURCE_NOT_FOUND"),
        (Pipeline(steps=[MODEL], uncertain_source="projects/other/sources/x"), NotFound, "RESOURCE_NOT_FOUND"),
        (Pipeline(steps=[MODEL], uncertain_source=FOLDER), FailedPrecondition, "SOURCE_NOT_UPLOAD"),
    ],
)
def test_an_invalid_pipeline_is_rejected(
    pipelining: Pipelining, wanted: Pipeline, error: type[VestaError], reason: str
) -> None:
    with pytest.raises(error) as caught:
        pipelining.pipelines.CreatePipeline(CreatePipelineRequest(parent=PROJECT, pipeline=wanted))
    assert caught.value.reason == reason


def test_a_pipeline_is_created_updated_by_etag_and_deleted_with_its_streams(pipelining: Pipelining) -> None:
    request = CreatePipelineRequest(parent=PROJECT, pipeline_id="yard", pipeline=Pipeline(steps=[MODEL]))
    made = pipelining.pipelines.CreatePipeline(request)
    with pytest.raises(AlreadyExists):
        pipelining.a_pipeline()
    wanted = Pipeline(name=PIPELINE, steps=[MODEL], uncertain_source=SOURCE, etag=made.etag)
    changed = pipelining.pipelines.UpdatePipeline(
        UpdatePipelineRequest(pipeline=wanted, update_mask=FieldMask(paths=["uncertain_source"]))
    )
    assert (changed.uncertain_source, changed.steps) == (SOURCE, made.steps)
    with pytest.raises(Aborted):
        pipelining.pipelines.UpdatePipeline(UpdatePipelineRequest(pipeline=wanted))
    listed = pipelining.pipelines.ListPipelines(ListPipelinesRequest(parent=PROJECT)).pipelines
    assert listed == [changed]
    door, yard = pipelining.a_stream("door"), pipelining.a_stream("yard")
    page = pipelining.streams.ListStreams(ListStreamsRequest(parent=PIPELINE, page_size=1))
    assert [stream.name for stream in page.streams] == [door]
    page = pipelining.streams.ListStreams(
        ListStreamsRequest(parent=PIPELINE, page_size=1, page_token=page.next_page_token)
    )
    assert ([stream.name for stream in page.streams], page.next_page_token) == ([yard], "")
    pipelining.pipelines.DeletePipeline(DeletePipelineRequest(name=PIPELINE))
    with pytest.raises(NotFound):
        pipelining.streams.GetStream(GetStreamRequest(name=door))
    with pytest.raises(NotFound):
        pipelining.pipelines.GetPipeline(GetPipelineRequest(name=PIPELINE))


def test_a_repeated_request_returns_the_first_pipeline_after_its_deployment_is_deleted(pipelining: Pipelining) -> None:
    request = CreatePipelineRequest(parent=PROJECT, pipeline=Pipeline(steps=[MODEL]), request_id="once")
    made = pipelining.pipelines.CreatePipeline(request)
    pipelining.serving.failure = NotFound("gone")
    assert pipelining.pipelines.CreatePipeline(request) == made


def test_a_stream_requires_its_pipeline(pipelining: Pipelining) -> None:
    with pytest.raises(NotFound):
        pipelining.streams.CreateStream(CreateStreamRequest(parent=PIPELINE, stream_id="door", stream=Stream()))


def updated(pipelining: Pipelining, *paths: str, **fields: Any) -> Stream:
    request = UpdateStreamRequest(stream=Stream(**fields), update_mask=FieldMask(paths=paths))
    return pipelining.streams.UpdateStream(request)


def test_a_stream_is_updated_by_mask_and_etag(pipelining: Pipelining) -> None:
    pipelining.a_pipeline()
    door = pipelining.stream(pipelining.a_stream("door"))
    fields = {"name": door.name, "display_name": "Dock 3", "paused": True, "uncertain_per_minute_max": 0}
    changed = updated(pipelining, "display_name", "uncertain_per_minute_max", etag=door.etag, **fields)
    assert (changed.display_name, changed.paused, changed.uncertain_per_minute_max) == ("Dock 3", False, 0)
    assert changed.HasField("uncertain_per_minute_max")
    assert changed.etag != door.etag
    assert changed.update_time.ToDatetime() > changed.create_time.ToDatetime() == door.create_time.ToDatetime()

    with pytest.raises(Aborted) as stale:
        updated(pipelining, "paused", etag=door.etag, **fields)
    assert stale.value.reason == "ETAG_STALE"
    assert updated(pipelining, name=door.name, paused=True).paused  # without a mask: what is set
    cleared = updated(pipelining, "uncertain_per_minute_max", name=door.name)
    assert not cleared.HasField("uncertain_per_minute_max")
    assert (cleared.paused, cleared.display_name) == (True, "Dock 3")
    assert pipelining.stream(door.name) == cleared


@pytest.mark.parametrize(
    ("name", "paths", "error", "reason"),
    [
        ("door", ["observed_count"], InvalidArgument, "FIELD_IMMUTABLE"),
        ("door", ["name"], InvalidArgument, "FIELD_IMMUTABLE"),
        ("none", ["paused"], NotFound, "RESOURCE_NOT_FOUND"),
    ],
)
def test_updates_of_immutable_fields_of_a_stream_are_rejected(
    pipelining: Pipelining, name: str, paths: list[str], error: type[VestaError], reason: str
) -> None:
    pipelining.a_pipeline()
    pipelining.a_stream("door")
    with pytest.raises(error) as refused:
        updated(pipelining, *paths, name=f"{PIPELINE}/streams/{name}", observed_count=7, paused=True)
    assert refused.value.reason == reason


def test_a_stream_keeps_its_fields(pipelining: Pipelining) -> None:
    pipelining.a_pipeline()
    made = pipelining.streams.CreateStream(
        CreateStreamRequest(parent=PIPELINE, stream_id="door", stream=Stream(paused=True, uncertain_per_minute_max=3))
    )
    assert (made.paused, made.uncertain_per_minute_max) == (True, 3)
    assert pipelining.stream(made.name) == made
