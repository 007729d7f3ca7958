"""What the tests of hostile media share: a project with a door for them, and an eye on the memory."""

import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from vesta import Vesta
from vesta_common.ids import new_id
from vesta_contracts.conductor.v1 import CreateProjectRequest, Project
from vesta_contracts.connection.v1 import CreateSourceRequest, Source, UploadSource
from vesta_contracts.datasets.v1 import Concept, CreateDatasetRequest, CreateTaxonomyRequest, Dataset, Taxonomy
from vesta_local.services import NAMES
from vesta_local.testing import WholePlatform

MEMORY_GROWTH_BYTES_MAX = 1024 * 1024 * 1024
MEMORY_LOOK_SECONDS = 0.05


@pytest.fixture(scope="module")
def door(platform: WholePlatform) -> tuple[Vesta, str, str]:
    """A client, a project and a dataset."""
    owner = Vesta(platform.addresses["gateway_grpc"], platform.owner_key)
    project = owner.projects.CreateProject(CreateProjectRequest(project_id=f"t{new_id()}", project=Project())).name
    taxonomy = owner.taxonomies.CreateTaxonomy(
        CreateTaxonomyRequest(parent=project, taxonomy_id="t", taxonomy=Taxonomy(concepts=[Concept(id="thing")]))
    ).name
    dataset = owner.datasets.CreateDataset(
        CreateDatasetRequest(parent=project, dataset_id="d", dataset=Dataset(taxonomy=taxonomy))
    ).name
    owner.sources.CreateSource(
        CreateSourceRequest(parent=project, source_id="desk", source=Source(dataset=dataset, upload=UploadSource()))
    )
    return owner, project, dataset


@pytest.fixture
def bounded(platform: WholePlatform) -> Iterator[None]:
    """Watches while a test runs that the services and their children do not grow beyond bounds, even for a moment."""
    services = [
        psutil.Process(one.pid) for one in platform.platform.supervisor.states() if one.name in NAMES and one.pid
    ]

    def memory_bytes() -> int:
        total = 0
        for process in services:
            for one in [process, *process.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    total += one.memory_info().rss
        return total

    ended = threading.Event()
    before = peak = memory_bytes()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(MEMORY_LOOK_SECONDS):
            peak = max(peak, memory_bytes())

    watching = threading.Thread(target=watch)
    watching.start()
    yield
    ended.set()
    watching.join()
    assert peak - before < MEMORY_GROWTH_BYTES_MAX
