"""Computes embeddings of images, once per backbone and image, with a store of previous results."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Protocol

import numpy as np
from vesta_common.media.model_input import SQUARE, InputFormat

from vesta_training.example import Array, Pixels
from vesta_training.features.runtime import ModelRuntime
from vesta_training.progress import ignore_progress

BATCH_SIZE = 8
KEPT_AT_ONCE = 256
# Concurrent batches per thread: one is computed, one waits.
BATCHES_AHEAD = 2


class PixelSource(Protocol):
    """Loads images. Called from several threads."""

    def __call__(self, image_sha256: str, declared: InputFormat = SQUARE, /) -> Pixels:
        """Returns the image with this SHA-256 as the input of a model: `(height, width, 3)` uint8."""
        ...


class FeatureStore(Protocol):
    """Stores embeddings by the digest of the embedding space and the SHA-256 of the image."""

    def get_many(self, embedding_digest: str, image_sha256s: Sequence[str]) -> Mapping[str, Array]:
        """Returns the stored embeddings of the images, each `(D,)` float32."""

    def put_many(self, embedding_digest: str, embeddings: Mapping[str, Array]) -> None:
        """Stores embeddings. Existing embeddings of the same image are equal."""


def extract_features(
    image_sha256s: Sequence[str],
    *,
    model: Callable[[], ModelRuntime],
    embedding_digest: str,
    store: FeatureStore,
    pixels: PixelSource,
    threads: int,
    embedded: Callable[[int, int], None] = ignore_progress,
    kept_at_once: int = KEPT_AT_ONCE,
) -> Array:
    """Returns `(N, D)` embeddings in the order of the images. Only missing embeddings are computed.

    Each thread fetches pixels and computes, so that both overlap.

    Args:
        model: loads the model; called only if embeddings are missing.
        embedded: called after every batch with the number of computed and of missing images; raises an exception to stop.
        kept_at_once: number of embeddings after which they are stored, so that a killed run resumes from there.
    """
    unique = list(dict.fromkeys(image_sha256s))
    known = dict(store.get_many(embedding_digest, unique))
    missing = [image for image in unique if image not in known]
    if missing:
        fresh: dict[str, Array] = {}
        for image, embedding in _compute(missing, model(), pixels, threads):
            fresh[image] = embedding
            done = len(known) + len(fresh) - (len(unique) - len(missing))
            if len(fresh) == kept_at_once or done == len(missing):
                store.put_many(embedding_digest, fresh)
                known |= fresh
                fresh = {}
            if done % BATCH_SIZE == 0 or done == len(missing):
                embedded(done, len(missing))
    if not unique:
        return np.zeros((0, 0), dtype=np.float32)
    return np.stack([known[image] for image in image_sha256s])


def _compute(
    images: Sequence[str], model: ModelRuntime, pixels: PixelSource, threads: int
) -> Iterator[tuple[str, Array]]:
    """Yields every image with its embedding, in order. Limits the number of batches in memory."""

    def embed(batch: Sequence[str]) -> Array:
        return model.embed(np.stack([pixels(image) for image in batch]))

    batches = (images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE))
    with ThreadPoolExecutor(threads, thread_name_prefix="embed") as pool:
        under_way: list[tuple[Sequence[str], Future[Array]]] = [
            (batch, pool.submit(embed, batch)) for batch in islice(batches, threads * BATCHES_AHEAD)
        ]
        try:
            while under_way:
                batch, future = under_way.pop(0)
                embeddings = future.result()
                under_way += [(more, pool.submit(embed, more)) for more in islice(batches, 1)]
                yield from zip(batch, embeddings, strict=True)
        finally:
            for _, future in under_way:
                future.cancel()
