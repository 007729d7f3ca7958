"""The evaluation of COCO results against the archive of a snapshot."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import grpc
import pytest
from click.testing import CliRunner
from google.api import httpbody_pb2
from google.longrunning import operations_pb2
from vesta.cli.main import cli
from vesta.evaluation import Truth, evaluate, read_results, read_truth
from vesta_contracts.datasets.v1 import (
    ArchiveServiceServicer,
    DatasetServiceServicer,
    ExportDatasetResponse,
    add_ArchiveServiceServicer_to_server,
    add_DatasetServiceServicer_to_server,
)

SNAPSHOT = "projects/acme/datasets/vans/snapshots/s1"
TRUTH: Truth = {
    "images": [{"id": number, "width": 100, "height": 100, "file_name": f"{number}.jpg"} for number in (1, 2, 3)],
    "categories": [{"id": number, "name": name} for number, name in enumerate(("bus", "car", "van"), 1)],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 2, "bbox": [10, 10, 20, 30], "area": 600, "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 2, "bbox": [50, 50, 40, 40], "area": 1600, "iscrowd": 0},
        {"id": 3, "image_id": 2, "category_id": 3, "bbox": [0, 0, 40, 40], "area": 1600, "iscrowd": 0},
    ],
}


def a_result(image: object, category: object, box: object, score: object = 0.9) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


RIGHT = [
    a_result(1, 2, [10, 10, 20, 30]),
    a_result("2.jpg", "car", [50, 50, 40, 40]),
    a_result(2, "van", [0, 0, 40, 40]),
]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "snapshot.zip"
    with ZipFile(path, "w") as written:
        written.writestr("annotations/instances_test.json", json.dumps(TRUTH))
        written.writestr("annotations/instances_train.json", json.dumps({**TRUTH, "annotations": []}))
    return path


def results_of(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    return path


def test_the_true_objects_have_an_average_precision_of_one(archive: Path, tmp_path: Path) -> None:
    truth = read_truth(archive, "test")
    found = evaluate(truth, read_results(results_of(tmp_path, RIGHT), truth))
    assert (found.image_count, found.object_count, found.result_count) == (3, 3, 3)
    assert (found.mean.at_50, found.mean.at_50_95) == (pytest.approx(1), pytest.approx(1))
    assert math.isnan(found.by_concept["bus"].at_50)


def test_a_missing_object_and_a_shifted_box_reduce_it(tmp_path: Path) -> None:
    shifted = a_result(2, 3, [0, 10, 40, 40])  # IoU 0.6: three of ten thresholds
    found = evaluate(TRUTH, read_results(results_of(tmp_path, [RIGHT[0], shifted]), TRUTH))
    assert found.by_concept["car"].at_50 == pytest.approx(51 / 101)
    assert (found.by_concept["van"].at_50, found.by_concept["van"].at_50_95) == (pytest.approx(1), pytest.approx(0.3))


def test_no_results_have_an_average_precision_of_zero() -> None:
    assert evaluate(TRUTH, []).mean.at_50 == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"annotations": []}, "is not a list"),
        (["box"], "result 0 has no"),
        ([{"image_id": 1}], "has no 'category_id'"),
        ([RIGHT[0], a_result(9, 2, [0, 0, 1, 1])], "result 1 is for the image 9"),
        ([a_result([1], 2, [0, 0, 1, 1])], "result 0 is for the image"),
        ([a_result(1, "tram", [0, 0, 1, 1])], "the concepts are bus, car, van"),
        ([a_result(1, 2, [0, 0, 1])], "needs a bbox"),
        ([a_result(1, 2, [0, 0, 1, "a"])], "needs a bbox"),
        ([a_result(1, 2, [0, 0, 0, 5])], "without area"),
        ([a_result(1, 2, [0, 0, 1, 1], math.nan)], "needs a bbox"),
    ],
)
def test_invalid_results_are_rejected(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_results(results_of(tmp_path, content), TRUTH)


def test_a_split_without_objects_is_rejected(archive: Path) -> None:
    with pytest.raises(ValueError, match="no objects in the split train"):
        read_truth(archive, "train")
    with pytest.raises(ValueError, match="no labelled items in the split validation"):
        read_truth(archive, "validation")


class Archives(DatasetServiceServicer, ArchiveServiceServicer):
    """Exports one archive."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive

    def ExportDataset(self, request, context):
        return operations_pb2.Operation(name=f"{request.name}/operations/{request.snapshot.rpartition('/')[2]}")

    def GetOperation(self, request, context):
        done = operations_pb2.Operation(name=request.name, done=True)
        done.response.Pack(ExportDatasetResponse(archive_key="archives/1.zip"))
        return done

    def DownloadArchive(self, request, context):
        yield httpbody_pb2.HttpBody(data=self._archive.read_bytes())


def test_the_command_exports_the_snapshot_and_prints_the_average_precision(archive: Path, tmp_path: Path) -> None:
    server = grpc.server(ThreadPoolExecutor(4))
    archives = Archives(archive)
    add_DatasetServiceServicer_to_server(archives, server)
    add_ArchiveServiceServicer_to_server(archives, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    results = str(results_of(tmp_path, RIGHT[:2]))
    connection = ("--address", f"127.0.0.1:{port}", "--api-key", "k")
    try:
        shown = CliRunner().invoke(cli, [*connection, "evaluate", results, "--snapshot", SNAPSHOT])
        as_json = CliRunner().invoke(cli, [*connection, "--json", "evaluate", results, "--snapshot", SNAPSHOT])
        wrong = CliRunner().invoke(cli, [*connection, "evaluate", results, "--snapshot", "s1"])
    finally:
        server.stop(None)
    assert shown.exit_code == 0, shown.output
    lines = [line.split() for line in shown.stdout.splitlines()[-6:]]
    assert lines == [
        ["3", "images,", "3", "objects,", "2", "results"],
        ["mAP@50", "mAP@50:95"],
        ["mean", "0.500", "0.500"],
        ["bus", "no", "objects"],
        ["car", "1.000", "1.000"],
        ["van", "0.000", "0.000"],
    ]
    told = json.loads(as_json.stdout.splitlines()[-1])
    assert (told["mean"]["at_50"], told["by_concept"]["bus"]) == (pytest.approx(0.5), None)
    assert "is not a snapshot" in str(wrong.exception)
