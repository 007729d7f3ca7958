"""Large annotations and maps in the object store, by the hash of their content; events, rows and lists have a reference and a summary.

The objects of a dataset have one key prefix. They are deleted with the dataset, not with an item, because several items and
events can refer to one object.
"""

from collections.abc import Sequence
from typing import TypeVar

from vesta_contracts.common.v1 import Annotation, Prediction, SegmentationMap, StoredAnnotations
from vesta_contracts.datasets.v1 import AcceptedAnnotations, AnnotationList

from vesta_common.errors import Unavailable
from vesta_common.messages import without
from vesta_common.storage.objects import ObjectStore

FOLDER = "annotations"
INLINE_BYTES_MAX = 32 * 1024
"""Annotations with more bytes are stored as an object."""
CONCEPTS_MAX = 100

Annotated = TypeVar("Annotated", AcceptedAnnotations, Prediction)


class LargeAnnotations:
    """Stores and reads the annotations of items. Thread-safe, like the object store.

    Args:
        is_updated: false while replicas of the previous version run, which would read a reference as "none of the concepts".
    """

    def __init__(self, objects: ObjectStore, *, is_updated: bool = True) -> None:
        self._objects = objects
        self._is_updated = is_updated

    def store(self, item: str, annotations: Sequence[Annotation]) -> StoredAnnotations | None:
        """Stores the annotations of an item if they are large. Returns None if they are not.

        Storing the same annotations again has no effect, so that it is safe in a transaction that is repeated or rolled back.

        Raises:
            Unavailable: UPDATE_RUNNING, replicas of the previous version are running.
        """
        return self._store(item, AnnotationList(annotations=annotations), [one.concept for one in annotations])

    def _store(
        self, item: str, content: AnnotationList | SegmentationMap, concepts: Sequence[str]
    ) -> StoredAnnotations | None:
        if content.ByteSize() <= INLINE_BYTES_MAX:
            return None
        if not self._is_updated:
            raise Unavailable(
                f"annotations of more than {INLINE_BYTES_MAX} bytes are not accepted while replicas of the previous version run; "
                "retry when the update is complete",
                reason="UPDATE_RUNNING",
            )
        stored = self._objects.put(annotation_folder(item), content.SerializeToString(deterministic=True))
        return StoredAnnotations(
            object_key=stored.key,
            size_bytes=stored.size_bytes,
            annotation_count=len(concepts),
            concepts=sorted(set(concepts))[:CONCEPTS_MAX],
            is_segmentation_map=isinstance(content, SegmentationMap),
        )

    def load(self, stored: StoredAnnotations) -> Sequence[Annotation]:
        """Returns stored annotations, verified against their hash.

        Raises:
            NotFound: the object does not exist.
            DataLoss: OBJECT_CORRUPT.
        """
        return AnnotationList.FromString(self._objects.get(stored.object_key)).annotations

    def reduced(self, item: str, message: Annotated) -> Annotated:
        """Returns what was accepted or predicted for an item with a reference if its annotations or map are large. Raises as `store`."""
        stored = self.store(item, message.annotations)
        if stored is None and isinstance(message, Prediction):
            stored = self._store(item, message.segmentation_map, message.segmentation_map.concepts)
        if stored is None:
            return message
        reduced = without(message, "segmentation_map" if stored.is_segmentation_map else "annotations")
        reduced.stored.CopyFrom(stored)
        return reduced

    def whole(self, message: Annotated) -> Annotated:
        """Returns what was accepted or predicted with the annotations or the map themselves. Raises as `load`."""
        if not message.HasField("stored"):
            return message
        whole = without(message, "stored")
        if isinstance(whole, Prediction) and message.stored.is_segmentation_map:
            whole.segmentation_map.ParseFromString(self._objects.get(message.stored.object_key))
            return whole
        whole.annotations.extend(self.load(message.stored))
        return whole


def annotation_folder(name: str) -> str:
    """Returns the key prefix of the annotations of a dataset, given its name or the name of one of its items."""
    _, project, _, dataset = name.split("/")[:4]
    return f"{FOLDER}/{project}/{dataset}"
