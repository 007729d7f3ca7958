"""A cache of embeddings in the object store, in packs of many embeddings, with local copies. Lost embeddings are computed again."""

import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import structlog
from vesta_common.errors import NotFound
from vesta_common.storage.objects import ObjectStore

from vesta_training.atomic_files import keep_copy
from vesta_training.example import Array

FOLDER = "features"
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
        folder: for local copies of packs; it can be lost at any time.
    """

    def __init__(self, objects: ObjectStore, folder: Path) -> None:
        self._objects = objects
        self._folder = folder
        self._known: dict[str, dict[str, Array]] = {}
        self._packs: set[str] = set()

    def get_many(self, embedding_digest: str, image_sha256s: Sequence[str]) -> Mapping[str, Array]:
        """Returns the stored embeddings of the images."""
        known = self._load(embedding_digest)
        return {image: known[image] for image in image_sha256s if image in known}

    def put_many(self, embedding_digest: str, embeddings: Mapping[str, Array]) -> None:
        """Stores embeddings as a new pack."""
        images = sorted(embeddings)
        if not images:
            return
        buffer = io.BytesIO()
        np.savez(buffer, images=np.array(images), embeddings=np.stack([embeddings[image] for image in images]))
        stored = self._objects.put(f"{FOLDER}/{embedding_digest}", buffer.getvalue())
        keep_copy(self._folder / stored.key, buffer.getvalue())
        self._packs.add(stored.key)
        self._known.setdefault(embedding_digest, {}).update(embeddings)

    def _load(self, embedding_digest: str) -> dict[str, Array]:
        """Returns all embeddings of a space, including packs that other processes have added since."""
        known = self._known.setdefault(embedding_digest, {})
        for key in self._objects.list_keys(f"{FOLDER}/{embedding_digest}/"):
            if key not in self._packs:
                known.update(self._read(key))
                self._packs.add(key)
        return known

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
