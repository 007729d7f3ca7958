"""The demo: hides the labels of images, and lets the platform learn them from simulated annotators, round by round.

Uses only the public API. Run by `make demo`; the platform must be running: that of `make up` on this machine, or an
external one.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import shown_cameras
from contact_sheet import write_contact_sheet
from control import RandomControl
from experts import Experts
from photographs import Photographs
from report import Report, RoundFigures, print_rounds, write
from rich.console import Console
from rich.progress import Progress
from rounds import Rounds, when_measured
from samples import SAMPLES_DIGEST, SAMPLES_URL, Download
from task_types import TASK_TYPES, name_of, names, read_data, task_named
from vesta import ApiError, Vesta
from vesta_contracts.conductor.v1 import Loop, LoopPolicy
from vesta_contracts.connection.v1 import Sync
from vesta_contracts.datasets.v1 import Split
from vesta_contracts.serving.v1 import GetDeploymentRequest
from world import TEST_SHARE, World, set_up

ROUNDS = 5
LABELS_PER_ROUND = 60
ANNOTATORS_PER_TASK = 2

console = Console(soft_wrap=True)


@dataclass(frozen=True)
class Ran:
    """What a loop did: the figures of its rounds, and its state after them."""

    rounds: list[RoundFigures]
    state: Loop

    @property
    def deployment(self) -> str:
        """The deployment of its champion."""
        return self.state.status.deployment


@dataclass(frozen=True)
class Platform:
    """The connection parameters of the platform.

    Attributes:
        rest: the address of the REST API; empty if unknown.
        kafka: HOST:PORT of the broker; empty if cameras cannot reach it.
        inbox: a folder that the platform can read; None for an external platform, to which photographs are uploaded.
        owner_key: the API key of the platform's owner.
    """

    grpc: str
    owner_key: str
    rest: str = ""
    kafka: str = ""
    inbox: Path | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo; returns the exit status."""
    options = _options(arguments)
    started = time.monotonic()
    folder = options.home / "demo"
    try:
        platform = (
            Platform(options.address, options.key, kafka=options.kafka)
            if options.address
            else _find_platform(options.home)
        )
        photographs = _find_photographs(options)
        _tell(photographs)
        with Vesta(platform.grpc, platform.owner_key) as owner:
            world = _set_up(owner, platform, photographs)
            loop = _run_loop(owner, platform, world, options.rounds)
            observed = shown_cameras.show(owner, platform.kafka, world, loop.deployment, console.print)
            _draw_predictions(owner, world, loop.deployment, folder / "contact-sheet.png")
    except (ValueError, ApiError, TimeoutError, RuntimeError, OSError) as error:
        console.print(f"[red]{error}[/red]")
        return 1
    seconds = round(time.monotonic() - started, 1)
    task = world.task_type
    report = Report(photographs.name, task.metric, task.unit, seconds, observed, loop.rounds)
    write(folder, report)
    print_rounds(console, report)
    _tell_saving(loop.state, report)
    console.print(
        f"Chart: {folder / 'curve.png'}   predictions: {folder / 'contact-sheet.png'}   "
        f"figures: {folder / 'report.json'}   {seconds:.0f} s in all"
    )
    if platform.rest:
        console.print(
            f"The platform keeps running: [bold]http://{platform.rest}[/bold] (API at /docs; `make down` stops it)"
        )
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        help="a folder with boxes or masks in the format of COCO, Pascal VOC or YOLO, or with one sub-folder per class",
    )
    parser.add_argument(
        "--task",
        help=f"{', '.join(names())}; by default the first, or what the folder of --data contains",
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--home",
        type=Path,
        default=Path(os.environ.get("VESTA_HOME", ".vesta")),
        help="the home folder of the platform that `make up` started; also the folder of the samples and the report",
    )
    parser.add_argument("--address", help="the gRPC address of an external platform: HOST:PORT, or https://HOST:PORT")
    parser.add_argument(
        "--key", default=os.environ.get("VESTA_API_KEY"), help="the API key of the owner; VESTA_API_KEY by default"
    )
    parser.add_argument(
        "--kafka",
        default="",
        help="HOST:PORT of the broker of the external platform; without it, no camera sends frames",
    )
    parser.add_argument("--samples-url", default=SAMPLES_URL, help="the URL of the photographs if --data is not set")
    parser.add_argument("--samples-digest", default=SAMPLES_DIGEST, help="the expected SHA-256 of the photographs")
    options = parser.parse_args(arguments)
    if options.data and not options.data.is_dir():
        parser.error(f"{options.data} is not a folder")
    if options.task and options.task not in names():
        parser.error(f"there is no demo for {options.task}; choose one of {', '.join(names())}")
    if options.rounds < 1:
        parser.error("rounds must be at least 1")
    if options.address and not options.key:
        parser.error("--address requires the API key of the owner: use --key, or set VESTA_API_KEY")
    if options.kafka and not options.address:
        parser.error("--kafka requires --address; the broker of the platform of `make up` is known")
    return options


def _find_platform(home: Path) -> Platform:
    """Returns the local platform in `home`. Raises OSError if none was started."""
    addresses = json.loads((home / "run" / "addresses.json").read_text())
    return Platform(
        grpc=addresses["gateway_grpc"],
        rest=addresses["gateway"],
        kafka=addresses["events"],
        inbox=home.resolve() / "inbox",
        owner_key=(home / "owner.key").read_text().strip(),
    )


