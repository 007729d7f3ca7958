"""Plays the experts: members of the project who label and review through the annotation API, with honest mistakes.

Review sees where two experts disagree. Two who err alike on one photograph agree, and their mistake slips through.
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
    """The statement that an image shows `concept`."""
    return Annotation(concept=concept, image_label=ImageLabel())


@dataclass
class Experts:
    """Annotators who err now and then, and a reviewer who does not.

    Attributes:
        truth: what each item shows, by its name; asked for as items turn up.
        mistake_share: the share of answers that are honestly wrong.
        lease_count: how many tasks each takes at a time.
        mistaken_items: the items to which somebody has given a wrong answer.
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
        """Answers and reviews all there is to do in the campaign just now; returns how many things were done."""
        done = sum(self._annotate(annotator, campaign) for annotator in self.annotators)
        return done + self._review(campaign)

    def caught(self, items: Iterable[Item]) -> tuple[int, int]:
        """Of the labelled items to which somebody gave a wrong answer: how many bear the right label, and how many there are."""
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
        if error.code == "NOT_FOUND":  # the loop has not opened its campaign yet
            return []
        raise


def hire(owner: Vesta, address: str, project: str, member_id: str, role: Role.ValueType) -> Vesta:
    """Makes a member with a key of their own, and answers their connection."""
    member = owner.members.CreateMember(
        CreateMemberRequest(
            parent=project, member_id=member_id, member=Member(display_name=member_id.title(), role=role)
        )
    )
    key = owner.api_keys.CreateApiKey(CreateApiKeyRequest(parent=project, api_key=ApiKey(member=member.name)))
    return Vesta(address, key.secret)
