"""PretrainedDetectorService: import, list, get and delete."""

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import json_format
from tiny_detector import CARD, TinyDetector
from training_service import PROJECT, OneDataset, Training, refusal
from vesta_common.errors import AlreadyExists, InvalidArgument, NotFound, Unavailable
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.training.v1 import (
    CreateRecipeRequest,
    DeletePretrainedDetectorRequest,
    GetPretrainedDetectorRequest,
    ImportPretrainedDetectorRequest,
    ListPretrainedDetectorsRequest,
    ModelInput,
    PretrainedDetector,
    Recipe,
)
from vesta_training.api import pretrained_detector_service
from vesta_training.api.pretrained_detector_service import PretrainedDetectorService
from vesta_training.pretrained.files import FOLDER
from vesta_training.pretrained.inspection import FILE_NAME, Inspected

CONTENT = TinyDetector().content()
SMALL_PART_BYTES = 1000


def requests(content: bytes = CONTENT, **fields: str) -> Iterator[ImportPretrainedDetectorRequest]:
    """Yields a request in several messages."""
    wanted = {"parent": PROJECT, "pretrained_detector_id": "tiny", "card": CARD, **fields}
    yield ImportPretrainedDetectorRequest(**wanted, file=HttpBody(data=content[:SMALL_PART_BYTES]))
    for start in range(SMALL_PART_BYTES, len(content), SMALL_PART_BYTES):
        yield ImportPretrainedDetectorRequest(file=HttpBody(data=content[start : start + SMALL_PART_BYTES]))


def listed(training: Training, **fields: object) -> list[PretrainedDetector]:
    request = ListPretrainedDetectorsRequest(parent=PROJECT, **fields)
    return list(training.pretrained_detectors.ListPretrainedDetectors(request).pretrained_detectors)


