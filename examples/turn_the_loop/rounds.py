"""Runs the rounds of a loop with simulated annotators, and collects the figures of each."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from control import RandomControl
from experts import Experts
from report import RoundFigures, percent
from vesta import Vesta
from vesta.waiting import wait_until
from vesta_contracts.conductor.v1 import GetLoopRequest, Loop, LoopStatus, Round
from vesta_contracts.datasets.v1 import GetDatasetRequest
from world import World

PAUSE_SECONDS = 0.2
ROUND_PATIENCE_SECONDS = 600
CURVE_PATIENCE = timedelta(minutes=5)


@dataclass(frozen=True)
class Rounds:
    """The rounds of a loop.

    Attributes:
        tell: receives a line per round.
    """

    owner: Vesta
    world: World
    loop: str
    experts: Experts
    control: RandomControl
    tell: Callable[[str], None]

    def play(self, round_count: int) -> list[RoundFigures]:
        """Runs the rounds, as long as there are items to label, and tells the figures of each.

        Raises:
            ValueError: the loop is blocked, or a round does not complete.
        """
        rounds: list[RoundFigures] = []
        for number in range(1, round_count + 1):
            played = self._play_round(number)
            if played is None:
                self.tell(f"  All photographs are labelled after {len(rounds)} rounds.")
                break
            turned, waited = played
            rounds.append(self._figures(turned, waited))
            self.tell(self._in_words(number, rounds[-1], turned))
        return rounds

    def _play_round(self, number: int) -> tuple[Round, float] | None:
        """Lets the annotators work until the round has ended. Returns the round, and the seconds since the last label.

        Returns:
            None if no item is left to label.
        """
        deadline = time.monotonic() + ROUND_PATIENCE_SECONDS
        worked = time.monotonic()
        while True:
            status = self.owner.loops.GetLoop(GetLoopRequest(name=self.loop)).status
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
            if status.phase == LoopStatus.LABELLING and self.experts.work(status.campaign):
                worked = time.monotonic()
            else:
                time.sleep(PAUSE_SECONDS)

    def _figures(self, turned: Round, waited: float) -> RoundFigures:
        """Returns the figures of a round, for the model that is deployed after it."""
        status = self.owner.loops.GetLoop(GetLoopRequest(name=self.loop)).status
        measured = status.HasField("champion_metrics")
        quality = self.world.task_type.quality(status.champion_metrics)
        counts = self.owner.datasets.GetDataset(GetDatasetRequest(name=self.world.dataset.name)).counts
        tagged = counts.pool_certain_count / counts.pool_scored_count if counts.pool_scored_count else None
        labelled = self.world.items_now("labelled AND split = TRAIN")
        random_round = self.control.measure(turned.label_count)
        return RoundFigures(
            labels=turned.label_count,
            objects=sum(len(item.accepted.annotations) for item in labelled),
            quality=quality.value if measured else None,
            quality_low=quality.low if measured else None,
            quality_high=quality.high if measured else None,
            random_quality=random_round.quality,
            random_objects=random_round.object_count,
            auto_share=turned.auto_share if turned.HasField("auto_share") else tagged,
            auto_error=self._auto_error(),
            seconds=turned.label_to_model.ToTimedelta().total_seconds()
            if turned.HasField("label_to_model")
            else waited,
        )

    def _auto_error(self) -> float | None:
        """Returns the share of wrong ones among the predictions for the pool that need no human; None if there are none."""
        certain = self.world.items_now("NOT labelled AND split = TRAIN AND uncertain = false")
        task = self.world.task_type
        wrong = [not task.is_right(self.world.truth(item.name), task.predicted(item.prediction)) for item in certain]
        return sum(wrong) / len(wrong) if wrong else None

    def _in_words(self, number: int, figures: RoundFigures, turned: Round) -> str:
        task = self.world.task_type
        interval = "" if figures.quality is None else f" ({figures.quality_low:.1%} to {figures.quality_high:.1%})"
        drawn = f" with {figures.objects} {task.unit}" if task.unit else ""
        random_drawn = f" with {figures.random_objects} {task.unit}" if task.unit else ""
        tagged = f"{percent(figures.auto_share, 0)} of the pool tagged alone"
        if figures.auto_error is not None:
            tagged += f", {percent(figures.auto_error)} of it wrong"
        return (
            f"  round {number}: {figures.labels} labels{drawn} → {task.metric} [bold]{percent(figures.quality)}[/bold]{interval}, "
            f"random labels{random_drawn}: {percent(figures.random_quality)}; {tagged}; "
            f"{'better model' if turned.verdict.passed else 'verdict'} {figures.seconds:.1f} s after the last label"
            + ("" if turned.verdict.passed else f"; champion stays: {turned.verdict.reason}")
        )


def when_measured(owner: Vesta, loop: str) -> Loop:
    """Returns the loop, after the measurement of random selection if that ends soon enough."""
    request = GetLoopRequest(name=loop)
    with suppress(TimeoutError):
        return wait_until(
            lambda: owner.loops.GetLoop(request),
            lambda found: not found.status.label_saving.pending,
            deadline=CURVE_PATIENCE,
        )
    return owner.loops.GetLoop(request)
