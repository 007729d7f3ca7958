"""A small world for tests that cross services: a few hundred scanned digits, a loop, and experts who never give up."""

import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from experts import Experts, hire, label
from photographs import Photograph, read_folder, write_digits
from vesta import ApiError, Vesta
from vesta_common.ids import new_id
from vesta_contracts.conductor.v1 import (
    CreateLoopRequest,
    CreateProjectRequest,
    GetLoopRequest,
    Loop,
    LoopPolicy,
    LoopStatus,
    Project,
    Round,
)
from vesta_contracts.connection.v1 import CreateSourceRequest, FolderSource, Source, Sync
from vesta_contracts.datasets.v1 import (
    BatchAnnotateItemsRequest,
    Concept,
    CreateDatasetRequest,
    CreateTaxonomyRequest,
    Dataset,
    Item,
    ItemAnnotations,
    ListItemsRequest,
    Split,
    SplitPolicy,
    Taxonomy,
)
from vesta_contracts.gateway.v1 import Role
from vesta_local.testing import WholePlatform

T = TypeVar("T")

CLASSES = ("0", "1", "2", "3")
TRANSIENT = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED", "INTERNAL", "UNKNOWN", "CANCELLED"}


def patiently(call: Callable[[], T], seconds: float = 60) -> T:
    """The call's answer, through whatever is being killed meanwhile."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except ApiError as error:
            if error.code not in TRANSIENT or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@dataclass
class SmallLoop:
    """A project with a loop that is about to turn.

    Attributes:
        truth: what each item shows, by name.
    """

    owner: Vesta
    project: str
    dataset: str
    loop: str
    experts: Experts
    truth: dict[str, str]

    def status(self) -> LoopStatus:
        """How the loop is."""
        return patiently(lambda: self.owner.loops.GetLoop(GetLoopRequest(name=self.loop))).status

    def ended_rounds(self) -> list[Round]:
        """The rounds that have come to their end; one more may be under way."""
        return [one for one in self.status().rounds if one.HasField("end_time")]

    def items(self, filter_text: str = "") -> list[Item]:
        """The dataset's items."""
        return patiently(
            lambda: list(
                self.owner.pages(self.owner.items.ListItems, ListItemsRequest(parent=self.dataset, filter=filter_text))
            )
        )

    def turn_until(self, done: Callable[[LoopStatus], bool], seconds: float) -> LoopStatus:
        """Lets the experts work until `done` holds.

        Raises:
            AssertionError: it does not in time; tells how the loop stands.
        """
        deadline = time.monotonic() + seconds
        while True:
            status = self.status()
            if done(status):
                return status
            assert time.monotonic() < deadline, f"{LoopStatus.Phase.Name(status.phase)}: {status.message}"
            worked = 0
            if status.campaign and status.phase == LoopStatus.LABELLING:
                try:
                    worked = self.experts.work(status.campaign)
                except ApiError as error:
                    # A lease or an answer may have been lost with what was killed; the next lease brings the task back.
                    if error.code not in TRANSIENT | {"FAILED_PRECONDITION", "ALREADY_EXISTS"}:
                        raise
            if not worked:
                time.sleep(0.2)


def set_up(platform: WholePlatform, samples: Path, *, images_per_class: int, budget: int, batch: int) -> SmallLoop:
    """Imports digits, labels the test side, hires experts, starts a loop."""
    owner = Vesta(platform.addresses["gateway_grpc"], platform.owner_key)
    project = owner.projects.CreateProject(
        CreateProjectRequest(project_id=f"t{new_id()}", project=Project(display_name="A test"))
    ).name
    taxonomy = owner.taxonomies.CreateTaxonomy(
        CreateTaxonomyRequest(
            parent=project, taxonomy_id="digits", taxonomy=Taxonomy(concepts=[Concept(id=one) for one in CLASSES])
        )
    ).name
    dataset = owner.datasets.CreateDataset(
        CreateDatasetRequest(
            parent=project,
            dataset_id="digits",
            dataset=Dataset(taxonomy=taxonomy, split_policy=SplitPolicy(test_share=0.25)),
        )
    ).name
    truth_of_file = _stage(platform.home.inbox / project.split("/")[1], samples, images_per_class)
    source = owner.sources.CreateSource(
        CreateSourceRequest(
            parent=project,
            source_id="inbox",
            source=Source(dataset=dataset, folder=FolderSource(path=str(platform.home.inbox / project.split("/")[1]))),
        )
    ).name
    assert owner.sync(source).state == Sync.SUCCEEDED
    items = list(owner.pages(owner.items.ListItems, ListItemsRequest(parent=dataset)))
    truth = {item.name: truth_of_file[item.media.provenance.file_name] for item in items}
    test_side = [item.name for item in items if item.split == Split.SPLIT_TEST]
    owner.items.BatchAnnotateItems(
        BatchAnnotateItemsRequest(
            parent=dataset, items=[ItemAnnotations(item=name, annotations=[label(truth[name])]) for name in test_side]
        )
    )
    address = platform.addresses["gateway_grpc"]
    experts = Experts(
        annotators=[hire(owner, address, project, name, Role.ROLE_ANNOTATOR) for name in ("ada", "ben")],
        reviewer=hire(owner, address, project, "rosa", Role.ROLE_REVIEWER),
        truth=truth.__getitem__,
        labels=list(CLASSES),
        mistake_share=0.0,
        draw=random.Random(3),
    )
    policy = LoopPolicy(
        dataset=dataset, label_budget=budget, batch_size=batch, retrain_after=batch, test_labels=10, control_share=0.2
    )
    loop = owner.loops.CreateLoop(CreateLoopRequest(parent=project, loop_id="digits", loop=Loop(policy=policy))).name
    return SmallLoop(owner, project, dataset, loop, experts, truth)


def _stage(folder: Path, samples: Path, images_per_class: int) -> dict[str, str]:
    """Copies some digits of each class into the inbox; answers what each file shows."""
    photographs = read_folder(write_digits(samples / "digits"))
    folder.mkdir(parents=True)
    truth = {}
    for one in CLASSES:
        chosen: list[Photograph] = [photograph for photograph in photographs.pool if photograph.label == one][
            :images_per_class
        ]
        for photograph in chosen:
            shutil.copyfile(photograph.path, folder / f"{photograph.path.stem}.png")
            truth[f"{photograph.path.stem}.png"] = one
    return truth
