"""Labelled imports: of new photographs, compared with a Sync, and of labels for images that a dataset already has."""

import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import ingest
from figures import Figure
from pictures import jpegs
from scale import new_dataset, tables_of
from scale_rows import CONCEPTS, LABELLED_EVERY, insert_items
from vesta import Vesta
from vesta_common.ids import new_id
from vesta_contracts.datasets.v1 import (
    ArchiveFormat,
    ImportDatasetRequest,
    ImportDatasetResponse,
)
from vesta_local.platform import Platform

NEW_COUNT = 400
KNOWN_COUNT = 20_000
RATIO_GOAL, RATIO_FLOOR = 1.0, 0.4
LABELS_GOAL, LABELS_FLOOR = 5000, 80


def measure(platform: Platform) -> Iterator[Figure]:
    """Yields `import_ratio`, images per second of an import divided by those of a Sync of other images of the same size, and
    `import_labels_per_second`, for images that the dataset has. Both include the start of the process that reads the archive.

    The files of the second figure are texts with the hashes of rows: known images are not decoded.
    """
    width_px, height_px = ingest.SMALL.width_px, ingest.SMALL.height_px
    pictures = list(jpegs(2 * NEW_COUNT, width_px, height_px))
    folder = platform.home.inbox / f"bench-{new_id()}"
    folder.mkdir(parents=True)
    for index, picture in enumerate(pictures[:NEW_COUNT]):
        (folder / f"{index}.jpg").write_bytes(picture)
    synced = ingest.synced_per_second(platform, folder, NEW_COUNT)
    with Vesta(platform.home.address("gateway_grpc"), platform.home.owner_key) as owner:
        dataset = new_dataset(platform, "import")
        files = ((f"{CONCEPTS[index % 10]}/{index}.jpg", data) for index, data in enumerate(pictures[NEW_COUNT:]))
        imported = _imported_per_second(owner, dataset, _archive(folder, files), NEW_COUNT)
        known = new_dataset(platform, "import")
        with tables_of(platform) as connection:
            insert_items(connection, known, 0, KNOWN_COUNT, "")
        unlabelled = [number for number in range(KNOWN_COUNT) if number % LABELLED_EVERY]
        texts = ((f"{CONCEPTS[number % 10]}/{number}.jpg", f"{known}{number}".encode()) for number in unlabelled)
        labels = _imported_per_second(owner, known, _archive(folder, texts), len(unlabelled))
    yield Figure(
        "import_ratio",
        imported / synced,
        RATIO_GOAL,
        lower=False,
        floor=RATIO_FLOOR,
        baseline=f"a Sync of {NEW_COUNT} other JPEG files of {width_px}×{height_px}",
        details={"imported_images_per_second": imported, "synced_images_per_second": synced},
    )
    yield Figure(
        "import_labels_per_second",
        labels,
        LABELS_GOAL,
        lower=False,
        floor=LABELS_FLOOR,
        note="a label updates the row of its item, with all indexes and lists, and publishes an event",
    )


def _archive(folder: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    path = folder / f"{new_id()}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files:
            archive.writestr(name, content)
    return path


def _imported_per_second(owner: Vesta, dataset: str, archive: Path, count: int) -> float:
    """Returns images per second, from the call until the operation is done."""
    key = owner.upload_archive(dataset.partition("/datasets/")[0], archive)
    request = ImportDatasetRequest(name=dataset, archive_key=key, format=ArchiveFormat.ARCHIVE_FORMAT_IMAGE_FOLDER)
    began = time.perf_counter()
    done = owner.wait_for_operation(owner.datasets.ImportDataset(request).name)
    seconds = time.perf_counter() - began
    response = ImportDatasetResponse()
    if not done.response.Unpack(response) or response.added_count + response.duplicate_count != count:
        raise RuntimeError(f"the import did not take all images in: {done}")
    return count / seconds
