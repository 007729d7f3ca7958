"""An in-memory feature store, for tests of the computation."""

from collections.abc import Mapping, Sequence

from vesta_training.example import Array


class MemoryFeatureStore:
    """Stores embeddings in memory."""

    def __init__(self) -> None:
        self._embeddings: dict[tuple[str, str], Array] = {}

    def get_many(self, embedding_digest: str, image_sha256s: Sequence[str]) -> Mapping[str, Array]:
        keys = ((embedding_digest, image) for image in image_sha256s)
        return {key[1]: self._embeddings[key] for key in keys if key in self._embeddings}

    def put_many(self, embedding_digest: str, embeddings: Mapping[str, Array]) -> None:
        self._embeddings |= {(embedding_digest, image): value for image, value in embeddings.items()}
