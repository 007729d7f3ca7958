"""Setup of a loop: a project, its unlabelled photographs, a labelled test split, annotators, and the loop."""

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from experts import Experts, hire
from photographs import Photograph, Photographs
from quick_recipes import create_quick_recipe
from task_types import TASK_TYPES, DemoTask
from vesta import ApiError, Vesta
from vesta_contracts.common.v1 import Annotation
from vesta_contracts.conductor.v1 import CreateLoopRequest, CreateProjectRequest, Loop, LoopPolicy, Project
from vesta_contracts.connection.v1 import CreateSourceRequest, FolderSource, Source, Sync, UploadSource
from vesta_contracts.datasets.v1 import (
    BatchAnnotateItemsRequest,
    Concept,
    CreateDatasetRequest,
    CreateTaxonomyRequest,
    Dataset,
    GetItemRequest,
    Item,
    ItemAnnotations,
    ListItemsRequest,
    Split,
    SplitPolicy,
    Taxonomy,
)
from vesta_contracts.gateway.v1 import Role

TEST_SHARE = 0.2
ANNOTATE_BATCH = 500
UPLOADS_AT_ONCE = 8

Watch = Callable[[str, int], AbstractContextManager[Callable[[Sync], None]]]
"""A callback with the split that is imported and its number of files. Returns a callback for each progress of the
Sync.
"""


@dataclass(frozen=True)
class World:
    """A project with imported photographs, whose labels only the simulated annotators know.

    Attributes:
        photographs: the photograph of each item, by its name.
        labels: the classes, in order.
        task_type: what the photographs are annotated with.
        recipe: the name of the recipe that the loop and the random arm train with.
    """

    owner: Vesta
    project: str
    dataset: Dataset
    items: list[Item]
    photographs: dict[str, Photograph]
    labels: list[str]
    task_type: DemoTask
    recipe: str

    def truth(self, item: str) -> tuple[Annotation, ...]:
        """Returns the true annotations of an item."""
        return self.photographs[item].annotations

    def items_now(self, filter_text: str) -> list[Item]:
        """Returns the items that match a filter with their annotations, of which lists contain only a reference if they are large."""
        request = ListItemsRequest(parent=self.dataset.name, filter=filter_text)
        return [
            self.owner.items.GetItem(GetItemRequest(name=item.name))
            if item.accepted.HasField("stored") or item.prediction.HasField("stored")
            else item
            for item in self.owner.pages(self.owner.items.ListItems, request)
        ]

    def hire_experts(self, address: str, annotators: tuple[str, ...], seed: int, *, makes_mistakes: bool) -> Experts:
        """Creates members who annotate and one who reviews; `address` is that of the gateway."""
        return Experts(
            annotators=[hire(self.owner, address, self.project, name, Role.ROLE_ANNOTATOR) for name in annotators],
            reviewer=hire(self.owner, address, self.project, "rosa", Role.ROLE_REVIEWER),
            photographs=self.photographs,
            labels=self.labels,
            task_type=self.task_type,
            makes_mistakes=makes_mistakes,
            draw=random.Random(seed),
        )

    def start_loop(self, policy: LoopPolicy) -> str:
        """Creates a loop over the dataset, and returns its name. Fields that the policy does not set have their
        defaults.
        """
        policy.dataset = self.dataset.name
        policy.recipe = self.recipe
        request = CreateLoopRequest(parent=self.project, loop_id="photographs", loop=Loop(policy=policy))
        return self.owner.loops.CreateLoop(request).name


@contextmanager
def unwatched(side: str, count: int) -> Iterator[Callable[[Sync], None]]:  # noqa: ARG001 - a Watch's signature
    """Reports nothing."""
    yield lambda _: None


