"""The input and output types of reconciliation: plain values without access to other services.

A `Situation` is the whole input of `reconcile`, a `Step` is its whole output.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from google.protobuf.message import Message
from vesta_common.media.task_types import makes_predictions
from vesta_contracts.annotation.v1 import Campaign, Task
from vesta_contracts.conductor.v1 import LabelSaving, LoopStatus, Round
from vesta_contracts.datasets.v1 import Dataset, SelectItemsRequest, SelectItemsResponse, Snapshot, Split, Taxonomy
from vesta_contracts.serving.v1 import Deployment
from vesta_contracts.training.v1 import ModelVersion, TrainingRun

from vesta_conductor.reconciliation.control_arm import ControlAnswer
from vesta_conductor.reconciliation.names import LoopNames
from vesta_conductor.reconciliation.policy import Policy


class RoundOutcome(StrEnum):
    """The outcome of a round."""

    UNDER_WAY = "under_way"
    # The challenger was promoted.
    PROMOTED = "promoted"
    # The champion stays.
    KEPT = "kept"
    # The labels do not suffice for a training; the next round requests more.
    POSTPONED = "postponed"
    # A person must act: the next round waits until the labels or the policy change.
    FAILED = "failed"


@dataclass(frozen=True)
class RoundRecord:
    """A round, with fields that only the conductor needs.

    Attributes:
        round: the public part.
        label_time: when the last label of its training was accepted; None before the training.
        policy_revision: the revision of the policy when the round ended.
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
    """The earlier rounds and decisions of a Loop.

    Attributes:
        ended: the rounds that have ended, oldest first.
        current: the round in progress.
        decided: the time of each command of the current round, by request_id.
        label_saving: the last estimate; None if there is none.
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
        """The number of labels in the training split at the last training, or when they were found to be too few."""
        counts = [record.round.label_count for record in self.ended if record.outcome is not RoundOutcome.FAILED]
        return counts[-1] if counts else 0


@dataclass(frozen=True)
class ObservedState:
    """The actual state: the Loop's resources as the other services report them. None means that the resource does not exist.

    Attributes:
        undecided: tasks of the campaign that are open or in review, without their annotations. This and the other fields for labelling are
            read only until the round's training begins.
        accepted: recently accepted tasks, likewise, with all whose item may not be labelled in the dataset yet.
        control: compared answers of the control arm, of this round and the twenty before; read only while a classifier is serving.
        unsettled: whether the dataset does not contain a recently accepted answer yet.
        stable: the version that the deployment serves.
        embedding_runs: attempts at an embedding model; read only while there is no deployment.
        snapshot: of the current round.
        runs: attempts at the current round's training.
        measured_run: the run that measures the pending `History.label_saving`; read only while it is pending.
        selection: the response to `Step.question` about the train split.
        test_selection: the response to `Step.question` about the test split.
    """

    dataset: Dataset | None = None
    taxonomy: Taxonomy | None = None
    campaign: Campaign | None = None
    undecided: tuple[Task, ...] = ()
    accepted: tuple[Task, ...] = ()
    control: tuple[ControlAnswer, ...] = ()
    unsettled: bool = False
    deployment: Deployment | None = None
    stable: ModelVersion | None = None
    embedding_runs: tuple[TrainingRun, ...] = ()
    snapshot: Snapshot | None = None
    runs: tuple[TrainingRun, ...] = ()
    measured_run: TrainingRun | None = None
    selection: SelectItemsResponse | None = None
    test_selection: SelectItemsResponse | None = None

    def with_answer(self, question: SelectItemsRequest, response: SelectItemsResponse) -> "ObservedState":
        """Returns the state with the response to a question."""
        if question.split == Split.SPLIT_TEST:
            return replace(self, test_selection=response)
        return replace(self, selection=response)

    @property
    def champion(self) -> str:
        """The name of the classifier that is serving; empty if there is none."""
        return self.stable.name if self.stable and makes_predictions(self.stable) else ""

    @property
    def task_count(self) -> int:
        """The number of tasks ever created in the campaign. It never decreases, so that it can number requests."""
        if self.campaign is None:
            return 0
        counts = self.campaign.counts
        return counts.open_count + counts.in_review_count + counts.accepted_count + counts.cancelled_count


@dataclass(frozen=True)
class Situation:
    """The input of reconciliation for one Loop.

    Attributes:
        uid: distinguishes the Loop from an earlier one of the same name; the prefix of every request_id.
        policy_revision: counts the changes of the policy and of `paused`.
    """

    names: LoopNames
    uid: str
    policy: Policy
    observed: ObservedState
    history: History
    now: datetime
    paused: bool = False
    policy_revision: int = 1

    def request_id(self, *parts: str | int) -> str:
        """Returns a deterministic request_id."""
        return "-".join((self.uid, *map(str, parts)))

    def fresh_id(self, *parts: str | int) -> str:
        """Returns the request_id for creating a resource that does not exist. It changes each time the resource was created in this round:
        the service returns the first result for a repeated request_id, even if that resource has been deleted."""
        first = self.request_id(*parts)
        issued_count = sum(key == first or key.startswith(f"{first}-again") for key in self.history.decided)
        return f"{first}-again{issued_count}" if issued_count else first

    @property
    def labels_spent(self) -> int:
        """The number of answers requested: one set per task that was not cancelled, plus one per rejection."""
        if self.observed.campaign is None:
            return 0
        counts = self.observed.campaign.counts
        task_count = counts.open_count + counts.in_review_count + counts.accepted_count + counts.rejection_count
        return task_count * self.annotators_per_task

    @property
    def annotators_per_task(self) -> int:
        """Annotators per task: the campaign's value, which cannot change, or the policy's while there is no campaign."""
        return (
            self.observed.campaign.annotators_per_task if self.observed.campaign else 0
        ) or self.policy.annotators_per_task

    @property
    def affordable_tasks(self) -> int:
        """The number of tasks that the rest of the budget allows."""
        return max(0, self.policy.label_budget - self.labels_spent) // self.annotators_per_task


@dataclass(frozen=True)
class Command:
    """One action to execute once.

    Attributes:
        request_id: deterministic; the service returns the first result for a repeat.
        action: one or two words, such as `train`.
        reason: for people to read.
        resource: the name of the resource that the command creates or changes.
        request: the request to send; None if the command changes only the conductor's own record.
        outcome: of the round that the command ends; None if the round continues.
    """

    request_id: str
    action: str
    reason: str
    resource: str
    request: Message | None = None
    outcome: RoundOutcome | None = None


@dataclass(frozen=True)
class Step:
    """The result of one reconciliation: at most one command, after which the Loop is reconciled again.

    Attributes:
        message: describes the phase and what it waits for.
        question: a selection to request from the datasets service first; `reconcile` is then called again with the response, see
            `ObservedState.with_answer`.
        round: the current round to store; None leaves it unchanged.
        label_saving: of the champion that a promotion makes; None if there is no estimate. Other steps keep the last estimate.
    """

    phase: LoopStatus.Phase.ValueType
    message: str
    command: Command | None = None
    question: SelectItemsRequest | None = None
    round: RoundRecord | None = None
    label_saving: LabelSaving | None = None
