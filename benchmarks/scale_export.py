"""Memory of the COCO export of a large snapshot.

The export runs in a process of its own, with the code of the datasets service and without the other benchmarks. All rows of the snapshot
have the same small image, which the process reads once: reading it for each row would take most of the time, and no memory.
"""

import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from figures import Figure
from PIL import Image
from scale_rows import CONCEPTS
from vesta_common.clock import SystemClock
from vesta_common.manifests import Manifest
from vesta_common.media.large_annotations import LargeAnnotations
from vesta_common.storage.objects import OBJECT_BYTES_MAX, ObjectRef, ObjectStore
from vesta_common.storage.postgres import Postgres, address_of
from vesta_contracts.common.v1 import Annotation, ImageLabel, PixelBox
from vesta_contracts.datasets.v1 import (
    AnnotationList,
    ArchiveFormat,
    Concept,
    Dataset,
    ExportDatasetRequest,
    Snapshot,
    Taxonomy,
)
from vesta_datasets.items.splits import Shares
from vesta_datasets.operations.transfers import Export
from vesta_datasets.operations.worker import Operations
from vesta_datasets.snapshot_writer import SnapshotWriter, manifest_folder
from vesta_datasets.snapshots.manifest import ManifestRow, digest_of_parts
from vesta_datasets.snapshots.parts import PART_LIMITS, cut, write_part
from vesta_datasets.store import Store
from vesta_datasets.store.operations import EXPORT
from vesta_local.engines.addresses import admin_settings
from vesta_local.home import Home

FEW, MANY = 50_000, 200_000
GOAL_MIB, GROWTH_GOAL_MIB = 512.0, 32.0
SCHEMA = "scale_export"
PROJECT = "projects/scale-export"
_RESET_PEAK = "5"  # see clear_refs in proc(5)
_CALL = "import pickle, sys, scale_export; print(scale_export.{}(*pickle.load(sys.stdin.buffer)))"


def measure(home: Home) -> Iterator[Figure]:
    """Yields `scale_export_mib`, the peak of the resident memory during the export of `MANY` items, and `scale_export_growth_mib`."""
    few, many = (_in_process(home, count) for count in (FEW, MANY))
    yield Figure("scale_export_mib", many, GOAL_MIB, lower=True, details={f"mib_at_{FEW}": few})
    yield Figure("scale_export_growth_mib", many - few, GROWTH_GOAL_MIB, lower=True)


def _in_process(home: Home, count: int) -> float:
    """Returns the peak of the export of `count` rows, in MiB. A process that multiprocessing starts would import all benchmarks."""
    for function in ("prepare", "export_peak_mib"):
        command = [sys.executable, "-c", _CALL.format(function)]
        given = pickle.dumps((home, count))
        done = subprocess.run(command, input=given, stdout=subprocess.PIPE, cwd=Path(__file__).parent, check=True)
    return float(done.stdout.split()[-1])


def prepare(home: Home, count: int) -> None:
    """Creates a dataset with a snapshot of `count` rows, in a schema that no service uses."""
    settings = admin_settings(home)
    postgres, objects = Postgres(address_of(settings), SCHEMA).open(), ObjectStore.of(settings)
    postgres.migrate("vesta_datasets")
    store = Store(postgres, SystemClock(), LargeAnnotations(objects))
    target = BytesIO()
    Image.new("RGB", (64, 48), "gray").save(target, "JPEG")
    image = objects.put("media", target.getvalue())
    folder = manifest_folder(_dataset(count))
    parts = []
    with TemporaryDirectory() as scratch:
        for rows in cut((_row(count, number, image) for number in range(count)), PART_LIMITS):
            part = write_part(rows, Shares(0.0, 0.2), Path(scratch) / "part")
            parts.append(replace(part, key=objects.put(folder, Path(scratch) / "part").key))
    manifest = Manifest(digest_of_parts(part.digest for part in parts), tuple(parts))
    snapshot = Snapshot(name=_snapshot(count), manifest_key=objects.put(folder, manifest.to_json()).key)
    with postgres.transaction() as connection:
        taxonomy = Taxonomy(
            name=f"{PROJECT}/taxonomies/t{count}", concepts=[Concept(id=concept) for concept in CONCEPTS]
        )
        store.taxonomies.insert(connection, taxonomy)
        store.datasets.insert(connection, Dataset(name=_dataset(count), taxonomy=taxonomy.name))
        store.snapshots.insert(connection, snapshot, datetime.now(UTC))
    postgres.close()


def export_peak_mib(home: Home, count: int) -> float:
    """Exports the snapshot of `count` rows, and returns the peak of the resident memory of this process."""
    settings = admin_settings(home)
    postgres, objects = Postgres(address_of(settings), SCHEMA).open(), _ReadingOnce.of(settings)
    store = Store(postgres, SystemClock(), LargeAnnotations(objects))
    request = ExportDatasetRequest(
        name=_dataset(count), snapshot=_snapshot(count), format=ArchiveFormat.ARCHIVE_FORMAT_COCO
    )
    with TemporaryDirectory() as scratch:
        export = Export(store, objects, SnapshotWriter(store, objects), Path(scratch))
        operations = Operations(store, {EXPORT: export})
        with postgres.transaction() as connection:
            operation = operations.begin(connection, EXPORT, request.name, request, "")
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
        operations.step()
    with postgres.transaction() as connection:
        state = operations.get(connection, operation.name)
    assert state.done, state
    assert not state.HasField("error"), state.error
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    postgres.close()
    return int(found[1]) / 1024


class _ReadingOnce(ObjectStore):
    """Keeps the last object that was read."""

    _last: tuple[str, bytes] = ("", b"")

    def get(self, key: str, sha256: str = "", size_bytes_max: int = OBJECT_BYTES_MAX, *, checked: bool = True) -> bytes:
        if self._last[0] != key:
            self._last = key, super().get(key, sha256, size_bytes_max, checked=checked)
        return self._last[1]


def _dataset(count: int) -> str:
    return f"{PROJECT}/datasets/d{count}"


def _snapshot(count: int) -> str:
    return f"{_dataset(count)}/snapshots/s"


def _row(count: int, number: int, image: ObjectRef) -> ManifestRow:
    concept = CONCEPTS[number % len(CONCEPTS)]
    box = PixelBox(x_max_px=10, y_max_px=10)
    annotations = [Annotation(concept=concept, image_label=ImageLabel()), Annotation(concept=concept, box=box)]
    return ManifestRow(
        name=f"{_dataset(count)}/items/{number:08}",
        sha256=image.sha256,
        object_key=image.key,
        mime_type="image/jpeg",
        width_px=64,
        height_px=48,
        split=("TRAIN", "TEST")[number % 2],
        labels=(concept,),
        annotations=AnnotationList(annotations=annotations).SerializeToString(),
        accept_time=datetime(2026, 1, 1, tzinfo=UTC),
    )
