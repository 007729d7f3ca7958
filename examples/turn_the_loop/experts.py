"""Simulated annotators and a reviewer: members of the project who use the annotation API and make mistakes.

The reviewer sees tasks on which two annotators disagree. If both make the same mistake, it is not detected.
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from photographs import Photograph
from task_types import DemoTask
from vesta import ApiError, Vesta
from vesta_contracts.annotation.v1 import (
    CreateReviewRequest,
    CreateSubmissionRequest,
    LeasePurpose,
    LeaseTasksRequest,
    Submission,
    Task,
)
from vesta_contracts.datasets.v1 import Item
from vesta_contracts.gateway.v1 import ApiKey, CreateApiKeyRequest, CreateMemberRequest, Member, Role

LEASE_COUNT = 20


@dataclass
class Experts:
    """Annotators who sometimes make mistakes, and a reviewer who does not.

    Attributes:
        photographs: the image of each item, by its name.
        labels: the concepts.
        task_type: what they annotate.
        makes_mistakes: False if all answers are right.
        lease_count: the number of tasks that each leases at a time.
        mistake_count: wrong labels, or objects that are missing, superfluous or wrong.
        mistaken_items: the items with a wrong answer.
    """

    annotators: list[Vesta]
    reviewer: Vesta
    photographs: Mapping[str, Photograph]
    labels: list[str]
    task_type: DemoTask
    makes_mistakes: bool
    draw: random.Random
    lease_count: int = LEASE_COUNT
    answer_count: int = 0
    mistake_count: int = 0
    correction_count: int = 0
    mistaken_items: set[str] = field(default_factory=set)

    def work(self, campaign: str) -> int:
        """Answers and reviews all available tasks of the campaign; returns the number of actions."""
        done = sum(self._annotate(annotator, campaign) for annotator in self.annotators)
        return done + self._review(campaign)

    def caught(self, items: Iterable[Item]) -> tuple[int, int]:
        """Returns, for the labelled items with a wrong answer, how many are labelled right, and how many there are."""
        mistaken = [item for item in items if item.name in self.mistaken_items and item.accepted.task]
        right = [
            item
            for item in mistaken
            if self.task_type.is_right(self.photographs[item.name].annotations, item.accepted.annotations)
        ]
        return len(right), len(mistaken)

    def _annotate(self, annotator: Vesta, campaign: str) -> int:
        tasks = _lease(annotator, campaign, LeasePurpose.LEASE_PURPOSE_ANNOTATE, self.lease_count)
        for task in tasks:
            photograph = self.photographs[task.item]
            submission = Submission(annotations=photograph.annotations)
            self.answer_count += 1
            if self.makes_mistakes:
                answer = self.task_type.answer(photograph, self.labels, self.draw)
                submission = Submission(annotations=answer.annotations)
                self.mistake_count += answer.mistake_count
                if answer.mistake_count:
                    self.mistaken_items.add(task.item)
            annotator.submissions.CreateSubmission(CreateSubmissionRequest(parent=task.name, submission=submission))
        return len(tasks)

    def _review(self, campaign: str) -> int:
        tasks = _lease(self.reviewer, campaign, LeasePurpose.LEASE_PURPOSE_REVIEW, self.lease_count)
        for task in tasks:
            review = self.task_type.review(task, self.photographs[task.item].annotations)
            self.reviewer.reviews.CreateReview(CreateReviewRequest(parent=task.name, review=review))
            self.correction_count += 1
        return len(tasks)


def _lease(expert: Vesta, campaign: str, purpose: LeasePurpose.ValueType, count: int) -> list[Task]:
    try:
        return list(expert.tasks.LeaseTasks(LeaseTasksRequest(parent=campaign, purpose=purpose, count=count)).tasks)
    except ApiError as error:
        if error.code == "NOT_FOUND":  # the loop has not created its campaign yet
            return []
        raise


def hire(owner: Vesta, address: str, project: str, member_id: str, role: Role.ValueType) -> Vesta:
    """Creates a member with an API key, and returns its client."""
    member = owner.members.CreateMember(
        CreateMemberRequest(
            parent=project, member_id=member_id, member=Member(display_name=member_id.title(), role=role)
        )
    )
    key = owner.api_keys.CreateApiKey(CreateApiKeyRequest(parent=project, api_key=ApiKey(member=member.name)))
    return Vesta(address, key.secret)
