"""The command line: resources by their names, fields one by one, and where it finds the platform."""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner, Result
from google.protobuf import empty_pb2
from google.protobuf.message import Message
from PIL import Image
from vesta import resources
from vesta.cli.commands.pretrained import id_of
from vesta.cli.fields import mask_of, read_fields, set_field
from vesta.cli.main import cli
from vesta.cli.render import Output, show, show_all
from vesta.cli.settings import find_connection
from vesta_contracts.common.v1 import Annotation, PixelBox
from vesta_contracts.conductor.v1 import (
    ListProjectsResponse,
    Loop,
    LoopStatus,
    Project,
    ProjectServiceServicer,
    add_ProjectServiceServicer_to_server,
)
from vesta_contracts.connection.v1 import SourceServiceServicer, UploadItemResponse, add_SourceServiceServicer_to_server
from vesta_contracts.datasets.v1 import (
    Dataset,
    DatasetCounts,
    DatasetServiceServicer,
    ListDatasetsResponse,
    Taxonomy,
    add_DatasetServiceServicer_to_server,
)
from vesta_contracts.serving.v1 import (
    DeploymentServiceServicer,
    ImagePrediction,
    PredictResponse,
    add_DeploymentServiceServicer_to_server,
)
from vesta_contracts.training.v1 import (
    Estimate,
    Metrics,
    ModelServiceServicer,
    ModelVersion,
    PretrainedDetector,
    PretrainedDetectorServiceServicer,
    TrainingRun,
    add_ModelServiceServicer_to_server,
    add_PretrainedDetectorServiceServicer_to_server,
)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("projects/acme", "Project"),
        ("projects/acme/datasets/vans", "Dataset"),
        ("projects/acme/models/vans/versions/3", "ModelVersion"),
        ("projects/acme/pipelines/p/streams/s/observations/o", "Observation"),
    ],
)
def test_a_name_tells_what_it_is(name: str, message: str) -> None:
    assert resources.type_of(name).message.name == message


def test_a_name_of_nothing_is_refused_with_the_patterns() -> None:
    with pytest.raises(ValueError, match=r"projects/\{project\}/datasets/\{dataset\}"):
        resources.type_of("foo/bar")


def test_every_resource_can_be_read_and_listed() -> None:
    assert all({"get", "list"} <= set(kind.methods) for kind in resources.resource_types())


def test_fields_are_set_one_by_one_and_json_is_read_as_json() -> None:
    found: dict[str, object] = {}
    for field in ("display_name=2024", "policy.label_budget=500", "policy.instructions=7 hats", "paused=true"):
        set_field(found, field, Loop.DESCRIPTOR)
    assert found == {
        "display_name": "2024",
        "policy": {"label_budget": 500, "instructions": "7 hats"},
        "paused": True,
    }
    set_field(found, "displayName=2024", Loop.DESCRIPTOR)
    assert found["displayName"] == "2024"
    set_field(found, 'concepts=[{"id": "hat"}]', Taxonomy.DESCRIPTOR)
    assert found["concepts"] == [{"id": "hat"}]


