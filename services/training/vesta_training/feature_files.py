"""Keeps embeddings on the object store, many in one object, with a copy on this machine: each image is embedded once, ever."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from vesta_common.objects import ObjectStore

from vesta_training.example import Array
from vesta_training.whole_files import write_whole

FOLDER = "features"


class FeatureFiles:
    """A feature store. Packs are immutable and named by what they hold, so that any number of processes may add to them.

    Args:
        folder: where copies of packs lie; may be lost at any time.
    """

    def __init__(self, objects: ObjectStore, folder: Path) -> None:
        self._objects = objects
        self._folder = folder
        self._known: dict[str, dict[str, Array]] = {}
        self._packs: set[str] = set()

    def get_many(self, embedding_digest: str, image_sha256s: Sequence[str]) -> Mapping[str, Array]:
        """Those that are there."""
        known = self._load(embedding_digest)
        return {image: known[image] for image in image_sha256s if image in known}

    def put_many(self, embedding_digest: str, embeddings: Mapping[str, Array]) -> None:
        """Keeps them as one more pack."""
        images = sorted(embeddings)
        if not images:
            return
        buffer = io.BytesIO()
        np.savez(buffer, images=np.array(images), embeddings=np.stack([embeddings[image] for image in images]))
        name = hashlib.sha256("\n".join(images).encode()).hexdigest()
        key = f"{FOLDER}/{embedding_digest}/{name}.npz"
        self._objects.put_named(key, buffer.getvalue())
        self._keep(key, buffer.getvalue())
        self._packs.add(key)
        self._known.setdefault(embedding_digest, {}).update(embeddings)

    def _load(self, embedding_digest: str) -> dict[str, Array]:
        """Every embedding of a space; packs that others added since are read too."""
        known = self._known.setdefault(embedding_digest, {})
        for key in self._objects.list_keys(f"{FOLDER}/{embedding_digest}/"):
            if key in self._packs:
                continue
            with np.load(io.BytesIO(self._read(key)), allow_pickle=False) as pack:
                known.update(zip(pack["images"].tolist(), pack["embeddings"], strict=True))
            self._packs.add(key)
        return known

    def _read(self, key: str) -> bytes:
        path = self._folder / key
        if path.exists():
            return path.read_bytes()
        data = self._objects.get(key)
        self._keep(key, data)
        return data

    def _keep(self, key: str, data: bytes) -> None:
        write_whole(self._folder / key, data)
