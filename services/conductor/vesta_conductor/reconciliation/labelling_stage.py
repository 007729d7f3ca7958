"""The first half of a round: creates tasks for annotators, and decides when there are enough answers to train on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vesta_contracts.annotation.v1 import BatchCreateTasksRequest, Task
from vesta_contracts.conductor.v1 import LoopStatus
from vesta_contracts.datasets.v1 import SelectedItem, SelectItemsRequest, Split

from vesta_conductor.reconciliation.names import version_in_words
from vesta_conductor.reconciliation.state import Command, RoundOutcome, RoundRecord, Situation, Step
from vesta_conductor.reconciliation.training_stage import take_snapshot

TEST_SHARE_FIRST, TEST_SHARE_LATER = 2, 4  # at most one of so many tasks of a batch is of the test split
EXCLUDED_MAX = 100_000  # the most items that one selection can exclude


@dataclass(frozen=True)
class LabellingProgress:
    """The labelling progress of the current round.

    Attributes:
        new_labels: labels in the training split since the last training.
        undecided_train: undecided tasks for items of the training split.
        missing_test: labels that the test split needs before the first training, or later, to show the error rate of accepted predictions.
        missing_test_to_ask: those of `missing_test` that have no task yet. Before items of the test split are drawn, accepted tasks whose
            items are not labelled are not known, and not subtracted.
        pool: items of the training split that can still become tasks.
    """

    new_labels: int
    undecided_train: int
    missing_test: int
    missing_test_to_ask: int
    pool: int

    @classmethod
    def of(cls, situation: Situation) -> "LabellingProgress":
        assert situation.observed.dataset is not None
        counts = situation.observed.dataset.counts
        unlabelled_test = counts.test_item_count - counts.test_labelled_count
        undecided_test = sum(_is_of_test_split(task) for task in situation.observed.undecided)
        undecided_train = len(situation.observed.undecided) - undecided_test
        wanted = situation.policy.test_labels_later if situation.observed.champion else situation.policy.test_labels
        missing = max(0, min(wanted - counts.test_labelled_count, unlabelled_test))
        drawn = situation.observed.test_selection
        asked_test = undecided_test if drawn is None else max(0, unlabelled_test - drawn.pool_count)
        missing_to_ask = max(0, missing - asked_test)
        return cls(
            new_labels=max(0, counts.train_labelled_count - situation.history.learnt_label_count),
            undecided_train=undecided_train,
            missing_test=missing,
            missing_test_to_ask=missing_to_ask if drawn is None else min(missing_to_ask, len(drawn.items)),
            pool=max(0, counts.pool_count - undecided_train),
        )


def stay_blocked(situation: Situation) -> Step | None:
    """After a failed round, waits for new labels or a changed policy."""
    last = situation.history.last
    if last is None or last.outcome is not RoundOutcome.FAILED or situation.observed.dataset is None:
        return None
    labels_came = situation.observed.dataset.counts.train_labelled_count > last.round.label_count
    if labels_came or situation.policy_revision > last.policy_revision:
        return None
    return Step(
        LoopStatus.BLOCKED,
        f"Round {last.number} failed: {last.round.verdict.reason} The next round starts with "
        "new labels, a changed policy, or when the Loop is paused and resumed.",
    )


def label(situation: Situation) -> Step:
    """Starts a training if there are enough new labels; otherwise creates tasks, waits, or ends."""
    progress = LabellingProgress.of(situation)
    ask = _ask(situation, progress)
    if ask is not None and ask.question is not None:
        return ask
    reason = _train_reason(situation, progress, can_ask=ask is not None)
    if reason:
        return take_snapshot(situation, reason)
    if ask is not None:
        return ask
    if situation.observed.unsettled:
        return Step(LoopStatus.LABELLING, "Waits until the dataset has the last accepted annotations.")
    if situation.observed.undecided:
        return Step(LoopStatus.LABELLING, _waiting(situation, progress))
    return Step(LoopStatus.EXHAUSTED, _exhausted(situation))


def _train_reason(situation: Situation, progress: LabellingProgress, *, can_ask: bool) -> str:
    """Returns the reason to start a training; empty if none is due."""
    if not progress.new_labels:
        return ""
    over = not (can_ask or situation.observed.undecided or situation.observed.unsettled)
    test_waits = progress.missing_test > 0 and not situation.observed.champion
    since = f"since {_since(last)}" if (last := situation.history.last) else "so far"
    labels = f"{progress.new_labels} new {_plural(progress.new_labels, 'label')} {since}"
    if progress.new_labels >= situation.policy.retrain_after and not test_waits:
        return f"{labels}; a training starts at {situation.policy.retrain_after}."
    if over:
        return f"{labels}, and no more are expected."
    return ""


def _ask(situation: Situation, progress: LabellingProgress) -> Step | None:
    """Returns the next tasks to create, or the selection to request; None if no tasks are needed.

    A batch is refilled when half of it is decided, so that annotators do not wait and the selection is recent.
    """
    if len(situation.observed.undecided) > situation.policy.batch_size // 2 or situation.observed.unsettled:
        return None
    room = min(situation.policy.batch_size - len(situation.observed.undecided), situation.affordable_tasks)
    train_needed = min(situation.policy.retrain_after - progress.new_labels - progress.undecided_train, progress.pool)
    if situation.observed.selection is not None and not situation.observed.selection.items:
        train_needed = 0  # the remaining items are duplicates of labelled ones
    test_room = room // (TEST_SHARE_LATER if _is_measurable(situation) else TEST_SHARE_FIRST)
    train = max(0, min(train_needed, room - min(progress.missing_test_to_ask, test_room)))
    test = min(progress.missing_test_to_ask, room - train)
    if _is_measurable(situation):
        test = min(test, test_room if train else 0)  # more test labels alone start no training
    if train + test <= 0:
        return None
    if test and situation.observed.test_selection is None:
        question = _question(situation, min(progress.missing_test_to_ask, room), split=Split.SPLIT_TEST)
        return Step(LoopStatus.SELECTING, f"Draws {question.count} items of the test split.", question=question)
    if train and situation.observed.selection is None:
        question = _question(
            situation, train, strategy=situation.policy.strategy, control_share=situation.policy.control_share
        )
        return Step(LoopStatus.SELECTING, f"Selects {train} of {progress.pool} items.", question=question)
    chosen = list(situation.observed.selection.items)[:train] if situation.observed.selection is not None else []
    return _batch(situation, _selected_tasks(chosen) + _test_tasks(situation, test), progress)


def _is_measurable(situation: Situation) -> bool:
    """Whether a model is deployed and the test split has the labels to measure it: more only show smaller error rates."""
    dataset = situation.observed.dataset
    assert dataset is not None
    return bool(situation.observed.champion) and dataset.counts.test_labelled_count >= situation.policy.test_labels


def _question(situation: Situation, count: int, **fields: Any) -> SelectItemsRequest:
    return SelectItemsRequest(
        parent=situation.policy.dataset,
        count=count,
        excluded=sorted(_asked_items(situation))[:EXCLUDED_MAX],
        seed=situation.observed.task_count,
        **fields,
    )


def _batch(situation: Situation, tasks: list[Task], progress: LabellingProgress) -> Step:
    assert situation.observed.campaign is not None
    opened = (
        situation.observed.campaign.create_time.ToMilliseconds()
    )  # a campaign that is created again counts its tasks from 0
    request_id = situation.request_id("ask", opened, situation.observed.task_count)
    request = BatchCreateTasksRequest(parent=situation.names.campaign, tasks=tasks, request_id=request_id)
    control = sum(task.control for task in tasks)
    test = sum(task.selection_reason == _TEST_REASON for task in tasks)
    kinds = [f"{len(tasks) - test - control} selected"] if len(tasks) > test + control else []
    kinds += [f"{control} at random for the control arm"] if control else []
    kinds += [f"{test} of the test split"] if test else []
    missing = max(0, situation.policy.retrain_after - progress.new_labels - progress.undecided_train)
    more = f" A training starts after {missing} more {_plural(missing, 'label')}." if missing else ""
    reason = f"{len(tasks)} {_plural(len(tasks), 'task')}: {', '.join(kinds)}.{more}"
    command = Command(request_id, "ask", reason, situation.names.campaign, request)
    return Step(LoopStatus.SELECTING, f"Creates tasks for {len(tasks)} items.", command)


def _selected_tasks(items: Sequence[SelectedItem]) -> list[Task]:
    """Returns tasks in the order of the selection, which distributes the control arm evenly: a shortened batch keeps its share."""
    return [
        Task(
            item=item.item,
            priority=1 - index / len(items),
            pre_annotations=item.pre_annotations,
            model_version=item.model_version,
            prediction_certain=item.prediction_certain,
            control=item.control,
            selection_reason=item.reason,
        )
        for index, item in enumerate(items)
    ]


_TEST_REASON = "Drawn at random from the test split, to measure models."


def _test_tasks(situation: Situation, count: int) -> list[Task]:
    """Returns tasks without pre-annotations: the labels that models are measured by must not depend on a model."""
    drawn = situation.observed.test_selection.items[:count] if situation.observed.test_selection is not None else []
    return [
        Task(item=chosen.item, priority=1 - index / len(drawn), selection_reason=_TEST_REASON)
        for index, chosen in enumerate(drawn)
    ]


def _is_of_test_split(task: Task) -> bool:
    """Whether the item of a task is in the test split. All tasks of this split are blind, and so are those of the control arm."""
    return task.blind and not task.control


def _asked_items(situation: Situation) -> set[str]:
    return {task.item for task in (*situation.observed.undecided, *situation.observed.accepted)}


def _waiting(situation: Situation, progress: LabellingProgress) -> str:
    count = len(situation.observed.undecided)
    test = (
        f" and {progress.missing_test} labels of the test split"
        if progress.missing_test and not situation.observed.champion
        else ""
    )
    return (
        f"Waits for annotators: {count} {_plural(count, 'task')} undecided; "
        f"{progress.new_labels} of {situation.policy.retrain_after} new labels{test} until the next "
        "training."
    )


def _exhausted(situation: Situation) -> str:
    if situation.affordable_tasks:
        return "No item is left to label. New items resume the Loop."
    return f"The budget of {situation.policy.label_budget} answers is spent. A larger budget resumes the Loop."


def _since(last: RoundRecord) -> str:
    version = last.round.model_version
    return version_in_words(version) if version else f"round {last.number}"


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"