@pytest.mark.parametrize(("field", "why"), [("nonsense", "must be KEY=VALUE"), ("a.b=2", "a already has a value")])
def test_fields_that_make_no_sense_are_refused(field: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        set_field({"a": 1}, field, Loop.DESCRIPTOR)


def test_a_body_that_is_no_object_is_refused() -> None:
    with pytest.raises(ValueError, match="must be a JSON object"):
        read_fields(Loop.DESCRIPTOR, ["a=1"], "[1]")


@pytest.mark.parametrize(
    ("given", "paths"),
    [
        ({}, []),
        ({"name": "n", "etag": "e"}, []),
        ({"displayName": "x", "paused": None}, ["display_name", "paused"]),
        ({"policy": {"batchSize": 5, "gate": {}}}, ["policy.batch_size", "policy.gate"]),
    ],
)
def test_a_mask_names_what_is_mentioned_and_nothing_else(given: dict[str, object], paths: list[str]) -> None:
    assert list(mask_of(Loop.DESCRIPTOR, given)) == paths


def test_a_deployments_thresholds_are_set_together_and_a_stream_can_be_updated() -> None:
    kind = resources.type_of("projects/acme/deployments/d")
    given = read_fields(kind.message, ['uncertainty.thresholds={"rust": 0.2, "fine crack": 0.7}'], None)
    assert list(mask_of(kind.message, given)) == ["uncertainty.thresholds"]
    assert given == {"uncertainty": {"thresholds": {"rust": 0.2, "fine crack": 0.7}}}
    assert "update" in resources.type_of("projects/acme/pipelines/p/streams/s").methods


@pytest.mark.parametrize("text", ["x [/]", "[red]hot[/red]", "[bold"])
def test_texts_are_shown_as_they_are(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    show(Loop(display_name=text), json_output=False)
    show_all([Loop(name="n", display_name=text)], "table")
    assert capsys.readouterr().out.count(text) == 2


A_NAME = f"projects/acme/datasets/{'d' * 60}/items/{'i' * 40}"


@pytest.mark.parametrize(
    ("output", "lines"),
    [
        ("table", [["NAME", "DISPLAY NAME"], [A_NAME, "x" * 59 + "…"], ["short", ""]]),
        ("wide", [["NAME", "DISPLAY NAME", "ETAG"], [A_NAME, "x" * 70, "e" * 64], ["short", "", "f" * 64]]),
        ("name", [[A_NAME], ["short"]]),
    ],
)
def test_a_list_has_a_line_for_each_resource_with_its_whole_name(
    output: Output, lines: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    show_all([Loop(name=A_NAME, display_name="x" * 70, etag="e" * 64), Loop(name="short", etag="f" * 64)], output)
    found = [re.split(r" {2,}", line) for line in capsys.readouterr().out.splitlines()]
    assert [[cell for cell in row if cell] for row in found] == [[cell for cell in row if cell] for row in lines]


def test_a_list_is_printed_as_it_is_asked_for(vesta: Callable[..., Result]) -> None:
    named = vesta("list", "projects/acme/datasets", "-o", "name").stdout.split()
    assert named == ["projects/acme/datasets/a", "projects/acme/datasets/b"]
    assert [
        json.loads(line)["name"] for line in vesta("list", "projects/acme/datasets", "-o", "json").stdout.splitlines()
    ] == named


A_METRIC = Metrics(item_count=200, accuracy=Estimate(value=0.925, low=0.88, high=0.954))
WITHOUT_TEST = "No item in the test split of the snapshot is labelled."


@pytest.mark.parametrize(
    ("resource", "line"),
    [
        (TrainingRun(name="r", metrics=A_METRIC), "accuracy 92.5 % (95 % interval 88.0 to 95.4) on 200 test items"),
        (TrainingRun(name="r", metrics_missing_reason=WITHOUT_TEST), f"accuracy not measured: {WITHOUT_TEST}"),
        (ModelVersion(name="v", metrics=A_METRIC), "accuracy 92.5 % (95 % interval 88.0 to 95.4) on 200 test items"),
        (ModelVersion(name="v", metrics_missing_reason=WITHOUT_TEST), f"accuracy not measured: {WITHOUT_TEST}"),
        (
            Loop(name="l", status=LoopStatus(champion="v", champion_metrics=A_METRIC)),
            "accuracy 92.5 % (95 % interval 88.0 to 95.4) on 200 test items",
        ),
        (
            Loop(name="l", status=LoopStatus(champion="v", message="No item is in the test split.")),
            "accuracy not measured: No item is in the test split.",
        ),
        (Dataset(name="d", counts=DatasetCounts(item_count=9)), "testData none: no item is in the test split"),
        (
            Dataset(name="d", counts=DatasetCounts(item_count=9, test_item_count=3, test_labelled_count=2)),
            "testData 2 of 3 test items are labelled",
        ),
    ],
)
def test_a_resource_says_how_good_it_is_or_that_nobody_measured_it(
    resource: Message, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show(resource, json_output=False)
    shown = capsys.readouterr().out
    assert shown.splitlines()[1].startswith(line)
    assert "0.0 %" not in shown
    show_all([resource], "table")
    heads = capsys.readouterr().out.splitlines()[0]
    assert line.partition(" ")[0].upper() in heads.replace(" ", "")


@pytest.mark.parametrize("resource", [TrainingRun(name="r"), Loop(name="l"), Dataset(name="d")])
def test_of_what_has_nothing_to_measure_yet_nothing_is_said(
    resource: Message, capsys: pytest.CaptureFixture[str]
) -> None:
    show(resource, json_output=False)
    assert capsys.readouterr().out == f"name {resource.name}\n"  # type: ignore[attr-defined]


def test_json_holds_no_figure_that_was_not_measured(capsys: pytest.CaptureFixture[str]) -> None:
    show_all([TrainingRun(name="r", metrics_missing_reason=WITHOUT_TEST)], "json")
    told = json.loads(capsys.readouterr().out)
    assert told["metricsMissingReason"] == WITHOUT_TEST
    assert not {"metrics", "comparison"} & set(told)


def test_the_owners_key_of_this_platform_goes_to_no_other(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "addresses.json").write_text(json.dumps({"gateway_grpc": "127.0.0.1:9"}))
    (tmp_path / "owner.key").write_text("vesta_x\n")
    assert find_connection("127.0.0.1:9", None, tmp_path).api_key == "vesta_x"
    with pytest.raises(ValueError, match="no API key for elsewhere:8081"):
        find_connection("elsewhere:8081", None, tmp_path)


def test_a_platform_beside_is_found_and_options_win(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "addresses.json").write_text(json.dumps({"gateway_grpc": "127.0.0.1:9"}))
    (tmp_path / "owner.key").write_text("vesta_x\n")
    assert find_connection(None, None, tmp_path).address == "127.0.0.1:9"
    assert find_connection("h:1", "k", tmp_path).api_key == "k"


def test_without_a_key_it_says_where_one_comes_from(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="VESTA_API_KEY"):
        find_connection(None, None, tmp_path)


def test_the_help_lists_the_journeys() -> None:
    shown = CliRunner().invoke(cli, ["--help"]).output
    assert all(word in shown for word in ("sync", "upload", "predict", "loop", "import"))


AN_OBJECT = Annotation(concept="van", score=0.46, box=PixelBox(x_min_px=1, y_min_px=2.25, x_max_px=30, y_max_px=40.75))


class Doors(
    SourceServiceServicer,
    DeploymentServiceServicer,
    DatasetServiceServicer,
    ModelServiceServicer,
    PretrainedDetectorServiceServicer,
    ProjectServiceServicer,
):
    """Takes uploads, tags images, deletes datasets, and projects with force; refuses what is called broken."""

    def DeleteProject(self, request, context):
        if not request.force:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{request.name} holds 2 datasets")
        return Project(name=request.name, state=Project.DELETING)

    def UploadItem(self, request_iterator, context):
        first = next(request_iterator)
        if "broken" in first.file_name:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the file is truncated; upload it again")
        return UploadItemResponse(item=f"projects/acme/datasets/d/items/{first.file_name}")

    projects = ("acme",)

    def ListProjects(self, request, context):
        return ListProjectsResponse(projects=[Project(name=f"projects/{one}") for one in self.projects])

    def ImportPretrainedDetector(self, request_iterator, context):
        first = next(request_iterator)
        name = f"{first.parent}/pretrainedDetectors/{first.pretrained_detector_id}"
        size_bytes = len(first.file.data) + sum(len(later.file.data) for later in request_iterator)
        return PretrainedDetector(name=name, card=first.card, size_bytes=size_bytes)

    def Predict(self, request, context):
        return PredictResponse(
            predictions=[
                ImagePrediction(
                    prediction={
                        "scores": [{"concept": f"c{len(one.data)}", "score": 0.9, "predicted": True}],
                        "annotations": [AN_OBJECT] if request.name.endswith("detector") else [],
                        "uncertain": request.name.endswith("detector"),
                        "uncertain_reason": "the score of a van is 0.46",
                    }
                )
                for one in request.inputs
            ]
        )

    def ListDatasets(self, request, context):
        return ListDatasetsResponse(datasets=[Dataset(name=f"{request.parent}/datasets/{word}") for word in ("a", "b")])

    def GetDataset(self, request, context):
        return Dataset(name=request.name, etag="e1")

    def UpdateDataset(self, request, context):
        return Dataset(display_name=f"{request.dataset} {list(request.update_mask.paths)}")

    def CreateDataset(self, request, context):
        return Dataset(display_name=f"{request.parent} {request.dataset_id}")

    def DeleteDataset(self, request, context):
        return empty_pb2.Empty()

    def DeleteModel(self, request, context):
        if not request.force:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "it has versions; set force to delete them too")
        return empty_pb2.Empty()


@pytest.fixture
def vesta(tmp_path: Path) -> Iterator[Callable[..., Result]]:
    """The command line, beside a server; two files lie in the folder."""
    server, doors = grpc.server(ThreadPoolExecutor(2)), Doors()
    add_SourceServiceServicer_to_server(doors, server)
    add_DeploymentServiceServicer_to_server(doors, server)
    add_DatasetServiceServicer_to_server(doors, server)
    add_ModelServiceServicer_to_server(doors, server)
    add_PretrainedDetectorServiceServicer_to_server(doors, server)
    add_ProjectServiceServicer_to_server(doors, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    for name, size in (("a.jpg", 3), ("broken.jpg", 4)):
        (tmp_path / name).write_bytes(bytes(size))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, ["--address", f"127.0.0.1:{port}", "--api-key", "k", *arguments])

    yield run
    server.stop(None).wait()


def test_an_upload_tells_of_each_file_and_one_refusal_stops_no_other(
    vesta: Callable[..., Result], tmp_path: Path
) -> None:
    done = vesta("upload", "projects/acme/sources/s", str(tmp_path / "broken.jpg"), str(tmp_path / "a.jpg"))
    assert (done.exit_code, "items/a.jpg" in done.stdout) == (1, True)
    assert "upload it again" in done.stderr


def test_every_answer_is_json_where_it_is_asked_for(vesta: Callable[..., Result], tmp_path: Path) -> None:
    picture = str(tmp_path / "a.jpg")
    for arguments, key in (
        (("upload", "projects/acme/sources/s", picture), "item"),
        (("predict", "projects/acme/deployments/d", picture), "prediction"),
        (("delete", "projects/acme/datasets/d"), "deleted"),
    ):
        done = vesta("--json", *arguments)
        assert done.exit_code == 0, done.output
        assert key in json.loads(done.stdout)


def test_what_has_something_below_it_is_deleted_by_force(vesta: Callable[..., Result]) -> None:
    refused = vesta("delete", "projects/acme/models/vans")
    assert (refused.exit_code != 0, "set force" in str(refused.exception)) == (True, True)
    assert vesta("delete", "projects/acme/models/vans", "--force").exit_code == 0


def test_a_project_is_deleted_with_force_and_refused_without(vesta: Callable[..., Result]) -> None:
    refused = vesta("delete", "projects/acme")
    assert refused.exit_code != 0
    assert "holds 2 datasets" in str(refused.exception)
    done = vesta("delete", "projects/acme", "--force")
    assert (done.exit_code, done.stderr.strip()) == (0, "deleting projects/acme")


def test_force_is_refused_where_nothing_needs_it(vesta: Callable[..., Result]) -> None:
    refused = vesta("delete", "projects/acme/datasets/d", "--force")
    assert refused.exit_code != 0
    assert "omit it" in str(refused.exception)


def test_a_detector_is_imported_with_its_card_into_the_only_project(
    vesta: Callable[..., Result], tmp_path: Path
) -> None:
    file, card = tmp_path / "YOLOX_nano 416.onnx", tmp_path / "card.md"
    file.write_bytes(bytes(2_500_000))
    card.write_text("license: Apache-2.0")
    done = vesta("--json", "models", "import", str(file), "--card", str(card))
    assert done.exit_code == 0, done.output
    imported = json.loads(done.stdout)
    assert imported["name"] == "projects/acme/pretrainedDetectors/yolox-nano-416"
    assert (imported["card"], imported["sizeBytes"]) == ("license: Apache-2.0", "2500000")
    done = vesta(
        *("--json", "models", "import", str(file), "--card", str(card), "--project", "projects/b", "--id", "coco")
    )
    assert json.loads(done.stdout)["name"] == "projects/b/pretrainedDetectors/coco"


def test_a_card_that_is_no_text_is_named(vesta: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "a.onnx"
    file.write_bytes(b"\x98")
    done = vesta("models", "import", str(file), "--card", str(file))
    assert isinstance(done.exception, ValueError)
    assert "a.onnx is no text; write YAML" in str(done.exception)


def test_a_detector_needs_a_project_where_there_are_several(
    vesta: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Doors, "projects", ("acme", "b"))
    (tmp_path / "card.md").write_text("license: Apache-2.0")
    done = vesta("models", "import", str(tmp_path / "a.jpg"), "--card", str(tmp_path / "card.md"))
    assert isinstance(done.exception, ValueError)
    assert "projects/acme, projects/b" in str(done.exception)


@pytest.mark.parametrize(
    ("text", "expected"), [("YOLOX_s", "yolox-s"), ("8-bit", "bit"), ("2024", ""), ("a" * 70, "a" * 63)]
)
def test_the_id_of_a_detector_is_that_of_its_file(text: str, expected: str) -> None:
    assert id_of(text) == expected


def test_labels_are_told_beside_their_file(vesta: Callable[..., Result], tmp_path: Path) -> None:
    done = vesta("predict", "projects/acme/deployments/d", str(tmp_path / "a.jpg"))
    assert done.stdout.strip().endswith("a.jpg\tc3 0.90")


def test_objects_are_printed_with_their_corners_below_their_file(vesta: Callable[..., Result], tmp_path: Path) -> None:
    done = vesta("predict", "projects/acme/deployments/detector", str(tmp_path / "a.jpg"))
    first, second = done.stdout.strip().splitlines()
    assert first.endswith("a.jpg\tc3 0.90 (uncertain: the score of a van is 0.46)")
    assert second == "  van 0.46\t1.0, 2.2, 30.0, 40.8\t1116 px"


def test_images_are_drawn_into_a_new_folder(vesta: Callable[..., Result], tmp_path: Path) -> None:
    picture, folder = tmp_path / "scene.png", tmp_path / "new" / "drawn"
    Image.new("RGB", (60, 50), "white").save(picture)
    done = vesta("predict", "projects/acme/deployments/detector", str(picture), "--draw", str(folder))
    assert done.exit_code == 0, done.output
    assert len(Image.open(folder / "scene.png").getcolors() or ()) > 1


def test_a_drawing_replaces_no_image_and_no_other_drawing(vesta: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for path in (tmp_path / "x.png", tmp_path / "b" / "x.png"):
        Image.new("RGB", (60, 50), "white").save(path)
    deployment, files = "projects/acme/deployments/detector", (str(tmp_path / "x.png"), str(tmp_path / "b" / "x.png"))
    assert "2 files are named x.png" in str(
        vesta("predict", deployment, *files, "--draw", str(tmp_path / "c")).exception
    )
    refused = vesta("predict", deployment, files[0], "--draw", str(tmp_path))
    assert "would be replaced" in str(refused.exception)


def test_an_update_changes_what_is_mentioned_of_the_version_that_was_read(vesta: Callable[..., Result]) -> None:
    done = vesta("--json", "update", "projects/acme/datasets/d", "displayName=Vans")
    told = json.loads(done.stdout)["displayName"].replace("\n", " ")
    assert told.startswith('name: "projects/acme/datasets/d"')
    assert 'display_name: "Vans"' in told
    assert 'etag: "e1"' in told
    assert told.endswith("['display_name']")


@pytest.mark.parametrize("name", ["projects/acme/datasets", "projects/acme/datasets/d"])
def test_a_resource_is_created_under_a_name_or_in_a_collection(vesta: Callable[..., Result], name: str) -> None:
    done = vesta("--json", "create", name)
    assert json.loads(done.stdout)["displayName"] == f"projects/acme {name.removeprefix('projects/acme/datasets')[1:]}"


@pytest.mark.parametrize(
    ("arguments", "what_works"),
    [
        (("update", "projects/acme/datasets/d"), "set some"),
        (("update", "projects/acme/sources/s/syncs/x", "a=1"), "supported: create, get, list"),
        (("delete", "projects/acme/datasets/d", "--force"), "omit it"),
        (("create", "projects/acme/sources/s/syncs/mine"), "vesta create projects/acme/sources/s/syncs"),
        (("list", "projects/acme/datasets", "--filter", "a = 1"), "list one of: items, observations"),
    ],
)
def test_what_cannot_be_done_is_refused_with_what_can(
    vesta: Callable[..., Result], arguments: tuple[str, ...], what_works: str
) -> None:
    assert what_works in str(vesta(*arguments).exception)


def test_json_writes_defaults_out_as_rest_does(vesta: Callable[..., Result]) -> None:
    assert json.loads(vesta("--json", "get", "projects/acme/datasets/d").stdout)["displayName"] == ""
    assert "displayName" not in vesta("get", "projects/acme/datasets/d").stdout
