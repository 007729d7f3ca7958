"""A cache of embeddings in the object store, in packs of many embeddings, with local copies. Lost embeddings are computed again.

The packs of each dataset are in a folder of their own, so that a run reads those of its dataset only.
"""

import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import structlog
from vesta_common.errors import NotFound
from vesta_common.storage.objects import ObjectStore

from vesta_training.atomic_files import keep_copy
from vesta_training.example import Array

FOLDER = "features"
ADOPTED_AT_ONCE = 1024
OLD_SUFFIX = ".npz"
"""Suffix of packs of earlier versions. Their names are hashes, but not of their content."""
# The exceptions that numpy and zipfile raise for damaged files.
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, struct.error),
    *(EOFError, KeyError, OSError, RuntimeError, TypeError, ValueError),
)

log = structlog.get_logger()


class UnreadablePackError(ValueError):
    """A pack, or a local copy of it, is damaged. Its images are embedded again."""


class FeatureFiles:
    """A feature store. Packs are immutable and named by the SHA-256 of their content, so that any number of processes can add packs.

    A pack that cannot be read is deleted, and its images are embedded again.

    Args:
        dataset: whose images are embedded.
        folder: for local copies of packs; it can be lost at any time.
    """

    def __init__(self, objects: ObjectStore, dataset: str, folder: Path) -> None:
        self._objects = objects
        self._dataset = dataset
        self._folder = folder

    def get_many(self, embedding_digest: str, image_sha256s: Sequence[str]) -> Mapping[str, Array]:
        """Returns the stored embeddings of the images, including those of packs that other processes have added.

        At most one pack is in memory, beside the returned embeddings.
        """
        if not image_sha256s:
            return {}
        packs = list(self._objects.list_keys(f"{self._folder_of(embedding_digest)}/"))
        return self._wanted(packs, image_sha256s) if packs else self._adopted(embedding_digest, image_sha256s)

    def put_many(self, embedding_digest: str, embeddings: Mapping[str, Array]) -> None:
        """Stores embeddings as a new pack."""
        images = sorted(embeddings)
        if not images:
            return
        buffer = io.BytesIO()
        np.savez(buffer, images=np.array(images), embeddings=np.stack([embeddings[image] for image in images]))
        stored = self._objects.put(self._folder_of(embedding_digest), buffer.getvalue())
        keep_copy(self._folder / stored.key, buffer.getvalue())

    def _folder_of(self, embedding_digest: str) -> str:
        _, project, _, dataset = self._dataset.split("/")
        return f"{FOLDER}/{embedding_digest}/{project}/{dataset}"

    def _adopted(self, embedding_digest: str, image_sha256s: Sequence[str]) -> Mapping[str, Array]:
        """Returns the embeddings that are in packs of earlier versions, and stores them as packs of this dataset.

        These packs contain the images of all datasets. They are read only as long as the dataset has no pack.
        """
        prefix = f"{FOLDER}/{embedding_digest}/"
        shared = [key for key in self._objects.list_keys(prefix) if "/" not in key.removeprefix(prefix)]
        found = self._wanted(shared, image_sha256s)
        images = sorted(found)
        for start in range(0, len(images), ADOPTED_AT_ONCE):
            self.put_many(embedding_digest, {image: found[image] for image in images[start : start + ADOPTED_AT_ONCE]})
        return found

    def _wanted(self, packs: Iterable[str], image_sha256s: Sequence[str]) -> dict[str, Array]:
        """Returns those embeddings in the packs that are wanted."""
        wanted = set(image_sha256s)
        found: dict[str, Array] = {}
        for key in packs:
            embeddings = self._read(key)
            # Copies, because an array keeps the whole pack.
            found |= {image: embeddings[image].copy() for image in embeddings.keys() & wanted}
        return found

    def _read(self, key: str) -> Mapping[str, Array]:
        """Returns the embeddings of a pack; none if it cannot be read or was deleted by another process."""
        copy = self._folder / key
        try:
            return _unpacked(key, copy.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            pass  # there is no local copy
        except (UnreadablePackError, OSError) as error:
            log.warning("feature_pack_copy_unreadable", path=str(copy), error=str(error))
        try:
            content = self._objects.get(key, checked=False)
            embeddings = _unpacked(key, content)
        except NotFound:
            return {}
        except UnreadablePackError as error:
            log.warning("feature_pack_deleted", key=key, error=str(error))
            self._objects.delete(key)
            return {}
        keep_copy(copy, content)
        return embeddings


def _unpacked(key: str, content: bytes) -> dict[str, Array]:
    """Parses a pack.

    Raises:
        UnreadablePackError: the pack is damaged.
    """
    if not key.endswith(OLD_SUFFIX) and hashlib.sha256(content).hexdigest() != key.rpartition("/")[2]:
        raise UnreadablePackError("its content does not match the hash in its name")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as pack:
            images, embeddings = pack["images"].tolist(), pack["embeddings"]
    except _DAMAGED as error:
        raise UnreadablePackError(repr(error)) from error
    if embeddings.shape[:1] != (len(images),) or embeddings.ndim != 2 or not np.isfinite(embeddings).all():
        raise UnreadablePackError(f"it has {len(images)} images and embeddings of shape {embeddings.shape}")
    return dict(zip(images, embeddings, strict=True))
