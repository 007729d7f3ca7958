"""Commands for models: predict, rollback, and training runs."""

import sys
from pathlib import Path

import click
from vesta_contracts.serving.v1 import RollbackDeploymentRequest
from vesta_contracts.training.v1 import CancelTrainingRunRequest, TrainingRun

from vesta.cli.render import show, show_all
from vesta.cli.session import EXIT_REJECTED, Session, pass_session


@click.command()
@click.argument("deployment")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@pass_session
def predict(session: Session, deployment: str, files: tuple[Path, ...]) -> None:
    """Predict image files with a deployed model."""
    with session.progress() as progress:
        read = (path.read_bytes() for path in progress.track(files, description="tagging"))
        answers = session.client.predict(deployment, read)
    if session.json_output:
        show_all(answers, "json")
        return
    for path, answer in zip(files, answers, strict=True):
        found = [f"{score.concept} {score.score:.2f}" for score in answer.prediction.scores if score.predicted]
        labels = ", ".join(found) or "nothing"
        doubt = " (uncertain)" if answer.prediction.uncertain else ""
        click.echo(f"{path}\t{answer.reason + ': ' + answer.message if answer.reason else labels + doubt}")


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
