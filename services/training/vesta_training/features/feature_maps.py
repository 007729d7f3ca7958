"""A local cache of feature maps: what a frozen backbone computes from an image at several strides, in float16.

A map has some hundred kilobytes, so that the cache is bounded and stays on the machine. Lost maps are computed again.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numpy.lib.format import MAGIC_PREFIX

from vesta_training.example import Pixels
from vesta_training.features.features import BATCH_SIZE, BATCHES_AHEAD
from vesta_training.features.runtime import ModelRuntime
from vesta_training.progress import ignore_progress

CACHE_BYTES_MAX = 8 * 1024**3

Maps = tuple[npt.NDArray[np.float16], ...]
"""The maps of a batch by stride, each `(N, C, S/stride, S/stride)`."""


@dataclass(frozen=True, slots=True)
class MapCache:
    """The cached maps of one backbone.

    Attributes:
        folder: of all backbones. Processes can share it.
        digest: of the backbone and of the size of its input.
        shapes: of the maps of an image, by stride.
    """

    folder: Path
    digest: str
    shapes: tuple[tuple[int, int, int], ...]

    def compute(
        self,
        keys: Sequence[str],
        *,
        model: Callable[[], ModelRuntime],
        pixels: Callable[[Sequence[str]], Sequence[Pixels]],
        threads: int,
        computed: Callable[[int, int], None] = ignore_progress,
    ) -> None:
        """Computes the missing maps, in the order of the keys.

        Args:
            keys: of the images: names of files.
            model: loads the model, whose outputs are the maps by stride; called only if maps are missing.
            pixels: returns the inputs of the model for the keys of a batch, each `(S, S, 3)`. Called from several threads.
            computed: called with the number of computed and of missing maps; raises an exception to stop.
        """
        missing = [key for key in dict.fromkeys(keys) if not _is_readable(self._path(key))]
        if not missing:
            return
        runtime = model()

        def compute_batch(batch: Sequence[str]) -> int:
            maps = runtime.run_all(np.stack(pixels(batch)), runtime.outputs)
            for index, key in enumerate(batch):
                self._write(key, np.concatenate([one[index].ravel() for one in maps]))
            return len(batch)

        done = 0
        for count in _in_threads(missing, compute_batch, threads):
            done += count
            computed(done, len(missing))

    def load(self, keys: Sequence[str]) -> Maps:
        """Returns the maps of a batch. Raises FileNotFoundError if they were deleted meanwhile."""
        flat = np.stack([np.load(self._path(key)) for key in keys])
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])[:-1]
        parts = np.split(flat, ends, axis=1)
        return tuple(part.reshape(len(keys), *shape) for part, shape in zip(parts, self.shapes, strict=True))

    def batches(self, keys: Sequence[str]) -> Iterator[Maps]:
        """Yields the maps of `BATCH_SIZE` images at a time; see `load`."""
        for start in range(0, len(keys), BATCH_SIZE):
            yield self.load(keys[start : start + BATCH_SIZE])

    def prune(self, bytes_max: int = CACHE_BYTES_MAX) -> None:
        """Deletes the maps that were computed first, of any backbone, until the cache has at most so many bytes."""
        files = sorted((file.stat().st_mtime_ns, file.stat().st_size, file) for file in self.folder.glob("*/*/*.npy"))
        total = sum(size for _, size, _ in files)
        for _, size, file in files:
            if total <= bytes_max:
                return
            file.unlink(missing_ok=True)
            total -= size

    def _path(self, key: str) -> Path:
        return self.folder / self.digest / key[:2] / f"{key}.npy"

    def _write(self, key: str, values: npt.NDArray[np.float16]) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
        with unfinished.open("wb") as file:
            np.save(file, values)
        unfinished.replace(path)


def _is_readable(path: Path) -> bool:
    """Whether the file exists and begins as an array. After a power failure it can consist of zeros."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC_PREFIX)) == MAGIC_PREFIX
    except FileNotFoundError:
        return False


def _in_threads(keys: Sequence[str], call: Callable[[Sequence[str]], int], threads: int) -> Iterator[int]:
    """Yields the results of batches of keys, in order. Limits the number of batches in memory."""
    batches = (keys[start : start + BATCH_SIZE] for start in range(0, len(keys), BATCH_SIZE))
    with ThreadPoolExecutor(threads, thread_name_prefix="maps") as pool:
        under_way: list[Future[int]] = [pool.submit(call, batch) for batch in islice(batches, threads * BATCHES_AHEAD)]
        try:
            while under_way:
                result = under_way.pop(0).result()
                under_way += [pool.submit(call, more) for more in islice(batches, 1)]
                yield result
        finally:
            for future in under_way:
                future.cancel()
