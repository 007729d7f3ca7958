"""Rows of more than one table ⇄ messages and arrays. Pure."""

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pgvector import Vector
from vesta_common.etags import with_etag
from vesta_common.messages import set_times, without
from vesta_contracts.common.v1 import Media
from vesta_contracts.datasets.v1 import Dataset, Item, Split, Taxonomy

R = TypeVar("R", Taxonomy, Dataset)


def body_of(resource: Taxonomy | Dataset, *counted: str) -> bytes:
    """What is kept of a resource: all but what follows from its row."""
    return without(resource, "create_time", "update_time", "etag", *counted).SerializeToString(deterministic=True)


def resource_of(kind: type[R], row: Mapping[str, Any]) -> R:
    """The resource of a row with a body."""
    resource = kind.FromString(bytes(row["body"]))
    set_times(resource, row, "create_time", "update_time")
    return with_etag(resource)


def item_of(row: Mapping[str, Any]) -> Item:
    """The item of a row."""
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
        item.scores.ParseFromString(bytes(row["scores"]))
    set_times(item, row, "create_time", "update_time")
    return with_etag(item)


def array_of(value: Any) -> NDArray[np.float32]:
    """The numbers of an embedding, as psycopg answers it in text or binary."""
    return np.asarray(value.to_numpy() if isinstance(value, Vector) else value, np.float32)
