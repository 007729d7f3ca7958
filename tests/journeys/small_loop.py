"""A small world for tests that cross services: a few hundred scanned digits, a loop, and experts who never give up."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import world
from experts import Experts
from photographs import Photographs, read_folder, write_digits
from vesta import ApiError, Vesta
from vesta_common.ids import new_id
from vesta_contracts.common.v1 import Annotation
from vesta_contracts.conductor.v1 import GetLoopRequest, LoopPolicy, LoopStatus, Round
from vesta_contracts.datasets.v1 import Item, ListItemsRequest
from vesta_local.testing import WholePlatform

T = TypeVar("T")

CLASSES = ("0", "1", "2", "3")
TRANSIENT = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED", "INTERNAL", "UNKNOWN", "CANCELLED"}


def patiently(call: Callable[[], T], seconds: float = 60) -> T:
    """The call's answer, through whatever is being killed meanwhile."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except ApiError as error:
            if error.code not in TRANSIENT or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@dataclass
class SmallLoop:
    """A project with a loop that is about to turn.

    Attributes:
        truth: the true annotations of each item, by name.
        unused: pictures of the same kind that are not in the dataset.
    """

    owner: Vesta
    project: str
    dataset: str
    loop: str
    experts: Experts
    truth: Callable[[str], tuple[Annotation, ...]]
    unused: list[Path]

    def status(self) -> LoopStatus:
        """How the loop is."""
        return patiently(lambda: self.owner.loops.GetLoop(GetLoopRequest(name=self.loop))).status

    def ended_rounds(self) -> list[Round]:
        """The rounds that have come to their end; one more may be under way."""
        return [one for one in self.status().rounds if one.HasField("end_time")]

    def items(self, filter_text: str = "") -> list[Item]:
        """The dataset's items."""
        return patiently(
            lambda: list(
                self.owner.pages(self.owner.items.ListItems, ListItemsRequest(parent=self.dataset, filter=filter_text))
            )
        )

    def turn_until(
        self,
        done: Callable[[LoopStatus], bool],
        seconds: float,
        may_answer: Callable[[LoopStatus], bool] = lambda _: True,
    ) -> LoopStatus:
        """Lets the experts work, while they may, until `done` holds.

        Raises:
            AssertionError: it does not in time; tells how the loop stands.
        """
        deadline = time.monotonic() + seconds
        while True:
            status = self.status()
            if done(status):
                return status
            assert time.monotonic() < deadline, f"{LoopStatus.Phase.Name(status.phase)}: {status.message}"
            worked = 0
            if status.campaign and status.phase == LoopStatus.LABELLING and may_answer(status):
                try:
                    worked = self.experts.work(status.campaign)
                except ApiError as error:
                    # A lease or an answer may have been lost with what was killed; the next lease brings the task back.
                    if error.code not in TRANSIENT | {"FAILED_PRECONDITION", "ALREADY_EXISTS"}:
                        raise
            if not worked:
                time.sleep(0.2)


def set_up(platform: WholePlatform, samples: Path, *, images_per_class: int, budget: int, batch: int) -> SmallLoop:
    """Imports digits, labels the test side, hires experts, starts a loop."""
    address, inbox = platform.home.addresses("gateway_grpc"), platform.home.inbox
    owner = Vesta(address, platform.owner_key)
    return set_up_at(owner, address, inbox, samples, images_per_class=images_per_class, budget=budget, batch=batch)


def set_up_at(
    owner: Vesta, address: str, inbox: Path | None, samples: Path, *, images_per_class: int, budget: int, batch: int
) -> SmallLoop:
    """Likewise, at a gateway's address; without an inbox the digits are uploaded."""
    digits, unused = _some_digits(samples, images_per_class)
    policy = LoopPolicy(label_budget=budget, batch_size=batch)
    return _start(owner, address, inbox, digits, policy, unused, makes_mistakes=False)


def set_up_drawn(platform: WholePlatform, scenes: Photographs, *, rounds: int, batch: int) -> SmallLoop:
    """Imports images with boxes or masks, for two annotators per task who make mistakes."""
    address = platform.home.addresses("gateway_grpc")
    policy = LoopPolicy(label_budget=2 * rounds * batch, batch_size=batch, annotators_per_task=2)
    owner = Vesta(address, platform.owner_key)
    return _start(owner, address, platform.home.inbox, scenes, policy, [], makes_mistakes=True)


def _start(
    owner: Vesta,
    address: str,
    inbox: Path | None,
    photographs: Photographs,
    policy: LoopPolicy,
    unused: list[Path],
    *,
    makes_mistakes: bool,
) -> SmallLoop:
    made = world.set_up(owner, inbox, photographs, f"t{new_id()}", test_share=0.25, quick=True)
    experts = made.hire_experts(address, ("ada", "ben"), seed=3, makes_mistakes=makes_mistakes)
    policy.MergeFrom(
        LoopPolicy(
            retrain_after=policy.batch_size,
            test_labels=10,
            control_share=0.2,
            score_certain=0.8,  # so few test labels show no error rate
            margin_certain=0.2,
        )
    )
    loop = made.start_loop(policy)
    return SmallLoop(owner, made.project, made.dataset.name, loop, experts, made.truth, unused)


def _some_digits(samples: Path, images_per_class: int) -> tuple[Photographs, list[Path]]:
    """The first digits of each class, and the paths of the others."""
    pool = read_folder(write_digits(samples / "digits")).pool
    of_class = [[one for one in pool if one.label == name] for name in CLASSES]
    chosen = [photograph for some in of_class for photograph in some[:images_per_class]]
    unused = [photograph.path for some in of_class for photograph in some[images_per_class:]]
    return Photographs("digits", chosen, []), unused
