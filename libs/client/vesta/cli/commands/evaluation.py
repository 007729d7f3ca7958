"""The command that evaluates predictions of any model against a snapshot."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from vesta_contracts.datasets.v1 import ArchiveFormat, ExportDatasetRequest

from vesta.cli.commands.data import export_archive
from vesta.cli.session import Session, pass_session
from vesta.evaluation import AveragePrecision, Evaluation, evaluate, read_results, read_truth

_SNAPSHOT_SEGMENTS = 6


@click.command("evaluate")
@click.argument("results", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--snapshot", required=True, help="The snapshot with the true objects.")
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True)
@pass_session
def evaluate_results(session: Session, results: Path, snapshot: str, split: str) -> None:
    """Evaluate a COCO results file (boxes, masks or keypoints) against a snapshot.

    RESULTS is a list of objects with image_id, category_id, score, and bbox, or segmentation for masks, or keypoints if the
    snapshot has them. Images and categories are those of the archive that `vesta export --format coco --snapshot` writes, by their ids or
    by file name and concept.
    """
    segments = snapshot.split("/")
    if len(segments) != _SNAPSHOT_SEGMENTS:
        raise ValueError(f"{snapshot} is not a snapshot, such as projects/acme/datasets/vans/snapshots/s1")
    dataset = "/".join(segments[:4])
    request = ExportDatasetRequest(name=dataset, format=ArchiveFormat.ARCHIVE_FORMAT_COCO, snapshot=snapshot)
    with TemporaryDirectory() as folder:
        archive = Path(folder) / "snapshot.zip"
        export_archive(session, request, archive)
        truth = read_truth(archive, split)
    found = evaluate(truth, read_results(results, truth))
    click.echo(json.dumps(_without_nan(found)) if session.json_output else _text(found))


def _without_nan(found: Evaluation) -> dict[str, object]:
    """Returns the evaluation for JSON, which has no NaN: null for a concept without true objects."""
    by_concept = {
        concept: None if math.isnan(value.at_50) else asdict(value) for concept, value in found.by_concept.items()
    }
    return {**asdict(found), "by_concept": by_concept}


def _text(found: Evaluation) -> str:
    width = max(len(concept) for concept in (*found.by_concept, "mean"))
    lines = [
        f"{found.image_count} images, {found.object_count} objects, {found.result_count} results",
        f"{'':{width}}  mAP@50  mAP@50:95",
    ]
    rows = {"mean": found.mean, **found.by_concept}
    return "\n".join([*lines, *(f"{name:{width}}  {_cells(value)}" for name, value in rows.items())])


def _cells(value: AveragePrecision) -> str:
    if math.isnan(value.at_50):
        return "no objects"
    return f"{value.at_50:6.3f}  {value.at_50_95:9.3f}"
