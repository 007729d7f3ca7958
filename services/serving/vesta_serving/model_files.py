"""The parts of registered model versions: their models in Triton, and their heads. Each model file is divided once, by any replica."""

import threading
from dataclasses import dataclass

from cachetools import LRUCache
from vesta_common.media.model_signatures import EMBEDDING
from vesta_common.storage.objects import ObjectStore

from vesta_serving.model_parts import Head, ModelParts, divide
from vesta_serving.registry import Version
from vesta_serving.store import Store
from vesta_serving.store.rows import StoredParts
from vesta_serving.triton.model import TritonModel
from vesta_serving.triton.repository import backbone_name, is_whole, whole_name

HEADS_BYTES_MAX = 128 * 1024 * 1024
SERVED_BYTES = 1024  # of an entry of the cache without its head


@dataclass(frozen=True)
class ServedParts:
    """How a version is served.

    Attributes:
        triton: its model in Triton.
        head: computes probabilities from the embeddings that Triton returns; None if Triton returns all outputs.
    """

    triton: TritonModel
    head: Head | None


class ModelFiles:
    """The parts of model versions, from memory, the database or the model file. Thread-safe.

    Args:
        models: the object store of the registry's ONNX files.
    """

    def __init__(self, store: Store, models: ObjectStore) -> None:
        self._store = store
        self._models = models
        self._lock = threading.Lock()
        self._served: LRUCache[str, tuple[ServedParts, int]] = LRUCache(HEADS_BYTES_MAX, lambda entry: entry[1])

    def parts(self, version: Version) -> ServedParts:
        """Returns how a version is served. Reads and divides its model file if no replica has done so.

        Raises:
            DataLoss, NotFound: the model file differs from the registered one, or is missing.
        """
        with self._lock:
            known = self._served.get(version.model.name)
        if known is None:
            known = self._find(version)  # without the lock, because a slow read must not delay other deployments
            with self._lock:
                self._served[version.model.name] = known
        return known[0]

    def triton_file(self, version: Version) -> bytes:
        """Returns the ONNX file for Triton.

        Raises:
            DataLoss, NotFound: the model file differs from the registered one, or is missing.
        """
        return self._divide(version).triton_file

    def find_triton_name(self, version: Version) -> str:
        """Returns the name of a version's model in Triton; empty if the file has not been divided, so that nothing is loaded."""
        parts = self._store.find_parts(version.model.name)
        return parts.triton_name if parts else ""

    def _find(self, version: Version) -> tuple[ServedParts, int]:
        stored = self._store.find_parts(version.model.name)
        if stored is None:
            parts = self._divide(version)
            name = whole_name(version.model.digest) if parts.is_whole else backbone_name(parts.digest, version.input)
            stored = StoredParts(name, parts.head)
            self._store.put_parts(version.model.name, stored)
        has_all = is_whole(stored.triton_name)
        outputs = tuple(output for output in version.outputs if has_all or output.name == EMBEDDING)
        head = None if stored.head is None else Head(stored.head)
        served = ServedParts(TritonModel(stored.triton_name, version.input, outputs), head)
        return served, SERVED_BYTES + len(stored.head or b"")

    def _divide(self, version: Version) -> ModelParts:
        return divide(self._models.get(version.model.onnx_key, sha256=version.model.digest))
