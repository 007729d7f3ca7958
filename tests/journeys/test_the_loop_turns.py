"""The golden journey in small: images come in, experts label, models get better, the best one answers."""

import json
import shutil
import subprocess
import venv
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

import httpx
import promql
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from small_loop import SmallLoop, set_up
from vesta import ApiError, Vesta
from vesta.resources import ResourceType, call, request_for, resource_types
from vesta.waiting import wait_until
from vesta_contracts.annotation.v1 import GetAgreementRequest
from vesta_contracts.conductor.v1 import DeleteProjectRequest, GetProjectRequest, ListDecisionsRequest, LoopStatus
from vesta_contracts.connection.v1 import CreateSourceRequest, Source, UploadSource
from vesta_contracts.datasets.v1 import (
    ArchiveFormat,
    CreateDatasetRequest,
    Dataset,
    DownloadItemRequest,
    ExportDatasetRequest,
    ExportDatasetResponse,
    GetDatasetRequest,
    ImportDatasetRequest,
    ImportDatasetResponse,
    SearchItemsRequest,
)
from vesta_contracts.serving.v1 import (
    CreateDeploymentRequest,
    Deployment,
    GetDeploymentRequest,
    RollbackDeploymentRequest,
    UpdateDeploymentRequest,
)
from vesta_local.home import Home
from vesta_local.services import NAMES
from vesta_local.testing import WholePlatform
from vesta_local.trace_receiver import ReceivedSpan, TraceReceiver

