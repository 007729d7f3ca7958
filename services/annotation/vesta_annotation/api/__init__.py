"""gRPC services, one file per service."""

from vesta_annotation.api.campaign_service import CampaignService
from vesta_annotation.api.review_service import ReviewService
from vesta_annotation.api.submission_service import SubmissionService
from vesta_annotation.api.task_service import TaskService

__all__ = ["CampaignService", "ReviewService", "SubmissionService", "TaskService"]
