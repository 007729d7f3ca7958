"""Reads the images of Predict requests as the input of a model: files in the sandbox, stored items in this process."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial

from vesta_common.errors import DataLoss, InvalidArgument, NotFound, VestaError
from vesta_common.media.images import ModelPicture, model_picture
from vesta_common.media.model_input import Box, InputFormat
from vesta_common.sandbox import Sandbox
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.datasets.v1 import GetItemRequest, ItemServiceStub
from vesta_contracts.serving.v1 import PredictInput, PredictRequest

FETCH_THREADS = 8


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
        inside = [sent for sent in request.inputs if sent.item]
        # Each call runs in a copy of the caller's context, so that it has the caller's trace and identity.
        stored = self._fetchers.map(
            lambda context, sent: context.run(self._stored, project, sent, declared),
            [copy_context() for _ in inside],
            inside,
        )
        outside = [(sent, file) for sent, file in zip(request.inputs, files, strict=True) if not sent.item]
        if len(outside) == 1:
            decoded = iter([self._alone(*outside[0], declared)])
        elif any(sent.HasField("region") for sent, _ in outside):
            decoded = self._fetchers.map(lambda each: self._alone(each[0], each[1], declared), outside)
        else:
            decoded = iter(self._sandbox.map(partial(model_picture, declared=declared), [file for _, file in outside]))
        return [next(stored) if sent.item else next(decoded) for sent in request.inputs]

    def _alone(self, sent: PredictInput, data: bytes | memoryview, declared: InputFormat) -> ModelPicture | VestaError:
        try:
            return self._sandbox.run(partial(model_picture, declared=declared, region=_region(sent)), data)
        except VestaError as error:
            return error

    def _stored(self, project: str, sent: PredictInput, declared: InputFormat) -> ModelPicture | VestaError:
        item = sent.item
        if not item.startswith(f"{project}/datasets/"):
            return NotFound(f"{item} does not exist in {project}", reason="RESOURCE_NOT_FOUND", metadata={"name": item})
        try:
            media = self._items.GetItem(GetItemRequest(name=item)).media
            return model_picture(self._media.get(media.object_key, sha256=media.sha256), declared, _region(sent))
        except (NotFound, InvalidArgument, DataLoss) as error:
            return error


def _region(sent: PredictInput) -> Box | None:
    """Returns the region of an input to predict; None for all of it."""
    region = sent.region
    return (region.x_min_px, region.y_min_px, region.x_max_px, region.y_max_px) if sent.HasField("region") else None
