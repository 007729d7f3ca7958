"""PretrainedDetectorService: imports and manages pretrained detectors."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
from google.protobuf import empty_pb2
from vesta_common.errors import InvalidArgument, Unavailable
from vesta_common.ids import new_id
from vesta_common.messages import copy_of
from vesta_common.resources.methods import create_once, find_answer
from vesta_common.resources.page_keys import by_name
from vesta_common.resources.pages import read_page, within_bytes
from vesta_common.runtime.service import BackgroundTask
from vesta_common.storage.objects import ObjectStore
from vesta_contracts.training.v1 import (
    DeletePretrainedDetectorRequest,
    GetPretrainedDetectorRequest,
    ImportPretrainedDetectorRequest,
    ListPretrainedDetectorsRequest,
    ListPretrainedDetectorsResponse,
    ModelInput,
    PretrainedDetector,
    PretrainedDetectorServiceServicer,
)

from vesta_training.pretrained.card import Card, read_card
from vesta_training.pretrained.files import FOLDER
from vesta_training.pretrained.inspection import BYTES_MAX, FILE_NAME, Inspected, inspect_file
from vesta_training.store import Store


class PretrainedDetectorService(PretrainedDetectorServiceServicer):
    """Imports, reads and deletes pretrained detectors.

    Args:
        work_folder: for files while they are checked.
        loops: the background tasks that delete files; they are woken after a deletion.
        inspect: checks the file in a folder.
    """

    def __init__(
        self,
        store: Store,
        objects: ObjectStore,
        work_folder: str,
        loops: Sequence[BackgroundTask] = (),
        inspect: Callable[[Path], Inspected] = inspect_file,
    ) -> None:
        self._store = store
        self._objects = objects
        self._work_folder = Path(work_folder)
        self._loops = loops
        self._inspect = inspect

    def ImportPretrainedDetector(
        self, request_iterator: Iterator[ImportPretrainedDetectorRequest], context: grpc.ServicerContext
    ) -> PretrainedDetector:
        """Receives a file, checks it in the sandbox, and stores it with its card."""
        first = next(request_iterator, ImportPretrainedDetectorRequest())
        card = read_card(first.card)
        with _scratch_folder(self._work_folder) as folder:
            path = folder / FILE_NAME
            digest = _receive(path, first, request_iterator)
            requested = copy_of(first)
            requested.file.data = bytes.fromhex(digest)
            if answer := find_answer(self._store.postgres, requested, PretrainedDetector):
                return answer
            inspected = self._inspect(folder)
            stored = self._objects.put(FOLDER, path)
            if stored.sha256 != digest:
                raise Unavailable(f"{path} was changed while it was checked", reason="WORK_FOLDER_CHANGED")
        name = f"{first.parent}/pretrainedDetectors/{first.pretrained_detector_id or new_id()}"
        detector = _detector(name, first.card, card, inspected, digest, stored.size_bytes)
        pretrained, is_stored = self._store.pretrained_detectors, self._objects.exists
        return create_once(
            self._store.postgres,
            requested,
            PretrainedDetector,
            name,
            lambda connection: pretrained.insert(connection, detector, stored.key, is_stored),
        )

    def GetPretrainedDetector(
        self, request: GetPretrainedDetectorRequest, context: grpc.ServicerContext
    ) -> PretrainedDetector:
        with self._store.postgres.transaction() as connection:
            return self._store.pretrained_detectors.get(connection, request.name)

    def ListPretrainedDetectors(
        self, request: ListPretrainedDetectorsRequest, context: grpc.ServicerContext
    ) -> ListPretrainedDetectorsResponse:
        """Lists the pretrained detectors of a project, ordered by name."""
        page = read_page(request)
        with self._store.postgres.transaction() as connection:
            rows = self._store.pretrained_detectors.list_page(connection, request.parent, page.after, page.limit)
        detectors, token = within_bytes(page, rows).cut(rows, by_name)
        return ListPretrainedDetectorsResponse(pretrained_detectors=detectors, next_page_token=token)

    def DeletePretrainedDetector(
        self, request: DeletePretrainedDetectorRequest, context: grpc.ServicerContext
    ) -> empty_pb2.Empty:
        """Deletes a pretrained detector. Its file is deleted in the background."""
        with self._store.postgres.transaction() as connection:
            self._store.pretrained_detectors.delete(connection, request.name)
        for loop in self._loops:
            loop.wake()
        return empty_pb2.Empty()


def _detector(
    name: str, text: str, card: Card, inspected: Inspected, digest: str, size_bytes: int
) -> PretrainedDetector:
    return PretrainedDetector(
        name=name,
        card=text,
        license=card.license,
        digest=digest,
        size_bytes=size_bytes,
        class_count=inspected.class_count,
        input=ModelInput(
            height_px=inspected.side_px,
            width_px=inspected.side_px,
            resize=ModelInput.LETTERBOX,
            colour_order=ModelInput.ColourOrder.Value(card.colour_order),
        ),
    )


def _receive(
    path: Path, first: ImportPretrainedDetectorRequest, later: Iterator[ImportPretrainedDetectorRequest]
) -> str:
    """Writes a file while it is received, and returns its SHA-256.

    Raises:
        InvalidArgument: DETECTOR_TOO_LARGE.
    """
    digest, size_bytes = hashlib.sha256(), 0
    with path.open("wb") as file:
        part = first.file.data
        while True:
            size_bytes += len(part)
            if size_bytes > BYTES_MAX:
                raise InvalidArgument(
                    f"the file has more than {BYTES_MAX // 1024**2} MiB; use a smaller network, such as YOLOX-Tiny",
                    reason="DETECTOR_TOO_LARGE",
                )
            digest.update(part)
            file.write(part)
            message = next(later, None)
            if message is None:
                return digest.hexdigest()
            part = message.file.data


@contextmanager
def _scratch_folder(work_folder: Path) -> Iterator[Path]:
    """Creates a temporary folder, which belongs to one call, and deletes it on exit."""
    work_folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="detector-", dir=work_folder))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
