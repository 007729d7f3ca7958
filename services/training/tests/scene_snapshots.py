"""Snapshots of synthetic scenes in an object store, and jobs on them."""

import io
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from boxed_scenes import CONCEPTS, HEIGHT_PX, WIDTH_PX, Scenes
from vesta_common.manifests import Manifest, Part
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.common.v1 import Annotation, PixelBox
from vesta_contracts.datasets.v1 import AnnotationList
from vesta_training.runs.job import Job


def a_job(objects: ObjectStore, scenes: Scenes, train: int, **fields: Any) -> Job:
    """Returns a job on a snapshot of the scenes, with these fields."""
    job = Job(
        run="projects/acme/trainingRuns/r",
        recipe_name="detection",
        recipe_yaml="",
        concepts=CONCEPTS,
        snapshot="projects/acme/datasets/scenes/snapshots/1",
        snapshot_digest="d" * 64,
        manifest_key=a_manifest(objects, scenes, train),
        champion="",
        champion_key="",
        champion_digest="",
        seed=0,
        work_folder="",
    )
    return replace(job, **fields)


def a_manifest(objects: ObjectStore, scenes: Scenes, train: int) -> str:
    """Stores the manifest of a snapshot of the scenes, and returns its key."""
    rows = []
    for number, (sha256, boxes, concepts) in enumerate(scenes.scenes):
        annotations = [
            Annotation(concept=concept, box=PixelBox(x_min_px=x, y_min_px=y, x_max_px=x_max, y_max_px=y_max))
            for concept, (x, y, x_max, y_max) in zip(concepts, boxes, strict=True)
        ]
        rows.append(
            {
                "name": f"items/{number:02d}",
                "sha256": objects.put("media", scenes.png(sha256)).sha256,
                "width_px": WIDTH_PX,
                "height_px": HEIGHT_PX,
                "split": "TRAIN" if number < train else "TEST",
                "annotations": AnnotationList(annotations=annotations).SerializeToString(),
                "control": False,
                "accept_time": datetime(2026, 3, 1, tzinfo=UTC),
            }
        )
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    part = Part(objects.put("manifests", file.getvalue()).key, "d" * 64, "items/00", rows[-1]["name"], len(rows))
    return objects.put("manifests", Manifest("d" * 64, (part,)).to_json()).key
