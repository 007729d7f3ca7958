"""How fast a Sync takes in photographs of a camera, against nothing but decoding them on the same cores."""

import io
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from figures import Figure
from pictures import jpegs
from PIL import Image
from vesta import Vesta
from vesta_common.ids import new_id
from vesta_contracts.conductor.v1 import CreateProjectRequest, Project
from vesta_contracts.connection.v1 import CreateSourceRequest, FolderSource, Source, Sync
from vesta_contracts.datasets.v1 import Concept, CreateDatasetRequest, CreateTaxonomyRequest, Dataset, Taxonomy
from vesta_local.platform import Platform

COUNT = 80
WIDTH_PX, HEIGHT_PX = 4000, 3000
GOAL = 0.5


def measure(platform: Platform) -> list[Figure]:
    """`ingest_ratio`: images a second of a Sync, over images a second that all cores only decode."""
    folder = platform.home.inbox / f"bench-{new_id()}"
    folder.mkdir(parents=True)
    for index, jpeg in enumerate(jpegs(COUNT, WIDTH_PX, HEIGHT_PX)):
        (folder / f"{index:04d}.jpg").write_bytes(jpeg)
    decoded = _decoded_per_second(sorted(folder.iterdir()))
    taken_in = _synced_per_second(platform, folder)
    return [
        Figure(
            "ingest_ratio",
            taken_in / decoded,
            GOAL,
            lower=False,
            baseline=f"decoding the same {WIDTH_PX}×{HEIGHT_PX} JPEG files in {os.cpu_count()} processes",
            details={"sync_images_per_second": taken_in, "decoded_images_per_second": decoded},
        )
    ]


def _decoded_per_second(paths: list[Path]) -> float:
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_decode, paths[:4]))  # the processes are there
        began = time.perf_counter()
        list(pool.map(_decode, paths))
        return len(paths) / (time.perf_counter() - began)


def _decode(path: Path) -> None:
    Image.open(io.BytesIO(path.read_bytes())).load()


def _synced_per_second(platform: Platform, folder: Path) -> float:
    with Vesta(platform.home.address("gateway_grpc"), platform.home.owner_key) as owner:
        project = owner.projects.CreateProject(
            CreateProjectRequest(project_id=f"bench-{new_id()}", project=Project(display_name="Ingest"))
        ).name
        concepts = Taxonomy(concepts=[Concept(id="any")])
        taxonomy = owner.taxonomies.CreateTaxonomy(CreateTaxonomyRequest(parent=project, taxonomy=concepts)).name
        dataset = owner.datasets.CreateDataset(
            CreateDatasetRequest(parent=project, dataset=Dataset(taxonomy=taxonomy))
        ).name
        source = Source(dataset=dataset, folder=FolderSource(path=str(folder)))
        name = owner.sources.CreateSource(CreateSourceRequest(parent=project, source=source)).name
        began = time.perf_counter()
        ended = owner.sync(name)
        seconds = time.perf_counter() - began
    if ended.state != Sync.SUCCEEDED or ended.added_count + ended.duplicate_count != COUNT:
        raise RuntimeError(f"the Sync did not take all files in: {ended}")
    return COUNT / seconds
