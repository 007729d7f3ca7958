"""Commands for models: predict, rollback, and training runs."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click
from vesta_contracts.common.v1 import Prediction
from vesta_contracts.serving.v1 import ImagePrediction, RollbackDeploymentRequest
from vesta_contracts.training.v1 import CancelTrainingRunRequest, TrainingRun

from vesta.cli.render import show, show_all
from vesta.cli.session import EXIT_REJECTED, Session, pass_session
from vesta.maps import area_shares
from vesta.objects import area_px, corners, predicted_objects


@click.command()
@click.argument("deployment")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--draw",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the images with the predicted objects or pixels into this folder.",
)
@pass_session
def predict(session: Session, deployment: str, files: tuple[Path, ...], folder: Path | None) -> None:
    """Predict image files with a deployed model."""
    _check_names(files, folder)
    with session.progress() as progress:
        read = (path.read_bytes() for path in progress.track(files, description="tagging"))
        answers = session.client.predict(deployment, read)
    if folder:
        _draw(folder, files, answers)
    if session.json_output:
        show_all(answers, "json")
        return
    for path, answer in zip(files, answers, strict=True):
        click.echo(f"{path}\t{answer.reason + ': ' + answer.message if answer.reason else _summary(answer.prediction)}")
        for found in predicted_objects(answer.prediction):
            box = ", ".join(f"{side:.1f}" for side in corners(found))
            click.echo(f"  {found.concept} {found.score:.2f}\t{box}\t{area_px(found):.0f} px")
        for concept, share in area_shares(answer.prediction.segmentation_map).items():
            click.echo(f"  {concept}\t{share:.1%} of the pixels")


def _summary(prediction: Prediction) -> str:
    """Returns the predicted concepts with their scores, and whether the prediction is uncertain."""
    found = [f"{score.concept} {score.score:.2f}" for score in prediction.scores if score.predicted]
    reason = f": {prediction.uncertain_reason}" if prediction.uncertain_reason else ""
    return (", ".join(found) or "nothing") + (f" (uncertain{reason})" if prediction.uncertain else "")


def _check_names(files: tuple[Path, ...], folder: Path | None) -> None:
    """Checks that the files can be written into one folder, which does not contain any of them.

    Raises:
        ValueError: two files have one name, or a file would be replaced.
    """
    if folder is None:
        return
    for name, count in Counter(path.name for path in files).items():
        if count > 1:
            raise ValueError(f"{count} files are named {name}; draw them into different folders")
    for path in files:
        if path.parent.resolve() == folder.resolve():
            raise ValueError(f"{path} would be replaced by its drawing; choose another folder than {folder}")


def _draw(folder: Path, files: tuple[Path, ...], answers: Sequence[ImagePrediction]) -> None:
    """Writes the images that were not rejected with their predicted objects or pixels."""
    try:
        from vesta.drawing import draw
    except ImportError as error:
        raise ValueError(f"--draw requires Pillow: pip install 'vesta-client[draw]' ({error})") from error
    folder.mkdir(parents=True, exist_ok=True)
    for path, answer in zip(files, answers, strict=True):
        if not answer.reason:
            draw(path.read_bytes(), predicted_objects(answer.prediction), answer.prediction.segmentation_map).save(
                folder / path.name
            )


@click.command()
@click.argument("deployment")
@pass_session
def rollback(session: Session, deployment: str) -> None:
    """Roll a deployment back to its previous version."""
    answer = session.client.deployments.RollbackDeployment(RollbackDeploymentRequest(name=deployment))
    show(answer, json_output=session.json_output)


@click.group()
def runs() -> None:
    """Monitor and cancel training runs."""


@runs.command("watch")
@click.argument("name")
@pass_session
def watch_run(session: Session, name: str) -> None:
    """Monitor a run until it ends."""
    with session.progress() as progress:
        bar = progress.add_task("waiting", total=None)

        def advance(run: TrainingRun) -> None:
            loss = f" loss {run.progress.loss:.3f}" if run.progress.HasField("loss") else ""
            seconds_left = run.progress.time_left.ToTimedelta().total_seconds()
            what = run.waiting_reason or f"{run.progress.phase}{loss}" + (
                f", {seconds_left:.0f} s left" if seconds_left else ""
            )
            progress.update(bar, description=what, completed=run.progress.step, total=run.progress.step_count or None)

        ended = session.client.wait_for_run(name, advance)
    show(ended, json_output=session.json_output)
    if ended.state != TrainingRun.SUCCEEDED:
        sys.exit(EXIT_REJECTED)


@runs.command("cancel")
@click.argument("name")
@pass_session
def cancel_run(session: Session, name: str) -> None:
    """Cancel a run."""
    answer = session.client.training_runs.CancelTrainingRun(CancelTrainingRunRequest(name=name))
    show(answer, json_output=session.json_output)