def test_an_imported_detector_can_be_read_and_listed(training: Training) -> None:
    imported = training.pretrained_detectors.ImportPretrainedDetector(requests())
    assert imported.name == f"{PROJECT}/pretrainedDetectors/tiny"
    assert (imported.license, imported.card, imported.class_count) == ("Apache-2.0", CARD, 3)
    assert (imported.digest, imported.size_bytes) == (hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    declared = ModelInput(height_px=64, width_px=64, resize=ModelInput.LETTERBOX, colour_order=ModelInput.BGR)
    assert imported.input == declared
    request = GetPretrainedDetectorRequest(name=imported.name)
    assert training.pretrained_detectors.GetPretrainedDetector(request) == imported
    assert listed(training) == [imported]
    assert training.objects.get(f"{FOLDER}/{imported.digest}") == CONTENT


def test_a_list_has_pages(training: Training) -> None:
    for name in ("b", "a"):
        training.pretrained_detectors.ImportPretrainedDetector(requests(pretrained_detector_id=name))
    first = training.pretrained_detectors.ListPretrainedDetectors(
        ListPretrainedDetectorsRequest(parent=PROJECT, page_size=1)
    )
    assert [one.name[-1] for one in first.pretrained_detectors] == ["a"]
    assert [one.name[-1] for one in listed(training, page_size=1, page_token=first.next_page_token)] == ["b"]


def test_a_repeated_request_imports_once(training: Training) -> None:
    wanted = {"pretrained_detector_id": "", "request_id": "r1"}
    first = training.pretrained_detectors.ImportPretrainedDetector(requests(**wanted))
    assert training.pretrained_detectors.ImportPretrainedDetector(requests(**wanted)) == first
    other = TinyDetector(seed=1).content()
    again = lambda: training.pretrained_detectors.ImportPretrainedDetector(requests(other, **wanted))  # noqa: E731
    refusal(InvalidArgument, again, "REQUEST_ID_REUSED")
    assert listed(training) == [first]


def test_a_taken_id_is_rejected(training: Training) -> None:
    training.pretrained_detectors.ImportPretrainedDetector(requests())
    again = lambda: training.pretrained_detectors.ImportPretrainedDetector(requests())  # noqa: E731
    refusal(AlreadyExists, again, "RESOURCE_EXISTS")


@pytest.mark.parametrize(
    ("content", "card", "reason"),
    [
        (b"not a model" * 1000, CARD, "DETECTOR_NOT_ONNX"),
        (CONTENT, "source: unknown", "DETECTOR_CARD_INVALID"),
    ],
)
def test_a_rejected_import_leaves_nothing(training: Training, content: bytes, card: str, reason: str) -> None:
    call = lambda: training.pretrained_detectors.ImportPretrainedDetector(requests(content, card=card))  # noqa: E731
    refusal(InvalidArgument, call, reason)
    assert listed(training) == []
    assert list(training.objects.list_keys(FOLDER)) == []


def test_a_file_above_the_limit_is_rejected_while_it_is_received(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained_detector_service, "BYTES_MAX", 2 * SMALL_PART_BYTES)
    call = lambda: training.pretrained_detectors.ImportPretrainedDetector(requests())  # noqa: E731
    refusal(InvalidArgument, call, "DETECTOR_TOO_LARGE")
    assert listed(training) == []


def test_a_file_that_changes_while_it_is_checked_is_rejected(training: Training, tmp_path: Path) -> None:
    def alter(folder: Path) -> Inspected:
        (folder / FILE_NAME).write_bytes(b"other")
        return Inspected(64, 3)

    service = PretrainedDetectorService(training.store, training.objects, str(tmp_path), inspect=alter)
    refusal(Unavailable, lambda: service.ImportPretrainedDetector(requests(), None), "WORK_FOLDER_CHANGED")  # type: ignore[arg-type]
    assert listed(training) == []


def test_a_file_that_was_deleted_meanwhile_is_not_imported(training: Training, tmp_path: Path) -> None:
    inspected = Inspected(64, 3)
    service = PretrainedDetectorService(training.store, training.objects, str(tmp_path), inspect=lambda _: inspected)
    insert = training.store.pretrained_detectors.insert
    missing = PretrainedDetector(name=f"{PROJECT}/pretrainedDetectors/gone")
    with training.store.postgres.transaction() as connection:
        refusal(
            Unavailable, lambda: insert(connection, missing, f"{FOLDER}/0", lambda _: False), "DETECTOR_FILE_DELETED"
        )
    assert service.ImportPretrainedDetector(requests(), None).class_count == 3  # type: ignore[arg-type]


def test_the_file_is_deleted_with_the_last_detector_that_has_it(training: Training) -> None:
    names = [
        training.pretrained_detectors.ImportPretrainedDetector(requests(pretrained_detector_id=name)).name
        for name in ("one", "two")
    ]
    key = f"{FOLDER}/{hashlib.sha256(CONTENT).hexdigest()}"
    for name, remains in zip(names, (True, False), strict=True):
        training.pretrained_detectors.DeletePretrainedDetector(DeletePretrainedDetectorRequest(name=name))
        training.file_remover.step()
        assert training.objects.exists(key) is remains
    gone = lambda: training.pretrained_detectors.GetPretrainedDetector(GetPretrainedDetectorRequest(name=names[0]))  # noqa: E731
    refusal(NotFound, gone, "RESOURCE_NOT_FOUND")
    delete = DeletePretrainedDetectorRequest(name=names[0])
    refusal(NotFound, lambda: training.pretrained_detectors.DeletePretrainedDetector(delete), "RESOURCE_NOT_FOUND")


def a_detection_run(training: Training, run_id: str, pretrained: str) -> str:
    """Runs a recipe, and returns the id of the detector in its job."""
    yaml_text = f"task: detection\nsummary: s\ndetection: {{pretrained: {pretrained}}}"
    name = f"{PROJECT}/recipes/r-{run_id}"
    recipe = Recipe(name=name, yaml=yaml_text)
    training.recipes.CreateRecipe(CreateRecipeRequest(parent=PROJECT, recipe_id=f"r-{run_id}", recipe=recipe))
    run = training.a_run(run_id, recipe=name, model=f"{PROJECT}/models/{run_id}")
    training.worker.step()
    training.worker.step()
    job = next((job for job in training.executor.jobs if job.run == run.name), None)
    if job is None:
        return training.get(run).error
    return json_format.Parse(job.pretrained_detector or "{}", PretrainedDetector()).name.rpartition("/")[2]


def test_a_recipe_starts_from_the_newest_detector_a_named_one_or_none(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OneDataset, "task_type", TaskType.TASK_TYPE_DETECTION)
    assert a_detection_run(training, "before", "newest") == ""
    for name in ("older", "a-newer"):
        training.pretrained_detectors.ImportPretrainedDetector(requests(pretrained_detector_id=name))
        training.clock.advance(timedelta(seconds=1))
    assert a_detection_run(training, "newest", "newest") == "a-newer"
    assert a_detection_run(training, "named", "older") == "older"
    assert a_detection_run(training, "none", "none") == ""
    assert "pretrainedDetectors/absent does not exist" in a_detection_run(training, "absent", "absent")
