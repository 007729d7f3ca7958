"""The evaluation of COCO results against the archive of a snapshot."""

import json
import math
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import grpc
import numpy as np
import pytest
from click.testing import CliRunner
from google.api import httpbody_pb2
from google.longrunning import operations_pb2
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
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
        ([a_result(1, 2, [0, 0, 1, 1], math.nan)], "needs a score"),
    ],
)
def test_invalid_results_are_rejected(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_results(results_of(tmp_path, content), TRUTH)


def a_pose(x: float, y: float, side: float, count: int) -> list[float]:
    """Returns visible keypoints within a square."""
    return [value for number in range(count) for value in (x + side * (number % 3) / 2, y + side * number / count, 2)]


def poses(seed: int) -> tuple[Truth, list[dict[str, Any]]]:
    """Returns true persons of COCO's 17 points and vans of 4 points, some points unlabelled; and noisy results with some false ones."""
    rng = random.Random(seed)
    person = "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist"
    person += " left_hip right_hip left_knee right_knee left_ankle right_ankle"
    names = {1: ["a", "b", "c", "d"], 2: person.split()}
    truth: Truth = {
        "images": [
            {"id": number, "width": 500, "height": 500, "file_name": f"{number}.jpg"} for number in range(1, 31)
        ],
        "categories": [{"id": number, "name": str(number), "keypoints": points} for number, points in names.items()],
        "annotations": [],
    }
    results = []
    for image in range(1, 31):
        for _ in range(rng.randint(0, 4)):
            category, side = rng.choice((1, 2)), rng.uniform(20, 200)
            points = a_pose(rng.uniform(0, 300), rng.uniform(0, 300), side, len(names[category]))
            for place in range(0, len(points), 3):
                if rng.random() < 0.2:
                    points[place : place + 3] = [0, 0, 0]
            counted = sum(visible > 0 for visible in points[2::3])
            said = {"id": len(truth["annotations"]) + 1, "image_id": image, "category_id": category, "iscrowd": 0}
            box = [0, 0, side, side]
            truth["annotations"].append(
                {**said, "keypoints": points, "num_keypoints": counted, "area": side * side, "bbox": box}
            )
            noisy = [value + rng.gauss(0, side / 30) if index % 3 < 2 else 2 for index, value in enumerate(points)]
            for _ in range(rng.randint(0, 2)):
                results.append({**a_result(image, category, None, rng.random()), "keypoints": noisy})
                del results[-1]["bbox"]
    return truth, results


@pytest.mark.parametrize("seed", range(3))
def test_keypoints_have_the_average_precision_of_pycocotools(seed: int, tmp_path: Path) -> None:
    truth, results = poses(seed)
    found = evaluate(truth, read_results(results_of(tmp_path, results), truth))
    with redirect_stdout(StringIO()):
        known = COCO()
        known.dataset = truth
        known.createIndex()
        means = []
        for category in (1, 2):
            reference = COCOeval(known, known.loadRes([dict(each) for each in results]), "keypoints")
            reference.params.catIds = [category]
            if category == 1:
                reference.params.kpt_oks_sigmas = np.full(4, 0.05)
            reference.evaluate()
            reference.accumulate()
            by_threshold = reference.eval["precision"][..., 0, -1].mean(axis=(1, 2))
            one = found.by_concept[str(category)]
            assert (one.at_50, one.at_50_95) == pytest.approx((by_threshold[0], by_threshold.mean()), abs=1e-6)
            means.append(one.at_50_95)
    assert 0.05 < found.mean.at_50_95 < 0.95
    assert found.mean.at_50_95 == pytest.approx(np.mean(means))


def test_a_single_point_has_a_scale(tmp_path: Path) -> None:
    one = {"id": 1, "image_id": 1, "category_id": 1, "keypoints": [9, 9, 2], "num_keypoints": 1, "area": 0.0}
    truth = {
        **TRUTH,
        "categories": [{"id": 1, "name": "eye", "keypoints": ["centre"]}],
        "annotations": [{**one, "bbox": [9, 9, 0, 0], "iscrowd": 0}],
    }
    result = {"image_id": 1, "category_id": "eye", "keypoints": [9.3, 9, 1], "score": 1}
    found = evaluate(truth, read_results(results_of(tmp_path, [result]), truth))
    assert found.mean.at_50 == pytest.approx(1)
    assert found.mean.at_50_95 < 1


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (a_result(1, 1, [0, 0, 1, 1]), "result 0 has no 'keypoints'"),
        ({"image_id": 1, "category_id": 1, "score": 1, "keypoints": [1, 2]}, "needs keypoints of 3 x 4 numbers"),
        ({"image_id": 1, "category_id": 1, "score": 1, "keypoints": [None] * 12}, "needs keypoints of 3 x 4 numbers"),
        ({"image_id": 1, "category_id": 1, "score": "x", "keypoints": [0] * 12}, "needs a score"),
    ],
)
def test_invalid_keypoints_are_rejected(tmp_path: Path, entry: object, message: str) -> None:
    truth, _ = poses(0)
    with pytest.raises(ValueError, match=message):
        read_results(results_of(tmp_path, [entry]), truth)


