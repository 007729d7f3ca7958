"""The throughput of a Sync with photographs, compared with only decoding them on the same cores."""

import io
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Size:
    """The size and number of the images."""

    word: str
    width_px: int
    height_px: int
    count: int


SMALL = Size("small", 640, 480, 400)
SIZES = (SMALL, Size("full_hd", 1920, 1080, 150), Size("large", 4000, 3000, 60))
GOAL = 0.5
FLOOR = 0.1


def measure(platform: Platform) -> list[Figure]:
    """`ingest_ratio`: images per second of a Sync, divided by images per second that all cores only decode, for the size with the lowest
    ratio.

    The baseline decodes at full scale. A Sync decodes at the smallest scale that suffices for a thumbnail, and stores the image.
    """
    ratios, details = {}, {}
    for size in SIZES:
        folder = platform.home.inbox / f"bench-{new_id()}"
        folder.mkdir(parents=True)
        for index, jpeg in enumerate(jpegs(size.count, size.width_px, size.height_px)):
            (folder / f"{index:04d}.jpg").write_bytes(jpeg)
        before = _decoded_per_second(sorted(folder.iterdir()))
        taken_in = synced_per_second(platform, folder, size.count)
        decoded = (before + _decoded_per_second(sorted(folder.iterdir()))) / 2
        ratios[size] = taken_in / decoded
        details[f"{size.word}_ratio"] = ratios[size]
        details[f"{size.word}_sync_images_per_second"] = taken_in
        details[f"{size.word}_decoded_images_per_second"] = decoded
    worst = min(SIZES, key=lambda size: ratios[size])
    return [
        Figure(
            "ingest_ratio",
            ratios[worst],
            GOAL,
            lower=False,
            floor=FLOOR,
            baseline=f"decoding the same {worst.width_px}×{worst.height_px} JPEG files, the worst of {len(SIZES)} sizes, at full scale in "
            f"{os.cpu_count()} processes",
            details=details,
            note="a request to SeaweedFS and its client cost more processor time than decoding an image of 640×480",
        )
    ]


def _decoded_per_second(paths: list[Path]) -> float:
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_decode, paths[:4]))  # the processes have started
        began = time.perf_counter()
        list(pool.map(_decode, paths))
        return len(paths) / (time.perf_counter() - began)


def _decode(path: Path) -> None:
    Image.open(io.BytesIO(path.read_bytes())).load()


def synced_per_second(platform: Platform, folder: Path, count: int) -> float:
    """Returns images per second of a Sync of a folder with `count` images into a new dataset."""
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
    if ended.state != Sync.SUCCEEDED or ended.added_count + ended.duplicate_count != count:
        raise RuntimeError(f"the Sync did not take all files in: {ended}")
    return count / seconds
