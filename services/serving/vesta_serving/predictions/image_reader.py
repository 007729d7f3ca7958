"""Reads the images of Predict requests as the input of a model: files in the sandbox, stored items in this process."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import lru_cache, partial

from vesta_common.errors import DataLoss, InvalidArgument, NotFound, VestaError
from vesta_common.media.model_input import Box, InputFormat
from vesta_common.media.model_pictures import ModelPicture, model_picture, model_pictures
from vesta_common.sandbox import Sandbox
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.common.v1 import Media
from vesta_contracts.datasets.v1 import GetItemRequest, ItemServiceStub
from vesta_contracts.serving.v1 import PredictInput, PredictRequest

FETCH_THREADS = 8
INPUTS_MAX = 64


class ImageReader:
    """Reads images. Thread-safe.

    Args:
        media: the object store of the items' images.
    """

    def __init__(self, items: ItemServiceStub, media: ObjectStore, sandbox: Sandbox) -> None:
        self._items = items
        self._media = media
        self._sandbox = sandbox
        self._fetchers = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="stored")

    def read(
        self, request: PredictRequest, files: Sequence[bytes | memoryview], declared: InputFormat
    ) -> list[ModelPicture | VestaError]:
        """Returns the model input of each image of a request, or the error.

        Args:
            files: of the inputs, empty for items.
            declared: the input of the model.
        """
        project = request.name.partition("/deployments/")[0]
        regions: dict[str, list[Box | None]] = defaultdict(list)
        for sent in request.inputs:
            if sent.item:
                regions[sent.item].append(_region(sent))
        # Each call runs in a copy of the caller's context, so that it has the caller's trace and identity.
        stored = self._fetchers.map(
            lambda context, item: context.run(self._stored, project, item, regions[item], declared),
            [copy_context() for _ in regions],
            regions,
        )
        outside = [(sent, file) for sent, file in zip(request.inputs, files, strict=True) if not sent.item]
        if len(outside) == 1:
            decoded = iter([self._alone(*outside[0], declared)])
        elif any(sent.HasField("region") for sent, _ in outside):
            decoded = self._fetchers.map(lambda each: self._alone(each[0], each[1], declared), outside)
        else:
            decoded = iter(self._sandbox.map(_whole(declared), [file for _, file in outside]))
        of_items = {item: iter(found) for item, found in zip(regions, stored, strict=True)}
        return [next(of_items[sent.item] if sent.item else decoded) for sent in request.inputs]

    def _alone(self, sent: PredictInput, data: bytes | memoryview, declared: InputFormat) -> ModelPicture | VestaError:
        try:
            region = _region(sent)
            function = _whole(declared) if region is None else partial(model_picture, declared=declared, region=region)
            return self._sandbox.run(function, data)
        except VestaError as error:
            return error

    def _stored(
        self, project: str, item: str, regions: Sequence[Box | None], declared: InputFormat
    ) -> Sequence[ModelPicture | VestaError]:
        """Returns the model input of each region of an item, or the error."""
        try:
            media = self._media_of(project, item)
            return model_pictures(self._media.get(media.object_key, sha256=media.sha256), declared, regions)
        except (NotFound, InvalidArgument, DataLoss) as error:
            return [error] * len(regions)

    def _media_of(self, project: str, item: str) -> Media:
        if not item.startswith(f"{project}/datasets/"):
            raise NotFound(f"{item} does not exist in {project}", reason="RESOURCE_NOT_FOUND", metadata={"name": item})
        return self._items.GetItem(GetItemRequest(name=item)).media


@lru_cache(INPUTS_MAX)
def _whole(declared: InputFormat) -> Callable[[bytes | memoryview], ModelPicture]:
    """Returns the function that reads whole images, the same object each time, which the sandbox therefore sends once."""
    return partial(model_picture, declared=declared)


def _region(sent: PredictInput) -> Box | None:
    """Returns the region of an input to predict; None for all of it."""
    region = sent.region
    return (region.x_min_px, region.y_min_px, region.x_max_px, region.y_max_px) if sent.HasField("region") else None
