"""Simulated annotators and a reviewer: members of the project who use the annotation API and make mistakes.

The reviewer sees tasks on which two annotators disagree. If both make the same mistake, it is not detected.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from vesta import ApiError, Vesta
from vesta_contracts.annotation.v1 import (
    CreateReviewRequest,
    CreateSubmissionRequest,
    LeasePurpose,
    LeaseTasksRequest,
    Review,
    Submission,
    Task,
)
from vesta_contracts.common.v1 import Annotation, ImageLabel
from vesta_contracts.datasets.v1 import Item
from vesta_contracts.gateway.v1 import ApiKey, CreateApiKeyRequest, CreateMemberRequest, Member, Role

LEASE_COUNT = 20


def label(concept: str) -> Annotation:
    """Returns the annotation that an image shows `concept`."""
    return Annotation(concept=concept, image_label=ImageLabel())


@dataclass
class Experts:
    """Annotators who sometimes make mistakes, and a reviewer who does not.

    Attributes:
        truth: returns the true class of an item by its name.
        mistake_share: the share of wrong answers.
        lease_count: the number of tasks that each leases at a time.
        mistaken_items: the items with a wrong answer.
    """

    annotators: list[Vesta]
    reviewer: Vesta
    truth: Callable[[str], str]
    labels: list[str]
    mistake_share: float
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
        """Returns, for the labelled items with a wrong answer, how many have the right label, and how many there are."""
        mistaken = [item for item in items if item.name in self.mistaken_items and item.accepted.task]
        right = [
            item for item in mistaken if [self.truth(item.name)] == [one.concept for one in item.accepted.annotations]
        ]
        return len(right), len(mistaken)

    def _annotate(self, annotator: Vesta, campaign: str) -> int:
        tasks = _lease(annotator, campaign, LeasePurpose.LEASE_PURPOSE_ANNOTATE, self.lease_count)
        for task in tasks:
            concept = self.truth(task.item)
            self.answer_count += 1
            if self.draw.random() < self.mistake_share:
                concept = self.draw.choice([other for other in self.labels if other != concept])
                self.mistake_count += 1
                self.mistaken_items.add(task.item)
            submission = Submission(annotations=[label(concept)])
            annotator.submissions.CreateSubmission(CreateSubmissionRequest(parent=task.name, submission=submission))
        return len(tasks)

    def _review(self, campaign: str) -> int:
        tasks = _lease(self.reviewer, campaign, LeasePurpose.LEASE_PURPOSE_REVIEW, self.lease_count)
        for task in tasks:
            review = Review(decision=Review.CORRECT, annotations=[label(self.truth(task.item))])
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
