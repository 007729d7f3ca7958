"""Fetches the rules that answers are validated against. Reads the datasets service each time: taxonomies change during annotation."""

from collections.abc import Sequence
from typing import NamedTuple

from vesta_common.errors import FailedPrecondition, NotFound
from vesta_common.media.annotations import Terms, check_annotations
from vesta_contracts.annotation.v1 import Campaign, Task
from vesta_contracts.common.v1 import Annotation, Media
from vesta_contracts.datasets.v1 import (
    Dataset,
    DatasetServiceStub,
    DatasetView,
    GetDatasetRequest,
    GetItemRequest,
    GetTaxonomyRequest,
    ItemServiceStub,
    Taxonomy,
    TaxonomyServiceStub,
)


class AnswerRules(NamedTuple):
    """The rules for answers to one task.

    Attributes:
        media: the image of the task's item.
        terms: of the campaign.
    """

    media: Media
    terms: Terms

    def check(self, annotations: Sequence[Annotation], field: str) -> None:
        """Checks an answer. Raises InvalidArgument; see `check_annotations`."""
        check_annotations(annotations, self.media, self.terms, field)


class RulesSource:
    """Reads validation rules from the datasets service. Must not be called inside a transaction."""

    def __init__(self, datasets: DatasetServiceStub, taxonomies: TaxonomyServiceStub, items: ItemServiceStub) -> None:
        self._datasets = datasets
        self._taxonomies = taxonomies
        self._items = items

    def of(self, task: Task, campaign: Campaign) -> AnswerRules:
        """Returns the current validation rules for answers to a task.

        Raises:
            FailedPrecondition: DATASET_DELETED.
        """
        _, taxonomy = self.describe(campaign)
        return AnswerRules(
            self._media(task), Terms(taxonomy, campaign.task_type, campaign.concepts, asked_by=campaign.name)
        )

    def describe(self, campaign: Campaign) -> tuple[Dataset, Taxonomy]:
        """Returns a campaign's dataset, without counts, and its taxonomy.

        Raises:
            FailedPrecondition: DATASET_DELETED.
        """
        try:
            return self.look_up(campaign.dataset)
        except NotFound as error:
            raise _gone(campaign.dataset) from error

    def look_up(self, name: str) -> tuple[Dataset, Taxonomy]:
        """Returns a dataset, without counts, and its taxonomy. Raises NotFound."""
        request = GetDatasetRequest(name=name, view=DatasetView.DATASET_VIEW_BASIC)
        dataset = self._datasets.GetDataset(request)
        return dataset, self._taxonomies.GetTaxonomy(GetTaxonomyRequest(name=dataset.taxonomy))

    def _media(self, task: Task) -> Media:
        """Returns the size and type of a task's image. Looks up the item for older tasks, which do not contain them."""
        if task.width_px and task.height_px:
            return Media(width_px=task.width_px, height_px=task.height_px, mime_type=task.mime_type)
        try:
            return self._items.GetItem(GetItemRequest(name=task.item)).media
        except NotFound as error:
            raise _gone(task.item) from error


def _gone(name: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"{name} was deleted, so that annotations for it cannot be accepted; cancel the task, or close the campaign",
        reason="DATASET_DELETED",
        metadata={"name": name},
    )
