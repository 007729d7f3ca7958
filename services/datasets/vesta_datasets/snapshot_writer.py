"""Writes snapshots: new parts for the ranges in which items changed, and an index that refers to them and to the unchanged parts.

The rows are read in one transaction, which sees the dataset at one point in time and locks nothing. New parts are kept in a
temporary folder until it has ended, so that neither a slow object store extends it nor a large dataset needs memory.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from vesta_common.errors import DataLoss, FailedPrecondition
from vesta_common.manifests import Manifest, Part, read_batches, read_file, read_manifest
from vesta_common.storage.objects import ObjectStore

from vesta_datasets.archives.scratch_folders import scratch_folder
from vesta_datasets.items.splits import Shares
from vesta_datasets.snapshots.manifest import COLUMNS, digest_of_parts
from vesta_datasets.snapshots.parts import PART_LIMITS, PartLimits, revise, write_part
from vesta_datasets.snapshots.statistics import Statistics, total
from vesta_datasets.store import Store
from vesta_datasets.store.snapshots import PointInTime, SeenBase, SnapshotBase

MANIFESTS = "manifests"

log = structlog.get_logger()


class Draft(NamedTuple):
    """The content of a dataset at one point in time.

    Attributes:
        parts: in order, each with its file if it is not stored yet.
        seen: what the next snapshot needs to share the parts.
    """

    parts: Sequence[tuple[Part, Path | None]]
    statistics: Statistics
    seen: SeenBase


class WrittenManifest(NamedTuple):
    """A stored manifest: its key and its digest."""

    key: str
    digest: str


class SnapshotWriter:
    """Writes the manifests of snapshots. Safe to use concurrently, also for the same dataset."""

    def __init__(
        self,
        store: Store,
        objects: ObjectStore,
        work_folder: Path | None = None,
        limits: PartLimits = PART_LIMITS,
    ) -> None:
        self._store = store
        self._objects = objects
        self._work_folder = work_folder
        self._limits = limits

    @contextmanager
    def draft(self, dataset: str, shares: Shares) -> Iterator[Draft]:
        """Reads the current content of a dataset. The files of the draft are deleted on exit."""
        snapshots = self._store.snapshots
        base = snapshots.find_base(dataset)
        with scratch_folder(self._work_folder, "vesta-snapshot-") as folder:
            while True:
                parts, lost = self._parts_of(dataset, base)
                with snapshots.point_in_time(dataset) as now:
                    if now.seen.base == base:
                        found = self._read(now, parts, lost, shares, folder)
                        break
                    base = now.seen.base
            counted = total(Statistics.of_dict(part.statistics) for part, _ in found)
            yield Draft(found, counted, now.seen)

    def write(self, dataset: str, draft: Draft) -> WrittenManifest:
        """Stores the new parts and the index of a draft. Both are named by the hash of their content.

        Raises:
            FailedPrecondition: SNAPSHOT_EMPTY, no item is annotated.
        """
        if not draft.statistics.annotated_count:
            raise FailedPrecondition(
                "no item of the dataset is annotated; annotate items first", reason="SNAPSHOT_EMPTY"
            )
        folder = manifest_folder(dataset)
        parts = [
            part if path is None else replace(part, key=self._objects.put(folder, path).key)
            for part, path in draft.parts
        ]
        manifest = Manifest(digest_of_parts(part.digest for part in parts), tuple(parts))
        return WrittenManifest(self._objects.put(folder, manifest.to_json()).key, manifest.digest)

    def rows(self, draft: Draft) -> Iterator[dict[str, list[Any]]]:
        """Yields the rows of a draft, as `vesta_common.manifests.read_rows` does."""
        for part, path in draft.parts:
            found = read_file(path, COLUMNS, part.key) if path else read_batches(self._objects, [part], COLUMNS)
            yield from (batch.to_pydict() for batch in found)

    def _parts_of(self, dataset: str, base: SnapshotBase) -> tuple[Sequence[Part], set[int]]:
        """Returns the parts of a base, and the indices of those that are written again: those whose files are missing, and those of a
        version that did not count objects. No parts if the index is damaged.
        """
        if not base.manifest_key:
            return (), set()
        try:
            parts = read_manifest(self._objects, base.manifest_key).parts
        except DataLoss as error:
            log.warning("snapshot_base_unreadable", dataset=dataset, error=str(error))
            return (), set()
        stored = set(self._objects.list_keys(f"{manifest_folder(dataset)}/"))
        return parts, {
            index
            for index, part in enumerate(parts)
            if part.key not in stored or not Statistics.is_complete(part.statistics)
        }

    def _read(
        self, now: PointInTime, parts: Sequence[Part], lost: set[int], shares: Shares, folder: Path
    ) -> list[tuple[Part, Path | None]]:
        changed = lost | now.changed_parts([part.last_item for part in parts]) if parts else lost
        found: list[tuple[Part, Path | None]] = []
        for content in revise(parts, changed, now.rows, self._limits):
            if isinstance(content, Part):
                found.append((content, None))
            else:
                path = folder / str(len(found))
                found.append((write_part(content, shares, path), path))
        return found


def manifest_folder(dataset: str) -> str:
    """Returns the key prefix of the manifests of a dataset. Parts contain names of items, so that only one dataset has them."""
    _, project, _, name = dataset.split("/")
    return f"{MANIFESTS}/{project}/{name}"
