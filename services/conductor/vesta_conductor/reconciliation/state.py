"""What the conductor decides on and what it decides: values, without a way to anybody.

A `Situation` is all that `reconcile` may know; a `Step` is all that it may say.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from google.protobuf.message import Message
from vesta_contracts.annotation.v1 import Campaign, Task
from vesta_contracts.conductor.v1 import LabelSaving, LoopStatus, Round
from vesta_contracts.datasets.v1 import Dataset, SelectItemsRequest, SelectItemsResponse, Snapshot, Taxonomy
from vesta_contracts.serving.v1 import Deployment
from vesta_contracts.training.v1 import ModelVersion, TrainingRun

from vesta_conductor.reconciliation.names import LoopNames
from vesta_conductor.reconciliation.policy import Policy


class RoundOutcome(StrEnum):
    """How a round ended."""

    UNDER_WAY = "under_way"
    # The challenger answers now.
    PROMOTED = "promoted"
    # The champion stays.
    KEPT = "kept"
    # The labels cannot be learnt from yet; more are asked for.
    POSTPONED = "postponed"
    # Something needs a person; the next round waits until labels or policy change.
    FAILED = "failed"


@dataclass(frozen=True)
class RoundRecord:
    """A round with what only the conductor needs to remember of it.

    Attributes:
        round: as people see it.
        label_time: when the last label came that its training learnt from; None before that.
        policy_revision: of the policy by which it ended.
    """

    round: Round
    outcome: RoundOutcome = RoundOutcome.UNDER_WAY
    label_time: datetime | None = None
    policy_revision: int = 0

    @property
    def number(self) -> int:
        return self.round.number


@dataclass(frozen=True)
class History:
    """What this Loop did before.

    Attributes:
        ended: the rounds that are over, oldest first.
        current: the one under way.
        decided: when each command of the current round was taken, by request_id.
        label_saving: the last estimate; None where there is none.
    """

    current: RoundRecord
    ended: tuple[RoundRecord, ...] = ()
    decided: Mapping[str, datetime] = field(default_factory=dict)
    label_saving: LabelSaving | None = None

    @property
    def last(self) -> RoundRecord | None:
        return self.ended[-1] if self.ended else None

    @property
    def learnt_label_count(self) -> int:
        """Labels on the training side when they were last learnt from, or found too few to."""
        counts = [record.round.label_count for record in self.ended if record.outcome is not RoundOutcome.FAILED]
        return counts[-1] if counts else 0


@dataclass(frozen=True)
class World:
    """What the peers say now. None is what they do not have.

    Attributes:
        undecided: tasks of the campaign that wait for experts or reviewers. This and what labelling needs besides is
            listed only until the round's training begins.
        accepted: tasks that were accepted lately, among them all whose item the dataset may not show as labelled yet.
        control: accepted tasks of the control arm, of this round and the twenty before; listed only while a classifier answers.
        unlabelled_test_items: names; listed only while fewer test items are labelled than the policy wants.
        unsettled: whether the dataset does not show an answer yet that was accepted just now.
        stable: the version that answers at the deployment.
        embedding_runs: attempts at an embedding model; listed only while there is no deployment.
        snapshot: of the current round.
        runs: attempts at the current round's training.
        selection: the answer to `Step.question`.
    """

    dataset: Dataset | None = None
    taxonomy: Taxonomy | None = None
    campaign: Campaign | None = None
    undecided: tuple[Task, ...] = ()
    accepted: tuple[Task, ...] = ()
    control: tuple[Task, ...] = ()
    unlabelled_test_items: tuple[str, ...] = ()
    unsettled: bool = False
    deployment: Deployment | None = None
    stable: ModelVersion | None = None
    embedding_runs: tuple[TrainingRun, ...] = ()
    snapshot: Snapshot | None = None
    runs: tuple[TrainingRun, ...] = ()
    selection: SelectItemsResponse | None = None

    @property
    def champion(self) -> str:
        """The classifier that answers; empty where none does."""
        return self.stable.name if self.stable and self.stable.task != "embedding" else ""

    @property
    def task_count(self) -> int:
        """Tasks ever made in the campaign: it only grows, so it numbers what is asked for."""
        if self.campaign is None:
            return 0
        counts = self.campaign.counts
        return counts.open_count + counts.in_review_count + counts.accepted_count + counts.cancelled_count


@dataclass(frozen=True)
class Situation:
    """One Loop as it stands.

    Attributes:
        uid: told apart from an earlier Loop of the same name; heads every request_id.
        policy_revision: counts the changes of policy and of `paused`.
    """

    names: LoopNames
    uid: str
    policy: Policy
    world: World
    history: History
    now: datetime
    paused: bool = False
    policy_revision: int = 1

    def request_id(self, *parts: str | int) -> str:
        """The same for the same thing, for ever."""
        return "-".join((self.uid, *map(str, parts)))

    def fresh_id(self, *parts: str | int) -> str:
        """The request_id of making a thing that is not there. Another one each time it was made in this round: whoever made it
        answers a repeat with the first one, also where somebody has deleted that."""
        first = self.request_id(*parts)
        made = sum(key == first or key.startswith(f"{first}-again") for key in self.history.decided)
        return f"{first}-again{made}" if made else first

    @property
    def labels_spent(self) -> int:
        """Answers asked of experts: of every task that was not withdrawn, and again of each that a reviewer sent back."""
        if self.world.campaign is None:
            return 0
        counts = self.world.campaign.counts
        asked = counts.open_count + counts.in_review_count + counts.accepted_count + counts.rejection_count
        return asked * self.replicas

    @property
    def replicas(self) -> int:
        """Experts asked per task: the campaign's, which cannot change, where there is one."""
        return (self.world.campaign.replicas if self.world.campaign else 0) or self.policy.replicas

    @property
    def affordable_tasks(self) -> int:
        """Tasks that the rest of the budget pays for."""
        return max(0, self.policy.label_budget - self.labels_spent) // self.replicas


@dataclass(frozen=True)
class Command:
    """One thing to do, once.

    Attributes:
        request_id: deterministic; the peer answers a repeat with what it did the first time.
        action: one word or two, such as `train`.
        reason: in words, for people.
        resource: what it makes or changes.
        request: what a peer is sent; None where only the conductor's own record changes.
        outcome: how it ends the round; None where the round goes on.
    """

    request_id: str
    action: str
    reason: str
    resource: str
    request: Message | None = None
    outcome: RoundOutcome | None = None


@dataclass(frozen=True)
class Step:
    """What one look at a Loop comes to: at most one command, after which one looks again.

    Attributes:
        message: the phase in words, with what is waited for.
        question: what must be asked of the datasets service before more can be said; `reconcile` is called again with the
            answer in `World.selection`.
        round: the current round as it is to be remembered; None leaves it.
        label_saving: of the champion that a promotion makes; None where there is no estimate. Other steps leave the last.
    """

    phase: LoopStatus.Phase.ValueType
    message: str
    command: Command | None = None
    question: SelectItemsRequest | None = None
    round: RoundRecord | None = None
    label_saving: LabelSaving | None = None
