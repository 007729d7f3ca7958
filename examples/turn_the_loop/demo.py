"""The demo: hides the labels of photographs, and lets the platform learn them from simulated annotators, round by round.

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
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import cameras
from control import RandomControl
from experts import Experts
from kafka.errors import KafkaError
from photographs import SAMPLES_DIGEST, SAMPLES_URL, Photographs, find_samples, read_folder
from report import Report, RoundFigures, percent, print_rounds, write
from rich.console import Console
from rich.progress import Progress
from vesta import ApiError, Vesta
from vesta_contracts.conductor.v1 import GetLoopRequest, Loop, LoopPolicy, LoopStatus, Round
from vesta_contracts.connection.v1 import Sync
from vesta_contracts.datasets.v1 import GetDatasetRequest, ListItemsRequest, Split
from world import TEST_SHARE, World, set_up

ROUNDS = 5
LABELS_PER_ROUND = 60
ANNOTATORS_PER_TASK = 2
MISTAKE_SHARE = 0.05
FRAME_COUNT = 40
PAUSE_SECONDS = 0.2
ROUND_PATIENCE_SECONDS = 600

console = Console(soft_wrap=True)


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
    try:
        platform = (
            Platform(options.address, options.key, kafka=options.kafka)
            if options.address
            else _find_platform(options.home)
        )
        photographs = (
            read_folder(options.data)
            if options.data
            else find_samples(options.home / "samples", console.print, options.samples_url, options.samples_digest)
        )
        _tell(photographs)
        with Vesta(platform.grpc, platform.owner_key) as owner:
            report, loop = _turn(owner, platform, photographs, options.rounds)
    except (ValueError, ApiError, TimeoutError, RuntimeError, OSError) as error:
        console.print(f"[red]{error}[/red]")
        return 1
    report = replace(report, seconds=round(time.monotonic() - started, 1))
    folder = options.home / "demo"
    write(folder, report)
    print_rounds(console, report.rounds)
    _tell_saving(loop)
    console.print(f"Chart: {folder / 'curve.png'}   figures: {folder / 'report.json'}   {report.seconds:.0f} s in all")
    if platform.rest:
        console.print(
            f"The platform keeps running: [bold]http://{platform.rest}[/bold] (API at /docs; `make down` stops it)"
        )
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder with one sub-folder per class")
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


def _tell(photographs: Photographs) -> None:
    held_out = (
        f"{len(photographs.test)} held out for testing"
        if photographs.test
        else f"{TEST_SHARE:.0%} held out for testing"
    )
    console.print(
        f"[bold]{photographs.name}[/bold]: {len(photographs.pool)} photographs without labels, {held_out}, "
        f"{len(photographs.labels)} classes: {', '.join(photographs.labels)}"
    )


def _turn(owner: Vesta, platform: Platform, photographs: Photographs, round_count: int) -> tuple[Report, Loop]:
    """Sets up a project, runs its loop and its cameras. The caller sets the duration in the report."""
    project_id = f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    world = set_up(owner, platform.inbox, photographs, project_id, test_share=TEST_SHARE, watch=_progress)
    experts = world.hire_experts(platform.grpc, ("ada", "ben", "cleo"), MISTAKE_SHARE, seed=7)
    control = RandomControl(owner, world.dataset, world.items, world.truth, round_count * LABELS_PER_ROUND)
    loop = world.start_loop(
        LoopPolicy(
            label_budget=round_count * LABELS_PER_ROUND * ANNOTATORS_PER_TASK,
            batch_size=LABELS_PER_ROUND,
            retrain_after=LABELS_PER_ROUND,
            annotators_per_task=ANNOTATORS_PER_TASK,
            instructions="What does the photograph show?",
        )
    )
    console.print(
        f"The loop runs {round_count} rounds of {LABELS_PER_ROUND} labels, each from "
        f"{ANNOTATORS_PER_TASK} of 3 annotators."
    )
    rounds = _play_rounds(owner, loop, experts, control, round_count)
    console.print(
        f"The annotators gave {experts.answer_count} answers, {experts.mistake_count} of them "
        f"wrong (simulated error rate: {MISTAKE_SHARE:.0%}); reviewers decided "
        f"{experts.correction_count} disagreements."
    )
    labelled = owner.pages(
        owner.items.ListItems, ListItemsRequest(parent=world.dataset.name, filter="labelled AND split = TRAIN")
    )
    caught, mistaken = experts.caught(labelled)
    console.print(
        f"Of {mistaken} photographs with a wrong answer, {caught} have the right label "
        "nevertheless"
        + (
            "."
            if caught == mistaken
            else "; for the others, both annotators gave the same wrong answer, which review cannot detect."
        )
    )
    state = owner.loops.GetLoop(GetLoopRequest(name=loop))
    observed = _show_cameras(owner, platform, world, state.status.deployment)
    return Report(photographs.name, 0.0, observed, rounds), state


def _play_rounds(
    owner: Vesta, loop: str, experts: Experts, control: RandomControl, round_count: int
) -> list[RoundFigures]:
    """Runs the rounds, as long as there are items to label, and prints a line for each."""
    rounds: list[RoundFigures] = []
    for number in range(1, round_count + 1):
        played = _play_round(owner, loop, experts, number)
        if played is None:
            console.print(f"  All photographs are labelled after {len(rounds)} rounds.")
            break
        turned, waited = played
        figures = _figures(owner, loop, turned, control, waited)
        rounds.append(figures)
        console.print(
            f"  round {number}: {figures.labels} labels → [bold]{percent(figures.accuracy)}[/bold] right "
            f"(random labels: {percent(figures.random_accuracy)}), {percent(figures.auto_share, 0)} of the pool tagged alone, "
            f"{'better model' if turned.verdict.passed else 'verdict'} {figures.seconds:.1f} s after the last label"
            + ("" if turned.verdict.passed else f"; champion stays: {turned.verdict.reason}")
        )
    return rounds


def _show_cameras(owner: Vesta, platform: Platform, world: World, deployment: str) -> int:
    """Lets two cameras send photographs of the test split, and prints the observations. Returns their number.

    A failure of the cameras is printed and not raised, so that the report of the loop is still written.
    """
    if not platform.kafka:
        console.print(
            "No camera sends frames: set --kafka HOST:PORT, an address of the broker that this machine can reach."
        )
        return 0
    shown = [world.photographs[item.name].path for item in world.items if item.split == Split.SPLIT_TEST]
    frames = shown[:: max(1, len(shown) // FRAME_COUNT)][:FRAME_COUNT]
    try:
        streams = cameras.open_streams(owner, world.project, world.dataset.name, deployment, ("door", "yard"))
        seen = cameras.watch(owner, streams, platform.kafka, frames)
    except (ApiError, KafkaError) as error:
        console.print(f"[red]The cameras were not seen: {error}[/red]")
        return 0
    missed = f" ({len(frames) - len(seen)} frames were not observed)" if len(seen) < len(frames) else ""
    console.print(f"Two cameras sent {len(frames)} frames over Kafka; {len(seen)} observations{missed}, such as:")
    for observation in seen[:3]:
        labels = ", ".join(f"{label.concept} {label.score:.2f}" for label in observation.labels) or "nothing for sure"
        doubt = ", uncertain: sent to the experts" if observation.prediction.uncertain else ""
        console.print(f"  {observation.name.split('/')[5]}: {labels}{doubt}")
    return len(seen)


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


def _play_round(owner: Vesta, loop: str, experts: Experts, number: int) -> tuple[Round, float] | None:
    """Lets the annotators work until the round has ended. Returns the round, and the seconds since the last label.

    Returns:
        None if no item is left to label.

    Raises:
        ValueError: the loop is blocked, or the round does not complete.
    """
    deadline = time.monotonic() + ROUND_PATIENCE_SECONDS
    worked = time.monotonic()
    while True:
        status = owner.loops.GetLoop(GetLoopRequest(name=loop)).status
        if len(status.rounds) >= number and status.rounds[number - 1].HasField("end_time"):
            return status.rounds[number - 1], time.monotonic() - worked
        if status.phase == LoopStatus.EXHAUSTED:
            if number == 1:
                raise ValueError(f"too few labels for a training: {status.message}")
            return None
        if status.phase == LoopStatus.BLOCKED:
            raise ValueError(f"the loop is blocked: {status.message}")
        if time.monotonic() > deadline:
            raise ValueError(
                f"round {number} does not complete: {LoopStatus.Phase.Name(status.phase)}, {status.message}"
            )
        if status.phase == LoopStatus.LABELLING and experts.work(status.campaign):
            worked = time.monotonic()
        else:
            time.sleep(PAUSE_SECONDS)


def _figures(owner: Vesta, loop: str, turned: Round, control: RandomControl, waited: float) -> RoundFigures:
    """Returns the figures of a round, for the model that is deployed after it."""
    state = owner.loops.GetLoop(GetLoopRequest(name=loop))
    measured = state.status.HasField("champion_metrics")
    champion = state.status.champion_metrics.accuracy
    counts = owner.datasets.GetDataset(GetDatasetRequest(name=state.policy.dataset)).counts
    tagged = counts.pool_certain_count / counts.pool_scored_count if counts.pool_scored_count else None
    return RoundFigures(
        labels=turned.label_count,
        accuracy=champion.value if measured else None,
        accuracy_low=champion.low if measured else None,
        accuracy_high=champion.high if measured else None,
        random_accuracy=control.accuracy(turned.label_count),
        auto_share=turned.auto_share if turned.HasField("auto_share") else tagged,
        seconds=turned.label_to_model.ToTimedelta().total_seconds() if turned.HasField("label_to_model") else waited,
    )


def _tell_saving(loop: Loop) -> None:
    saving = loop.status.label_saving
    if saving.HasField("random_labels"):
        needed = saving.random_labels
        high = "an unknown number" if saving.high_unknown else f"{needed.high:.0f}"
        console.print(
            f"Estimate: random selection would have needed {needed.value:.0f} labels ({needed.low:.0f} "
            f"to {high}); the loop spent {saving.spent_labels}."
        )
    elif saving.reason:
        console.print(f"The saved labels cannot be estimated: {saving.reason} ({saving.spent_labels} were spent).")


if __name__ == "__main__":
    sys.exit(main())