def set_up(
    owner: Vesta,
    inbox: Path | None,
    photographs: Photographs,
    project_id: str,
    *,
    test_share: float = TEST_SHARE,
    watch: Watch = unwatched,
    quick: bool = False,
) -> World:
    """Creates the project, imports the photographs, and labels the test split.

    Args:
        inbox: the folder whose sub-folders Sources can read; None to upload the photographs.
        test_share: the share of the test split, if the photographs have none.
        quick: trains with a recipe for a demo of some minutes instead of the default one.

    Raises:
        ValueError: an import failed.
    """
    display_name = photographs.name
    project = owner.projects.CreateProject(
        CreateProjectRequest(project_id=project_id, project=Project(display_name=display_name))
    ).name
    taxonomy = owner.taxonomies.CreateTaxonomy(
        CreateTaxonomyRequest(
            parent=project,
            taxonomy_id="concepts",
            taxonomy=Taxonomy(concepts=[Concept(id=name, display_name=name) for name in photographs.labels]),
        )
    )
    split_policy = SplitPolicy(test_share=0.0 if photographs.test else test_share)
    dataset = owner.datasets.CreateDataset(
        CreateDatasetRequest(
            parent=project,
            dataset_id="photographs",
            dataset=Dataset(
                display_name=display_name,
                taxonomy=taxonomy.name,
                split_policy=split_policy,
                task_type=photographs.task_type,
            ),
        )
    )
    if inbox:
        by_file_name = _import(owner, inbox / project_id, project, dataset.name, photographs, watch, _sync)
    else:
        with tempfile.TemporaryDirectory() as folder:
            by_file_name = _import(owner, Path(folder), project, dataset.name, photographs, watch, _upload)
    items = list(owner.pages(owner.items.ListItems, ListItemsRequest(parent=dataset.name)))
    of_item = {item.name: by_file_name[Path(item.media.provenance.file_name).name] for item in items}
    task = TASK_TYPES[photographs.task_type]
    recipe = create_quick_recipe(owner, f"{project}/recipes/{task.recipe}", task.quick_changes if quick else {})
    world = World(owner, project, dataset, items, of_item, photographs.labels, task, recipe)
    _label_test_side(world)
    return world


_Bring = Callable[[Vesta, Source, str, Path, Callable[[Sync], None]], None]
"""Imports the files of a folder through a new Source of a project, named after the folder, and reports progress."""


def _import(
    owner: Vesta, inbox: Path, project: str, dataset: str, photographs: Photographs, watch: Watch, bring: _Bring
) -> dict[str, Photograph]:
    """Imports the photographs, one Source per split, under names that do not reveal their class. Returns them by
    these names.
    """
    staged: dict[str, Photograph] = {}
    pool_split = Split.SPLIT_TRAIN if photographs.test else Split.SPLIT_UNSPECIFIED
    for side, split, chosen in (
        ("pool", pool_split, photographs.pool),
        ("test", Split.SPLIT_TEST, photographs.test),
    ):
        if not chosen:
            continue
        folder = inbox / side
        staged |= _stage(folder, side, chosen)
        with watch(side, len(chosen)) as on_progress:
            bring(owner, Source(dataset=dataset, split=split), project, folder, on_progress)
    return staged


def _sync(owner: Vesta, source: Source, project: str, folder: Path, on_progress: Callable[[Sync], None]) -> None:
    """Lets the platform read the folder."""
    source.folder.CopyFrom(FolderSource(path=str(folder)))
    created = owner.sources.CreateSource(CreateSourceRequest(parent=project, source_id=folder.name, source=source))
    ended = owner.sync(created.name, on_progress)
    if ended.state != Sync.SUCCEEDED:
        raise ValueError(f"the import of {folder} failed: {ended.error}")


def _upload(owner: Vesta, source: Source, project: str, folder: Path, on_progress: Callable[[Sync], None]) -> None:
    """Uploads the files through the API. Rejected files are counted as by a Sync."""
    source.upload.CopyFrom(UploadSource())
    created = owner.sources.CreateSource(CreateSourceRequest(parent=project, source_id=folder.name, source=source))

    def send(path: Path) -> Sync:
        try:
            existed = owner.upload(created.name, path).already_existed
        except ApiError as error:
            if error.code != "INVALID_ARGUMENT":
                raise
            return Sync(rejected_count=1)
        return Sync(duplicate_count=1) if existed else Sync(added_count=1)

    so_far = Sync()
    with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
        for one in pool.map(send, sorted(folder.iterdir())):
            so_far.added_count += one.added_count
            so_far.duplicate_count += one.duplicate_count
            so_far.rejected_count += one.rejected_count
            on_progress(so_far)


def _stage(folder: Path, side: str, chosen: list[Photograph]) -> dict[str, Photograph]:
    """Links the files into the inbox under numbers, so that names do not reveal the class."""
    folder.mkdir(parents=True)
    order = list(chosen)
    random.Random(1).shuffle(order)
    staged = {}
    for index, photograph in enumerate(order):
        name = f"{side}-{index:06d}{photograph.path.suffix.lower()}"
        try:
            os.link(photograph.path.resolve(), folder / name)
        except OSError:  # another file system, or a file of another user
            shutil.copyfile(photograph.path, folder / name)
        staged[name] = photograph
    return staged


def _label_test_side(world: World) -> None:
    items = [item for item in world.items if item.split == Split.SPLIT_TEST]
    for start in range(0, len(items), ANNOTATE_BATCH):
        batch = items[start : start + ANNOTATE_BATCH]
        world.owner.items.BatchAnnotateItems(
            BatchAnnotateItemsRequest(
                parent=world.dataset.name,
                items=[ItemAnnotations(item=item.name, annotations=world.truth(item.name)) for item in batch],
            )
        )