def test_keypoints_of_an_archive_are_its_objects(tmp_path: Path) -> None:
    truth, _ = poses(0)
    path = tmp_path / "snapshot.zip"
    with ZipFile(path, "w") as written:
        written.writestr("annotations/instances_test.json", json.dumps({**TRUTH, "annotations": []}))
        written.writestr("annotations/person_keypoints_test.json", json.dumps(truth))
    assert read_truth(path, "test") == truth


def test_a_split_without_objects_is_rejected(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no objects in the split train"):
        read_truth(archive, "train")
    with pytest.raises(ValueError, match="no labelled items in the split validation"):
        read_truth(archive, "validation")
    with ZipFile(path := tmp_path / "labels.zip", "w") as written:
        written.writestr("annotations/labels_test.json", json.dumps(TRUTH))
    with pytest.raises(ValueError, match="no objects in the split test"):
        read_truth(path, "test")


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


def runs_of(left: int, top: int, right: int, bottom: int) -> list[int]:
    """COCO's run lengths of a rectangle in an image of 100 x 100 pixels, down the columns."""
    inside = np.zeros((100, 100), bool)
    inside[top:bottom, left:right] = True
    flat = np.concatenate([[False], inside.T.ravel(), [not inside[-1, -1]]])
    return np.diff(np.flatnonzero(np.diff(flat)), prepend=0).tolist()


MASKED: Truth = {
    **TRUTH,
    "annotations": [
        {**TRUTH["annotations"][0], "segmentation": [[10, 10, 30, 10, 30, 40, 10, 40]]},
        {**TRUTH["annotations"][1], "segmentation": {"size": [100, 100], "counts": runs_of(50, 50, 90, 90)}},
        {**TRUTH["annotations"][2], "segmentation": [[0, 0, 40, 0, 40, 40, 0, 40]]},
    ],
}


def a_mask(image: object, category: object, segmentation: object, score: object = 0.9) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "segmentation": segmentation, "score": score}


RIGHT_MASKS = [
    a_mask(1, 2, {"size": [100, 100], "counts": runs_of(10, 10, 30, 40)}),
    a_mask("2.jpg", "car", [[50, 50, 90, 50, 90, 90, 50, 90]]),
    a_mask(2, "van", [[0, 0, 40, 0, 40, 40, 0, 40]]),
]


def test_the_true_masks_have_an_average_precision_of_one(tmp_path: Path) -> None:
    found = evaluate(MASKED, read_results(results_of(tmp_path, RIGHT_MASKS), MASKED))
    assert (found.mean.at_50, found.mean.at_50_95) == (pytest.approx(1), pytest.approx(1))


def test_masks_are_compared_and_not_the_boxes_around_them(tmp_path: Path) -> None:
    triangle = a_mask(2, "van", [[0, 0, 40, 0, 0, 40]])  # half of the true pixels, with the same box
    masks = evaluate(MASKED, read_results(results_of(tmp_path, [*RIGHT_MASKS[:2], triangle]), MASKED))
    assert masks.by_concept["car"].at_50_95 == pytest.approx(1)
    assert masks.by_concept["van"].at_50_95 < 0.2
    boxes = evaluate(MASKED, read_results(results_of(tmp_path, RIGHT), MASKED))
    assert boxes.mean.at_50_95 == pytest.approx(1)


def test_map_of_masks_equals_that_of_pycocotools(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    entries = []
    for truth in MASKED["annotations"] * 3:
        left, top, width, height = np.array(truth["bbox"]) + generator.integers(0, 8, 4)
        counts = runs_of(left, top, min(100, left + width), min(100, top + height))
        entries.append(
            a_mask(truth["image_id"], truth["category_id"], {"size": [100, 100], "counts": counts}, generator.random())
        )
    found = evaluate(MASKED, read_results(results_of(tmp_path, entries), MASKED))
    with redirect_stdout(StringIO()):
        known = COCO()
        known.dataset = json.loads(json.dumps(MASKED))
        known.createIndex()
        encoded = [{**one, "segmentation": mask.frPyObjects(one["segmentation"], 100, 100)} for one in entries]
        evaluation = COCOeval(known, known.loadRes(encoded), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert 0 < found.mean.at_50_95 < 1
    assert (found.mean.at_50_95, found.mean.at_50) == pytest.approx(tuple(evaluation.stats[:2]), abs=1e-6)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], "needs a segmentation of polygons"),
        ([[1, 2, 3, 4]], "at least three points"),
        ([[1, 2, 3, 4, 5, math.inf]], "needs a segmentation of polygons"),
        ("mask", "needs a segmentation"),
        ({"size": [100, 100]}, "needs a segmentation"),
        ({"size": [50, 100], "counts": [5000]}, r"has a segmentation of the size \[50, 100\]"),
        ({"size": [100, 100], "counts": [5000, 1]}, "runs do not add to 10000 pixels"),
        ({"size": [100, 100], "counts": [10000]}, "without pixels"),
    ],
)
def test_invalid_masks_are_rejected(tmp_path: Path, segmentation: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_results(results_of(tmp_path, [a_mask(1, 2, segmentation)]), MASKED)


def test_masks_are_not_compared_with_boxes_and_all_results_must_have_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the objects of the snapshot are boxes"):
        read_results(results_of(tmp_path, RIGHT_MASKS), TRUTH)
    with pytest.raises(ValueError, match="result 1 has no 'segmentation'"):
        read_results(results_of(tmp_path, [RIGHT_MASKS[0], RIGHT[1]]), MASKED)
