"""ModelService: reading, listing and downloading versions."""

import base64
import json

from training_service import PROJECT, Training, refusal
from vesta_common.errors import InvalidArgument
from vesta_contracts.training.v1 import DownloadModelVersionRequest, GetModelVersionRequest, ListModelVersionsRequest


def test_the_version_can_be_read_listed_and_downloaded(training: Training) -> None:
    for run_id in ("a", "b"):
        training.a_run(run_id)
        training.worker.step()
    listed = training.models.ListModelVersions(ListModelVersionsRequest(parent=f"{PROJECT}/models/vans")).model_versions
    assert [version.name[-1] for version in listed] == ["2", "1"]
    version = training.models.GetModelVersion(GetModelVersionRequest(name=listed[0].name))
    assert version.training_run.endswith("/b")
    pieces = training.models.DownloadModelVersion(DownloadModelVersionRequest(name=version.name))
    assert b"".join(piece.data for piece in pieces) == f"onnx of {version.training_run}".encode()


def test_an_altered_page_token_is_rejected(training: Training) -> None:
    for run_id in ("a", "b"):
        training.a_run(run_id)
        training.worker.step()
    request = ListModelVersionsRequest(parent=f"{PROJECT}/models/vans", page_size=1)
    token = training.models.ListModelVersions(request).next_page_token
    question, _ = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    request.page_token = base64.urlsafe_b64encode(json.dumps([question, "two"]).encode()).decode().rstrip("=")
    refusal(InvalidArgument, lambda: training.models.ListModelVersions(request), "PAGE_TOKEN_INVALID")