def _find_photographs(options: argparse.Namespace) -> Photographs:
    """Returns the data of the user, or the samples of the task type.

    Raises:
        ValueError: the data cannot be read, or has no annotations for `--task`.
    """
    task = task_named(options.task) if options.task else None
    if not options.data:
        download = Download(options.samples_url, options.samples_digest)
        return (task or task_named(names()[0])).samples(options.home / "samples", console.print, download)
    form, found = read_data(options.data, task)
    console.print(f"{options.data} has the format {form}; it is read for {name_of(found.task_type)}.")
    return found


def _tell(photographs: Photographs) -> None:
    held_out = (
        f"{len(photographs.test)} held out for testing"
        if photographs.test
        else f"{TEST_SHARE:.0%} held out for testing"
    )
    unit = TASK_TYPES[photographs.task_type].unit
    objects = sum(len(photograph.annotations) for photograph in [*photographs.pool, *photographs.test])
    console.print(
        f"[bold]{photographs.name}[/bold]: {len(photographs.pool)} photographs without labels, {held_out}, "
        + (f"{objects} hidden {unit}, " if unit else "")
        + f"{len(photographs.labels)} classes: {', '.join(photographs.labels)}"
    )


def _set_up(owner: Vesta, platform: Platform, photographs: Photographs) -> World:
    """Creates a project with the photographs."""
    project_id = f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    return set_up(owner, platform.inbox, photographs, project_id, test_share=TEST_SHARE, watch=_progress, quick=True)


def _run_loop(owner: Vesta, platform: Platform, world: World, round_count: int) -> Ran:
    """Runs a loop with simulated annotators, and prints its rounds and what became of their mistakes."""
    task = world.task_type
    experts = world.hire_experts(platform.grpc, ("ada", "ben", "cleo"), seed=7, makes_mistakes=True)
    control = RandomControl(owner, world, round_count * LABELS_PER_ROUND)
    loop = world.start_loop(
        LoopPolicy(
            label_budget=round_count * LABELS_PER_ROUND * ANNOTATORS_PER_TASK,
            batch_size=LABELS_PER_ROUND,
            retrain_after=LABELS_PER_ROUND,
            annotators_per_task=ANNOTATORS_PER_TASK,
            instructions=task.instructions,
        )
    )
    console.print(
        f"The loop runs {round_count} rounds of {LABELS_PER_ROUND} labels, each from "
        f"{ANNOTATORS_PER_TASK} of 3 annotators. Simulated errors: {task.error_rates}."
    )
    rounds = Rounds(owner, world, loop, experts, control, console.print).play(round_count)
    _tell_mistakes(world, experts)
    ran = Ran(rounds, when_measured(owner, loop))
    acceptance = owner.deployments.GetDeployment(GetDeploymentRequest(name=ran.deployment)).acceptance
    console.print(f"Predictions that need no human: {acceptance.message}")
    return ran


def _tell_mistakes(world: World, experts: Experts) -> None:
    console.print(
        f"The annotators gave {experts.answer_count} answers with {experts.mistake_count} mistakes; reviewers "
        f"decided {experts.correction_count} disagreements."
    )
    caught, mistaken = experts.caught(world.items_now("labelled AND split = TRAIN"))
    console.print(
        f"Of {mistaken} photographs with a wrong answer, {caught} have the right label "
        "nevertheless"
        + (
            "."
            if caught == mistaken
            else "; for the others, both annotators gave the same wrong answer, which review cannot detect."
        )
    )


def _draw_predictions(owner: Vesta, world: World, deployment: str, path: Path) -> None:
    """Writes the contact sheet of the test split."""
    test = [world.photographs[item.name] for item in world.items if item.split == Split.SPLIT_TEST]
    write_contact_sheet(
        path, test, world.task_type, lambda images: [one.prediction for one in owner.predict(deployment, images)]
    )


@contextmanager
def _progress(side: str, count: int) -> Iterator[Callable[[Sync], None]]:
    """A progress bar for the import of a split, followed by its result."""
    last = Sync()
    with Progress(console=console) as progress:
        bar = progress.add_task(f"importing {side}", total=count)

        def advance(sync: Sync) -> None:
            last.CopyFrom(sync)
            progress.update(bar, completed=sync.added_count + sync.duplicate_count + sync.rejected_count)

        yield advance
    console.print(f"  {last.added_count} imported, {last.duplicate_count} duplicates, {last.rejected_count} rejected")


def _tell_saving(loop: Loop, report: Report) -> None:
    """Prints the estimate of the labels that random selection would have needed, in images and in what annotators draw."""
    saving = loop.status.label_saving
    if not saving.HasField("random_labels"):
        if saving.reason:
            console.print(f"The saved labels cannot be estimated: {saving.reason} ({saving.spent_labels} were spent).")
        return
    needed = saving.random_labels
    high = "an unknown number" if saving.high_unknown else f"{needed.high:.0f}"
    console.print(
        f"Estimate: random selection would have needed {needed.value:.0f} labels ({needed.low:.0f} "
        f"to {high}); the loop spent {saving.spent_labels}."
    )
    if saving.HasField("random_objects"):
        console.print(f"That are {saving.random_objects:.0f} {report.unit}; the loop spent {saving.spent_objects}.")
    if saving.HasField("random_time"):
        needed_minutes, spent_minutes = (
            time.ToTimedelta().total_seconds() / 60 for time in (saving.random_time, saving.spent_time)
        )
        console.print(
            f"Without suggestions, people would take about {needed_minutes:.0f} minutes to label them at random, and {spent_minutes:.0f} "
            "for those that the loop chose."
        )


if __name__ == "__main__":
    sys.exit(main())
