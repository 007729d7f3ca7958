"""Annotations in a temporary file, added in any order and read by image. In memory are a few numbers per annotation."""

import os
from array import array
from collections import Counter
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from vesta_common.media.crowds import CROWD, TRUE
from vesta_contracts.common.v1 import Annotation
from vesta_contracts.datasets.v1 import AnnotationList


class ObjectSpool:
    """Annotations of the images of an archive.

    Args:
        file: created.

    Attributes:
        run_length_sources: the files in which `is_crowd` says only that a shape is run lengths.
    """

    def __init__(self, file: Path) -> None:
        self._file: IO[bytes] = file.open("x+b")
        self._offsets = array("q", [0])
        self._images = array("i")
        self._ids = array("q")
        self._sources = array("i")
        self._crowds = array("b")
        self.run_length_sources: set[int] = set()
        self._preferred = array("b")
        self._order: NDArray[np.int64] = np.zeros(0, np.int64)
        self._bounds: NDArray[np.int64] = np.zeros(1, np.int64)

    def add(
        self, image: int, object_id: int, annotation: Annotation, *, source: int, is_crowd: bool, is_preferred: bool
    ) -> None:
        """Adds an annotation of the image with this number.

        Args:
            object_id: annotations of an image with the same id in different sources describe the same object, unless the id is negative.
            source: the number of the file that has the annotation. A file that has an id twice has two objects.
            is_crowd: whether it is of several objects that are not separated, unless the source is one of `run_length_sources`.
            is_preferred: of several annotations of an object, the first preferred one is kept, or else the first.
        """
        content = AnnotationList(annotations=[annotation]).SerializeToString()
        self._file.write(content)
        self._offsets.append(self._offsets[-1] + len(content))
        self._images.append(image)
        self._ids.append(object_id)
        self._sources.append(source)
        self._crowds.append(is_crowd)
        self._preferred.append(is_preferred)

    def arrange(self, image_count: int) -> None:
        """Sorts the annotations by image. Must be called once, before annotations are read and after the last one is added."""
        self._file.flush()
        images = np.array(self._images, np.int32)
        self._order = np.argsort(images, kind="stable")
        self._bounds = np.searchsorted(images[self._order], np.arange(image_count + 1))

    def annotations_of(self, image: int) -> bytes:
        """Returns the annotations of an image, a serialised AnnotationList, in the order in which their objects were added."""
        chosen: dict[tuple[int, int], int] = {}
        earlier = Counter[tuple[int, int]]()
        for place, index in enumerate(self._order[self._bounds[image] : self._bounds[image + 1]].tolist()):
            object_id, source = self._ids[index], self._sources[index]
            key = (object_id, earlier[source, object_id]) if object_id >= 0 else (-1, place)
            earlier[source, object_id] += 1
            if key not in chosen or self._preferred[index] > self._preferred[chosen[key]]:
                chosen[key] = index
        return b"".join(map(self._content, chosen.values()))  # concatenated messages are their lists, concatenated

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _content(self, index: int) -> bytes:
        start, end = self._offsets[index], self._offsets[index + 1]
        content = os.pread(self._file.fileno(), end - start, start)
        if not self._crowds[index] or self._sources[index] in self.run_length_sources:
            return content
        crowd = AnnotationList.FromString(content)
        crowd.annotations[0].attributes[CROWD] = TRUE
        return crowd.SerializeToString()
