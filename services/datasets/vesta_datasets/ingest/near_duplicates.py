"""Finds the near-duplicates of new items. The search in a dataset holds no lock, so that other batches do not wait for it."""

from collections.abc import Mapping, Sequence
from typing import Any

from vesta_common.storage.postgres import Connection
from vesta_contracts.common.v1 import Media

from vesta_datasets.items import splits
from vesta_datasets.items.duplicates import DISTANCE_MAX_BITS, DuplicateIndex, Hashed, near, probes
from vesta_datasets.store import Store


class NearDuplicates:
    """The items of a dataset that are near-duplicates of new ones, found without a lock.

    Other transactions may add and delete items until the row of the dataset is locked. `update` then finds what has changed.

    Args:
        connection: in a transaction that has not locked the row of the dataset.
        media: of the new items. Those that the dataset has already are skipped. `update` searches for others.
    """

    def __init__(self, store: Store, connection: Connection, dataset: str, media: Sequence[Media]) -> None:
        self._items = store.items
        self._dataset = dataset
        known = self._items.find_known(connection, dataset, [one.sha256 for one in media]) if media else ()
        new = [one for one in media if one.sha256 not in known]
        self._last_number = self._items.last_number(connection, dataset) if new else None
        self._found = self._near(connection, new)
        self._later = DuplicateIndex()
        self._placed: dict[str, splits.Placed] = {}

    def update(self, connection: Connection, media: Sequence[Media]) -> None:
        """Adds the items that were added since the search, and removes those that were deleted. The row of the dataset is locked.

        Args:
            media: of the new items that the dataset still does not have.
        """
        self._found |= self._near(connection, [one for one in media if one.sha256 not in self._found])
        names = {item.name for one in media for item in self._found[one.sha256]}
        self._placed = {row["name"]: _placed(row) for row in self._items.list_placed(connection, sorted(names))}
        if self._last_number is not None:
            for row in self._items.list_added(connection, self._dataset, self._last_number):
                self._add(Hashed(row["name"], row["perceptual_hash"]), _placed(row))

    def of(self, media: Media) -> list[splits.Placed]:
        """Returns the near-duplicates of a new item, nearest first."""
        found = [item for item in self._found[media.sha256] if item.name in self._placed]
        found += self._later.near(media.perceptual_hash, DISTANCE_MAX_BITS)
        distinct = {item.name: item for item in found}.values()
        return [self._placed[item.name] for item in near(media.perceptual_hash, distinct, DISTANCE_MAX_BITS)]

    def add(self, name: str, media: Media, placement: splits.Placement) -> None:
        """Adds a new item, because items of one batch can be near-duplicates of each other too."""
        self._add(Hashed(name, media.perceptual_hash), splits.Placed(name, placement.group, placement.split))

    def _add(self, item: Hashed, placed: splits.Placed) -> None:
        self._placed[item.name] = placed
        self._later.add(item)

    def _near(self, connection: Connection, media: Sequence[Media]) -> dict[str, list[Hashed]]:
        """Returns the near-duplicates of media by their SHA-256."""
        all_probes = [probe for one in media for probe in probes(one.perceptual_hash, DISTANCE_MAX_BITS)]
        index = DuplicateIndex()
        for row in self._items.find_candidates(connection, self._dataset, all_probes) if all_probes else ():
            index.add(Hashed(row["name"], row["perceptual_hash"]))
        return {one.sha256: index.near(one.perceptual_hash, DISTANCE_MAX_BITS) for one in media}


def _placed(row: Mapping[str, Any]) -> splits.Placed:
    return splits.Placed(row["name"], row["group_name"], splits.Split(row["split"]))
