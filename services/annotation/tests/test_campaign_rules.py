"""Validation of campaigns: only concepts of the dataset's taxonomy, several labels only where the dataset allows them."""

import pytest
from annotation_builders import CAMPAIGN, CONCEPTS, FakeDatasets, FakeTaxonomies, Service
from vesta_annotation.campaign_rules import asked_concepts
from vesta_annotation.task_types import TASK_TYPES
from vesta_common.errors import FailedPrecondition, InvalidArgument
from vesta_contracts.annotation.v1 import GetGuidelinesRequest, Task, UpdateCampaignRequest
from vesta_contracts.common.v1 import TaskType
from vesta_contracts.datasets.v1 import Concept, Taxonomy

TAXONOMY = Taxonomy(name="projects/acme/taxonomies/t", concepts=[Concept(id=name) for name in "abcdefgh"])


def test_a_campaign_without_concepts_uses_all_that_are_not_retired(annotation: Service) -> None:
    assert list(annotation.has_campaign().concepts) == [name for name in CONCEPTS if name != "tram"]


def test_explicit_concepts_are_kept_even_if_retired(annotation: Service) -> None:
    assert list(annotation.has_campaign(concepts=["tram", "van"]).concepts) == ["tram", "van"]


def test_a_concept_missing_in_the_taxonomy_is_rejected(annotation: Service) -> None:
    with pytest.raises(InvalidArgument, match="airship") as refused:
        annotation.has_campaign(concepts=["van", "airship"])
    assert refused.value.reason == "CONCEPT_UNKNOWN"


def test_a_campaign_cannot_be_updated_to_an_unknown_concept(annotation: Service) -> None:
    campaign = annotation.has_campaign(concepts=["van"])
    campaign.concepts.append("airship")
    with pytest.raises(InvalidArgument) as refused:
        annotation.campaigns.UpdateCampaign(
            UpdateCampaignRequest(campaign=campaign, update_mask={"paths": ["concepts"]})
        )
    assert refused.value.reason == "CONCEPT_UNKNOWN"


def test_experts_read_the_instructions_and_the_concepts_as_in_the_taxonomy(
    annotation: Service, taxonomies: FakeTaxonomies, datasets: FakeDatasets
) -> None:
    annotation.has_campaign(concepts=["bus", "van"], instructions="Look at the *wheels*.")
    request = GetGuidelinesRequest(name=CAMPAIGN)
    taxonomies.gone.add("bus")
    found = annotation.campaigns.GetGuidelines(request)
    assert found.instructions == "Look at the *wheels*."
    assert [(one.id, one.description, list(one.keypoints)) for one in found.concepts] == [
        ("van", "What a van is.", ["door"])
    ]
    datasets.gone = True
    with pytest.raises(FailedPrecondition) as refused:
        annotation.campaigns.GetGuidelines(request)
    assert refused.value.reason == "DATASET_DELETED"


def test_the_error_names_some_of_many_unknown_concepts() -> None:
    with pytest.raises(InvalidArgument, match="u, v, w, x, y and more"):
        asked_concepts(["a", *"uvwxyz"], TAXONOMY)


def test_a_campaign_has_the_task_type_of_its_dataset(annotation: Service) -> None:
    assert annotation.has_campaign().task_type == TaskType.TASK_TYPE_CLASSIFICATION
    with pytest.raises(InvalidArgument) as refused:
        annotation.has_campaign(task_type=TaskType.TASK_TYPE_MULTI_LABEL)
    assert refused.value.reason == "TASK_TYPE_MISMATCH"


UNKNOWN = set(TaskType.values()) - TASK_TYPES.keys() - {TaskType.TASK_TYPE_UNSPECIFIED}


@pytest.mark.parametrize("task_type", sorted(UNKNOWN))
def test_a_task_type_without_a_module_is_rejected_with_those_that_have_one(
    annotation: Service, datasets: FakeDatasets, task_type: TaskType.ValueType
) -> None:
    datasets.task_type = task_type
    with pytest.raises(InvalidArgument, match="choose classification, multi-label") as refused:
        annotation.has_campaign()
    assert refused.value.reason == "TASK_TYPE_UNSUPPORTED"


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_every_task_type_with_a_module_has_campaigns(
    annotation: Service, datasets: FakeDatasets, task_type: TaskType.ValueType
) -> None:
    datasets.task_type = task_type
    task = annotation.has_task(annotators_per_task=2)
    for name in ("ada", "bob"):
        assert annotation.lease(name)
        annotation.submit(name, task)
    assert annotation.task(task).state == Task.ACCEPTED