NOTHING_TO_SEE = {
    "ingest.json: Frames a second",
    "ingest.json: Uncertain frames",
    "queues.json: Rejected as overloaded",
    "serving.json: Failed calls, all services",
    "serving.json: Rejected as overloaded",
    "training.json: Failed calls",
}
"""Panels that are empty on a platform without cameras where nothing was rejected and nothing failed."""
PREDICTION_MADE = "vesta.serving.prediction.v1.created"
pytestmark = [pytest.mark.platform, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def turned(platform: WholePlatform, tmp_path_factory: pytest.TempPathFactory) -> SmallLoop:
    """A loop that has spent its budget in two rounds."""
    small = set_up(platform, tmp_path_factory.mktemp("samples"), images_per_class=60, budget=40, batch=20)
    small.turn_until(lambda status: status.phase == LoopStatus.EXHAUSTED, seconds=300)
    return small


def test_every_round_trains_a_model_and_has_a_verdict(turned: SmallLoop) -> None:
    rounds = turned.ended_rounds()
    assert [one.number for one in rounds] == [1, 2]
    assert all(one.model_version and one.verdict.reason for one in rounds)
    assert rounds[0].verdict.passed


def test_the_deployed_model_is_right_for_most_images(turned: SmallLoop) -> None:
    metrics = turned.status().champion_metrics
    assert metrics.accuracy.value > 0.6  # four classes: chance is 0.25
    assert metrics.accuracy.low < metrics.accuracy.value < metrics.accuracy.high or metrics.accuracy.value == 1.0


def test_every_accepted_answer_is_in_the_dataset_once(turned: SmallLoop) -> None:
    labelled = turned.items("labelled AND split = TRAIN")
    assert len(labelled) == turned.status().labels_spent == 40
    assert all(list(item.accepted.annotations) == list(turned.truth(item.name)) for item in labelled)
    assert len({item.accepted.task for item in labelled}) == 40


def test_the_history_lists_the_decisions_with_their_reasons(turned: SmallLoop) -> None:
    decisions = list(turned.owner.pages(turned.owner.loops.ListDecisions, ListDecisionsRequest(parent=turned.loop)))
    assert len({one.request_id for one in decisions}) == len(decisions)
    assert all(one.action and one.reason for one in decisions)


def test_the_deployment_predicts_bytes_and_items_and_rejects_a_broken_image(turned: SmallLoop) -> None:
    item = turned.items("split = TEST")[0]
    picture = b"".join(body.data for body in turned.owner.items.DownloadItem(DownloadItemRequest(name=item.name)))
    answers = turned.owner.predict(turned.status().deployment, [picture, b"\xff\xd8 no image"])
    assert answers[0].model_version == turned.status().champion
    assert abs(sum(one.score for one in [*answers[0].labels, *answers[0].other_labels]) - 1) < 1e-3
    assert answers[1].reason.startswith("IMAGE_")


@pytest.mark.parametrize("by_file", [True, False], ids=["requirements file", "extra index"])
def test_a_customer_installs_the_sdk_from_the_gateway_and_predicts(
    turned: SmallLoop, platform: WholePlatform, tmp_path: Path, by_file: bool
) -> None:
    (tmp_path / "digit.png").write_bytes(turned.unused[0].read_bytes())
    venv.create(tmp_path / "empty", with_pip=True)
    programs = tmp_path / "empty" / "bin"
    # As the SDK's README says it; what others publish comes from the index that pip uses anyway.
    index = f"http://{platform.addresses['gateway']}/simple"
    wanted = ["-r", f"{index}/requirements.txt"] if by_file else ["--extra-index-url", index, "vesta-client"]
    subprocess.run([programs / "pip", "install", "--quiet", *wanted], check=True, cwd=tmp_path, timeout=300)
    options = ["--address", platform.addresses["gateway_grpc"], "--api-key", platform.owner_key, "--json"]
    predict = ["predict", turned.status().deployment, "digit.png"]
    answer = subprocess.run(
        [programs / "vesta", *options, *predict], check=True, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert json.loads(answer.stdout)["modelVersion"] == turned.status().champion
    freeze = [programs / "pip", "list", "--format", "json"]
    listed = subprocess.run(freeze, check=True, capture_output=True, text=True, timeout=60).stdout
    ours = {one["name"]: one["version"] for one in json.loads(listed) if one["name"].startswith("vesta")}
    assert ours.keys() == {"vesta-client", "vesta-contracts"}
    assert len(set(ours.values())) == 1


def test_a_rollback_serves_the_previous_version_after_one_call(turned: SmallLoop) -> None:
    owner, deployments = turned.owner, turned.owner.deployments
    # A deployment of its own, so that two classifiers follow one another whatever the gate has said of the second.
    first, second = (one.model_version for one in turned.ended_rounds())
    made = deployments.CreateDeployment(
        CreateDeploymentRequest(
            parent=turned.project, deployment_id="by-hand", deployment=Deployment(model_version=first)
        )
    )
    _wait_for_version(turned, made.name, first)
    change = Deployment(name=made.name, model_version=second)
    deployments.UpdateDeployment(
        UpdateDeploymentRequest(deployment=change, update_mask=FieldMask(paths=["model_version"]))
    )
    _wait_for_version(turned, made.name, second)
    item = turned.items("split = TEST")[0]
    picture = b"".join(body.data for body in owner.items.DownloadItem(DownloadItemRequest(name=item.name)))
    for answering, other in ((first, second), (second, first)):
        back = deployments.RollbackDeployment(RollbackDeploymentRequest(name=made.name))
        assert (back.stable_version, back.previous_version) == (answering, other)
        assert owner.predict(made.name, [picture])[0].model_version == answering


def test_the_nearest_neighbour_of_an_item_is_itself(turned: SmallLoop) -> None:
    item = turned.items()[0]
    found = turned.owner.items.SearchItems(SearchItemsRequest(parent=turned.dataset, item=item.name, neighbours_max=3))
    assert found.neighbours[0].item.name == item.name
    assert [one.distance for one in found.neighbours] == sorted(one.distance for one in found.neighbours)


def test_agreement_is_unset_for_single_answers(turned: SmallLoop) -> None:
    found = turned.owner.campaigns.GetAgreement(GetAgreementRequest(name=turned.status().campaign))
    assert not found.HasField("alpha")
    assert sum(one.submission_count for one in found.annotators) == 40


@pytest.mark.parametrize("layout", [ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER, ArchiveFormat.ARCHIVE_FORMAT_COCO])
def test_an_exported_dataset_can_be_imported_again(turned: SmallLoop, layout: ArchiveFormat, tmp_path: Path) -> None:
    owner = turned.owner
    exported = owner.wait_for_operation(
        owner.datasets.ExportDataset(ExportDatasetRequest(name=turned.dataset, format=layout)).name
    )
    answer = ExportDatasetResponse()
    assert exported.response.Unpack(answer), exported.error.message
    owner.download_archive(turned.project, answer.archive_key, tmp_path / "out.zip")
    source = owner.datasets.GetDataset(GetDatasetRequest(name=turned.dataset))
    copy = owner.datasets.CreateDataset(
        CreateDatasetRequest(
            parent=turned.project,
            dataset_id=f"copy-{layout}",
            dataset=Dataset(taxonomy=source.taxonomy, task_type=source.task_type),
        )
    )
    key = owner.upload_archive(turned.project, tmp_path / "out.zip")
    request = ImportDatasetRequest(name=copy.name, format=layout, archive_key=key)
    imported = owner.wait_for_operation(owner.datasets.ImportDataset(request).name)
    told = ImportDatasetResponse()
    assert imported.response.Unpack(told), imported.error.message
    assert (told.added_count, told.rejected_count) == (answer.item_count, 0)
    assert owner.datasets.GetDataset(GetDatasetRequest(name=copy.name)).counts.labelled_count == answer.item_count


def upload(turned: SmallLoop, platform: WholePlatform, picture: Path, headers: Mapping[str, str]) -> httpx.Response:
    """Uploads a picture over REST."""
    source = turned.owner.sources.CreateSource(
        CreateSourceRequest(parent=turned.project, source=Source(dataset=turned.dataset, upload=UploadSource()))
    )
    return httpx.post(
        f"http://{platform.addresses['gateway']}/v1/{source.name}:upload",
        content=picture.read_bytes(),
        headers={"authorization": f"Bearer {platform.owner_key}", **headers},
    ).raise_for_status()


def test_one_trace_covers_upload_kafka_triton_and_dataset(
    turned: SmallLoop, platform: WholePlatform, traces: TraceReceiver
) -> None:
    asked, trace = "00f067aa0ba902b7", "5a" * 16
    answer = upload(turned, platform, turned.unused[1], {"traceparent": f"00-{trace}-{asked}-01"})
    assert answer.headers["x-request-id"] == trace

    def has_come_back(spans: Sequence[ReceivedSpan]) -> bool:
        names, ids = {span.name for span in spans}, {asked, *(span.id for span in spans)}
        # Each service exports by itself, so that a span may come before the one that it lies in.
        return {"triton/infer", PREDICTION_MADE} <= names and {span.parent for span in spans} <= ids

    spans = wait_until(partial(traces.spans, trace), has_come_back, deadline=timedelta(seconds=60))
    by_id = {span.id: span for span in spans}
    path = [next(span for span in spans if span.name == PREDICTION_MADE)]
    while path[-1].parent != asked:
        path.append(by_id[path[-1].parent])
    assert [(span.service, span.kind, span.name) for span in reversed(path)] == [
        ("gateway", "SPAN_KIND_SERVER", "/vesta.connection.v1.SourceService/UploadItem"),
        ("connection", "SPAN_KIND_SERVER", "/vesta.connection.v1.SourceService/UploadItem"),
        ("datasets", "SPAN_KIND_SERVER", "/vesta.datasets.v1.ItemService/BatchCreateItems"),
        ("serving", "SPAN_KIND_CONSUMER", "vesta.datasets.item.v1.created"),
        ("serving", "SPAN_KIND_INTERNAL", "score_arrivals"),
        ("datasets", "SPAN_KIND_CONSUMER", PREDICTION_MADE),
    ]
    asked_triton = next(span for span in spans if span.name == "triton/infer")
    assert (by_id[asked_triton.parent].name, asked_triton.kind) == ("score_arrivals", "SPAN_KIND_CLIENT")


def metrics_addresses(home: Home) -> dict[str, str]:
    """Where each service's metrics are, and Triton's."""
    return {name: home.address(f"{name}_metrics") for name in (*NAMES, "inference")}


def test_dashboards_and_alerts_query_series_that_the_services_export(
    turned: SmallLoop,  # so that there is something to be seen
    platform: WholePlatform,
) -> None:
    addresses = metrics_addresses(platform.home)
    pages = {name: httpx.get(f"http://{address}/metrics").text for name, address in addresses.items()}
    known = promql.exported(pages)
    asked = promql.questions()
    assert len({question.where.partition(":")[0] for question in asked if not question.is_alert}) == 6
    assert [fault for question in asked for fault in promql.faults(question, known)] == []


def test_a_real_prometheus_answers_every_panel_and_every_alert(
    turned: SmallLoop, platform: WholePlatform, tmp_path: Path
) -> None:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip(
            "there is no `prometheus` here (Debian's package): queries were held against the services' metrics alone"
        )
    upload(turned, platform, turned.unused[2], {})
    assert turned.owner.predict(turned.status().deployment, [turned.unused[0].read_bytes()])
    with promql.real_prometheus(program, metrics_addresses(platform.home), tmp_path) as client:
        without = {
            question.where
            for question in promql.questions()
            if not promql.asked(client, question.text) and not question.is_alert and not question.is_external
        }
        # A scrape may take a second at most, which a busy machine exceeds now and then.
        wait_until(lambda: promql.asked(client, 'up{platform="vesta"} == 0'), lambda down: down == [])
    assert without <= NOTHING_TO_SEE


def test_the_project_is_deleted_with_all_its_resources_in_every_service(turned: SmallLoop) -> None:
    owner, project = turned.owner, turned.project
    with pytest.raises(ApiError) as refused:
        owner.projects.DeleteProject(DeleteProjectRequest(name=project))
    assert refused.value.reason == "PROJECT_NOT_EMPTY"
    owner.projects.DeleteProject(DeleteProjectRequest(name=project, force=True))

    get = partial(owner.projects.GetProject, GetProjectRequest(name=project))
    wait_until(get, lambda now: now.message.startswith("All resources are deleted"), deadline=timedelta(minutes=3))
    left = {kind.plural: _listed(owner, kind, project) for kind in resource_types() if _is_below_a_project(kind)}
    assert {plural: names for plural, names in left.items() if names} == {}
    with pytest.raises(ApiError) as refused:
        owner.datasets.CreateDataset(CreateDatasetRequest(parent=project, dataset=Dataset()))
    assert refused.value.reason == "PROJECT_DELETING"


def _is_below_a_project(kind: ResourceType) -> bool:
    return kind.pattern.startswith("projects/{project}/") and kind.pattern.count("/") == 3


def _listed(owner: Vesta, kind: ResourceType, project: str) -> list[str]:
    """Names of what is there, but for what ships with the platform."""
    answer = call(owner.channel, kind.methods["list"], request_for(kind.methods["list"], parent=project))
    found = next(value for field, value in answer.ListFields() if field.is_repeated) if answer.ByteSize() else []
    return [one.name for one in found if not getattr(one, "builtin", False)]


def _wait_for_version(turned: SmallLoop, deployment: str, version: str) -> None:
    get = partial(turned.owner.deployments.GetDeployment, GetDeploymentRequest(name=deployment))
    wait_until(get, lambda now: now.stable_version == version, deadline=timedelta(minutes=2))
