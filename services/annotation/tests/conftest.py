"""The annotation service on the real database, beside a datasets service that knows one dataset; time stands still."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from annotation_builders import Annotation, OneDataset
from vesta_annotation.api.campaign_service import CampaignService
from vesta_annotation.api.review_service import ReviewService
from vesta_annotation.api.submission_service import SubmissionService
from vesta_annotation.api.task_service import TaskService
from vesta_annotation.store import Store
from vesta_common.client import open_channel
from vesta_common.clock import ManualClock
from vesta_common.postgres import Postgres
from vesta_common.server import Server
from vesta_contracts.datasets.v1 import DatasetServiceStub


@pytest.fixture
def annotation(service_settings: Callable[[str], dict[str, Any]]) -> Iterator[Annotation]:
    """The service, with a clock that stands still."""
    settings = service_settings("annotation")
    postgres = Postgres(settings["postgres_url"], settings["postgres_schema"]).open()
    postgres.migrate("vesta_annotation")
    clock = ManualClock()
    store = Store(postgres, clock)
    peer = Server("datasets", "127.0.0.1:0", [OneDataset()])
    peer.start()
    datasets = open_channel(peer.address, "annotation")
    servicers = [
        CampaignService(store, DatasetServiceStub(datasets)),
        TaskService(store),
        SubmissionService(store),
        ReviewService(store),
    ]
    server = Server("annotation", "127.0.0.1:0", servicers)
    server.start()
    with open_channel(server.address, "tests") as channel:
        yield Annotation(postgres, clock, channel)
    server.stop()
    datasets.close()
    peer.stop()
    postgres.close()
