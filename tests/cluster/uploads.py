"""Pictures that are uploaded through the gateway, one after another, whatever happens to it meanwhile."""

import threading
from pathlib import Path

import numpy as np
from PIL import Image
from site_on_node import Site
from small_loop import TRANSIENT, SmallLoop, patiently
from vesta import ApiError
from vesta_common.ids import new_id
from vesta_contracts.connection.v1 import CreateSourceRequest, Source, UploadSource
from vesta_contracts.datasets.v1 import CreateDatasetRequest, Dataset, GetDatasetRequest, Item, ListItemsRequest

SEED = 5
SIDE = 64


class Uploads:
    """Uploads pictures of noise to a dataset of their own.

    Attributes:
        acknowledged: the names of the items that were answered.
        failures: what was answered instead.
    """

    def __init__(self, site: Site, small: SmallLoop, folder: Path, pause_seconds: float = 0.2) -> None:
        self._owner = site.owner()
        self._folder = folder
        self._pause = pause_seconds
        taxonomy = small.owner.datasets.GetDataset(GetDatasetRequest(name=small.dataset)).taxonomy
        word = f"uploads-{new_id()[-6:]}"
        made = CreateDatasetRequest(parent=small.project, dataset_id=word, dataset=Dataset(taxonomy=taxonomy))
        self.dataset = self._owner.datasets.CreateDataset(made).name
        source = Source(dataset=self.dataset, upload=UploadSource())
        self._source = self._owner.sources.CreateSource(
            CreateSourceRequest(parent=small.project, source_id=word, source=source)
        ).name
        self.acknowledged: set[str] = set()
        self.failures: list[str] = []

    def upload(self, stop: threading.Event) -> None:
        """Until it is told to stop."""
        draw = np.random.default_rng(SEED)
        path = self._folder / "noise.png"
        while not stop.wait(self._pause):
            Image.fromarray(draw.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(path)
            try:
                self.acknowledged.add(self._owner.upload(self._source, path).item)
            except ApiError as error:
                if error.code not in TRANSIENT:
                    raise
                self.failures.append(f"upload: {error}")

    def lost(self) -> set[str]:
        """What was acknowledged and is not there."""
        return self.acknowledged - {item.name for item in patiently(self._items)}

    def _items(self) -> list[Item]:
        return list(self._owner.pages(self._owner.items.ListItems, ListItemsRequest(parent=self.dataset)))
