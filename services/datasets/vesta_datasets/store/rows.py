"""Converts rows to items and embeddings. Pure functions."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pgvector import Vector
from vesta_common.messages import set_times
from vesta_common.resources.etags import with_etag
from vesta_contracts.common.v1 import Media
from vesta_contracts.datasets.v1 import Item, Split


def item_of(row: Mapping[str, Any]) -> Item:
    item = Item(
        name=row["name"],
        media=Media.FromString(bytes(row["media"])),
        split=Split.Value(f"SPLIT_{row['split']}"),
        metadata=row["metadata"],
        duplicate_of=row["duplicate_of"],
    )
    if row["accepted"] is not None:
        item.accepted.ParseFromString(bytes(row["accepted"]))
        item.accepted.SetInParent()
    if row["scores"] is not None:
        item.prediction.ParseFromString(bytes(row["scores"]))
    set_times(item, row, "create_time", "update_time")
    return with_etag(item)


def named_item(row: Mapping[str, Any]) -> Item:
    """Returns an item with only its name and creation time."""
    item = Item(name=row["name"])
    item.create_time.FromDatetime(row["create_time"])
    return item


def array_of(value: Any) -> NDArray[np.float32]:
    """Converts an embedding that psycopg returns, in text or binary format, to an array."""
    return np.asarray(value.to_numpy() if isinstance(value, Vector) else value, np.float32)
