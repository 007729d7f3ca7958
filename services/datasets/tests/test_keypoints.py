"""Items of a keypoints dataset: the concepts of their objects label them, and archives contain their points."""

import pytest
from datasets_builders import PROJECT, Datasets, a_medium, refusal
from vesta_common.errors import InvalidArgument
from vesta_contracts.common.v1 import (
    Annotation,
    Keypoint,
    Keypoints,
    PixelBox,
    PixelPoint,
    TaskType,
    Visibility,
)
from vesta_contracts.datasets.v1 import (
    BatchAnnotateItemsRequest,
    Concept,
    CreateTaxonomyRequest,
    GetItemRequest,
    ItemAnnotations,
    Split,
    Taxonomy,
)


def a_dog(x: float, *, label: str = "nose") -> Annotation:
    points = [
        Keypoint(label=label, point=PixelPoint(x_px=x, y_px=2), visibility=Visibility.VISIBILITY_OCCLUDED),
        Keypoint(label="tail", visibility=Visibility.VISIBILITY_ABSENT),
    ]
    return Annotation(concept="dog", keypoints=Keypoints(points=points))


@pytest.fixture
def dataset(datasets: Datasets) -> str:
    taxonomy = Taxonomy(concepts=[Concept(id="dog", keypoints=["nose", "tail"]), Concept(id="cat")])
    datasets.taxonomies.CreateTaxonomy(CreateTaxonomyRequest(parent=PROJECT, taxonomy_id="animals", taxonomy=taxonomy))
    return datasets.a_dataset(taxonomy=f"{PROJECT}/taxonomies/animals", task_type=TaskType.TASK_TYPE_KEYPOINTS)


def annotate(datasets: Datasets, dataset: str, item: str, *annotations: Annotation) -> None:
    entry = ItemAnnotations(item=item, annotations=annotations)
    datasets.items.BatchAnnotateItems(BatchAnnotateItemsRequest(parent=dataset, items=[entry]))


def test_items_with_points_and_without_objects_are_labelled(datasets: Datasets, dataset: str) -> None:
    names = [one.name for one in datasets.add(dataset, *map(a_medium, range(3)), split=Split.SPLIT_TRAIN)]
    annotate(datasets, dataset, names[0], a_dog(1), a_dog(4))
    annotate(datasets, dataset, names[1])
    assert datasets.counts(dataset).labelled_count == 2
    assert datasets.listed(dataset, 'label = "dog"') == [names[0]]
    accepted = datasets.items.GetItem(GetItemRequest(name=names[0])).accepted
    assert list(accepted.annotations) == [a_dog(1), a_dog(4)]


def test_other_shapes_and_unknown_points_are_rejected(datasets: Datasets, dataset: str) -> None:
    (item,) = datasets.add(dataset, a_medium(0), split=Split.SPLIT_TRAIN)
    box = Annotation(concept="dog", box=PixelBox(x_max_px=5, y_max_px=5))
    refusal(InvalidArgument, lambda: annotate(datasets, dataset, item.name, box), "SHAPE_NOT_OF_TASK")
    refusal(InvalidArgument, lambda: annotate(datasets, dataset, item.name, a_dog(1, label="ear")), "KEYPOINT_UNKNOWN")
