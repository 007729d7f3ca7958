"""Items in PostgreSQL, with their accepted annotations."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple

from vesta_common.clock import Clock
from vesta_common.media.large_annotations import Annotated, LargeAnnotations
from vesta_common.messages import copy_of
from vesta_common.resources.filters import Where
from vesta_common.resources.methods import existing
from vesta_common.resources.pages import bad_token
from vesta_common.storage.postgres import Connection
from vesta_contracts.common.v1 import Media
from vesta_contracts.datasets.v1 import AcceptedAnnotations, Item

from vesta_datasets.items.accepted_annotations import latest
from vesta_datasets.items.duplicates import bands
from vesta_datasets.items.objects import figures_of
from vesta_datasets.items.splits import Placement
from vesta_datasets.search.segments import Ids, ids_of
from vesta_datasets.store.item_lists import ListPosition, ids_statement, list_rows, matching_statement
from vesta_datasets.store.rows import item_of, named_item
from vesta_datasets.store.statements import queries
from vesta_datasets.task_types import DatasetTask

_SIGN = 1 << 63


class LockedItem(NamedTuple):
    """The state of a locked item that is needed to accept annotations.

    Attributes:
        accepted: the accepted annotations; None if there are none.
        control: whether the random control arm drew it.
    """

    media: Media
    accepted: AcceptedAnnotations | None
    control: bool


class AcceptResult(Enum):
    """The result of storing accepted annotations."""

    KEPT = "it stands"
    OUTDATED = "later annotations were accepted"
    GONE = "the item was deleted"


class Items:
    """The table of items."""

    def __init__(self, clock: Clock, large: LargeAnnotations) -> None:
        self._clock = clock
        self._large = large

    def lock_by_hash(self, connection: Connection, dataset: str, hashes: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Locks the items of a dataset with these SHA-256 hashes until the end of the transaction. Returns rows by hash."""
        rows = queries.lock_items_by_hash(connection, dataset=dataset, hashes=list(hashes))
        return {row["sha256"]: row for row in rows}

    def find_media(self, connection: Connection, project: str, hashes: Sequence[str]) -> dict[str, Media]:
        """Returns the media with these SHA-256 hashes that any item of the project has, by hash."""
        rows = queries.list_known_media(connection, parent=project, hashes=list(hashes))
        return {row["sha256"]: Media.FromString(bytes(row["media"])) for row in rows}

    def find_by_file(self, connection: Connection, dataset: str, hashes: Sequence[str]) -> dict[str, Media]:
        """Returns the media of items of a dataset by the SHA-256 of the file that was ingested, or of the stored image.

        Items of versions without the column `original_sha256` are found only by the stored image.
        """
        rows = queries.list_items_by_file(connection, dataset=dataset, hashes=list(hashes))
        return {row["file_sha256"]: Media.FromString(bytes(row["media"])) for row in rows}

    def find_known(self, connection: Connection, dataset: str, hashes: Sequence[str]) -> set[str]:
        """Returns those of the SHA-256 hashes that the media of a dataset's items have."""
        return {row["sha256"] for row in queries.list_known_hashes(connection, dataset=dataset, hashes=list(hashes))}

    def last_number(self, connection: Connection, dataset: str) -> int:
        """Returns the greatest number of an item of a dataset, for `list_added`."""
        return int(queries.find_last_number(connection, dataset=dataset))

    def list_added(self, connection: Connection, dataset: str, last_number: int) -> list[dict[str, Any]]:
        """Returns the items that were added to a dataset after `last_number` was read. `perceptual_hash` is unsigned."""
        return [_unsigned(row) for row in queries.list_added(connection, dataset=dataset, number=last_number)]

    def list_placed(self, connection: Connection, names: Sequence[str]) -> list[dict[str, Any]]:
        """Returns name, group and split of those of the items that exist."""
        return list(queries.list_placed(connection, names=list(names))) if names else []

    def find_candidates(self, connection: Connection, dataset: str, probes: Sequence[int]) -> list[dict[str, Any]]:
        """Returns items that can be near-duplicates. `perceptual_hash` is unsigned."""
        rows = queries.find_candidates(connection, dataset=dataset, probes=sorted(set(probes)))
        return [_unsigned(row) for row in rows]

    def insert(
        self, connection: Connection, dataset: str, rows: Iterable[tuple[str, Media, Mapping[str, str], Placement]]
    ) -> None:
        """Inserts items, given as name, media, metadata and placement."""
        now = self._clock.now()
        with (
            connection.cursor() as cursor,
            cursor.copy(
                "COPY items (name, dataset, sha256, media, file_name, source, metadata, split, group_name, duplicate_of, straddles, "
                "perceptual_hash, bands, original_sha256, create_time, update_time) FROM STDIN"
            ) as copy,
        ):
            for name, media, metadata, placement in rows:
                copy.write_row(
                    (
                        name,
                        dataset,
                        media.sha256,
                        media.SerializeToString(),
                        media.provenance.file_name,
                        media.provenance.source,
                        json.dumps(dict(metadata)),
                        placement.split.value,
                        placement.group,
                        placement.duplicate_of or "",
                        placement.straddles,
                        media.perceptual_hash - (1 << 64) if media.perceptual_hash >= _SIGN else media.perceptual_hash,
                        list(bands(media.perceptual_hash)),
                        _other_original(media),
                        now,
                        now,
                    )
                )

    def get(self, connection: Connection, name: str) -> Item:
        """Returns an item, with large annotations. Raises NotFound."""
        item = item_of(existing(queries.find_item(connection, name=name), name))
        if item.accepted.HasField("stored"):
            item.accepted.CopyFrom(self.whole(item.accepted))
        if item.prediction.HasField("stored"):
            item.prediction.CopyFrom(self.whole(item.prediction))
        return item

    def get_many(self, connection: Connection, names: Sequence[str]) -> list[Item]:
        """Returns items in the order of `names`. Raises NotFound for the first that does not exist."""
        items = {row["name"]: item_of(row) for row in queries.find_items(connection, names=list(names))}
        return [existing(items.get(name), name) for name in names]

    def list_page(
        self,
        connection: Connection,
        dataset: str,
        where: Where,
        after: tuple[datetime | None, str],
        limit: int,
        *,
        names_only: bool = False,
    ) -> list[Item]:
        """Lists the items of a dataset in order of creation.

        Args:
            after: creation time and name of the item that the page follows. If the time is None, it is read.
            names_only: whether the items have only name and creation time.

        Raises:
            InvalidArgument: PAGE_TOKEN_INVALID, the time is None, and the item does not exist.
        """
        create_time, name = after
        if create_time is None:
            row = queries.find_item(connection, name=name)
            if row is None:
                raise bad_token("the last item of the previous page was deleted")
            create_time = row["create_time"]
        position = ListPosition(create_time, name)
        rows = list_rows(connection, dataset, where, position, limit, names_only=names_only)
        return [named_item(row) if names_only else item_of(row) for row in rows]

    def list_ids(self, connection: Connection, dataset: str, where: Where, limit: int | None) -> Ids:
        """Returns the last parts of the names of up to `limit` items that match a filter, in no order. Some may occur several times."""
        statement, values = ids_statement(dataset, where, limit)
        row = connection.execute(statement.encode(), values).fetchone()
        return ids_of(bytes(row["ids"]).split(b"\n") if row and row["ids"] else [])

    def list_matching(self, connection: Connection, names: Sequence[str], where: Where, limit: int) -> list[str]:
        """Returns the first of the items that match a filter, in the order of the names."""
        statement, values = matching_statement(names, where, limit)
        return [row["name"] for row in connection.execute(statement.encode(), values)]

    def lock(self, connection: Connection, names: Sequence[str]) -> dict[str, LockedItem]:
        """Locks items until the end of the transaction. Returns them by name, with references to large annotations.

        Raises:
            NotFound: for the first that does not exist.
        """
        rows = {row["name"]: row for row in queries.lock_items(connection, names=list(names))}
        for name in names:
            existing(rows.get(name), name)
        return {name: _locked(row) for name, row in rows.items()}

    def find_locked(self, connection: Connection, name: str) -> LockedItem | None:
        """Locks an item until the end of the transaction; returns it with large annotations, None if it does not exist."""
        row = next(iter(queries.lock_items(connection, names=[name])), None)
        return _locked(row, self.whole) if row is not None else None

    def update_metadata(self, connection: Connection, name: str, metadata: Mapping[str, str]) -> None:
        queries.update_metadata(connection, name=name, metadata=json.dumps(dict(metadata)), now=self._clock.now())

    def delete(self, connection: Connection, name: str) -> None:
        """Deletes an item. If it is the first of its group, the oldest remaining item of the group takes its place."""
        queries.refound_group(connection, name=name, now=self._clock.now())
        queries.delete_item(connection, name=name)

    def accept(self, connection: Connection, name: str, new: AcceptedAnnotations, task: DatasetTask) -> AcceptResult:
        """Stores the accepted annotations of an item, unless it has later ones. Events can arrive late, and can be replayed."""
        item = self.find_locked(connection, name)
        if item is None:
            return AcceptResult.GONE
        new = copy_of(new, control=new.control or item.control)
        current = latest(item.accepted, new)
        if current != item.accepted:
            self.put_accepted(connection, {name: current}, task)
        return AcceptResult.KEPT if current == new else AcceptResult.OUTDATED

    def put_accepted(
        self, connection: Connection, accepted: Mapping[str, AcceptedAnnotations], task: DatasetTask
    ) -> dict[str, AcceptedAnnotations]:
        """Stores the accepted annotations that apply, by item. The caller has determined them with the rows locked.

        Returns:
            what the rows contain, and events may: references to large annotations.
        """
        if not accepted:
            return {}
        numbers: dict[bytes, int] = {}  # by annotations as serialized; many items of an import have the same
        distinct: list[tuple[AcceptedAnnotations, AcceptedAnnotations]] = []  # with references to large ones, and whole
        answers = []
        for name, answer in accepted.items():
            number = numbers.setdefault(answer.SerializeToString(), len(distinct))
            if number == len(distinct):
                distinct.append((self.reduced(name, answer), answer))
            answers.append(number)
        figures = [figures_of(answer.annotations) for _, answer in distinct]
        queries.put_accepted(
            connection,
            names=list(accepted),
            answers=answers,
            accepted=[answer.SerializeToString() for answer, _ in distinct],
            labels=[json.dumps(task.labels(answer.annotations)) for _, answer in distinct],
            shape_concepts=[json.dumps(task.other_concepts(answer.annotations)) for _, answer in distinct],
            reviewed=[answer.reviewed for _, answer in distinct],
            control=[answer.control for _, answer in distinct],
            object_counts=[found.object_count for found in figures],
            duplicate_counts=[found.duplicate_count for found in figures],
            area_mins=[found.area_min_px for found in figures],
            area_maxs=[found.area_max_px for found in figures],
            now=self._clock.now(),
        )
        return {name: distinct[number][0] for name, number in zip(accepted, answers, strict=True)}

    def reduced(self, name: str, message: Annotated) -> Annotated:
        """Returns what rows and events contain: a reference to large annotations, which are stored."""
        return self._large.reduced(name, message)

    def whole(self, message: Annotated) -> Annotated:
        """Returns what a row or an event contains, with large annotations instead of a reference.

        Raises:
            NotFound, DataLoss: their object is missing or corrupt.
        """
        return self._large.whole(message)


def _locked(
    row: Mapping[str, Any], read: Callable[[AcceptedAnnotations], AcceptedAnnotations] = lambda accepted: accepted
) -> LockedItem:
    accepted = None if row["accepted"] is None else read(AcceptedAnnotations.FromString(bytes(row["accepted"])))
    return LockedItem(Media.FromString(bytes(row["media"])), accepted, row["control"])


def _unsigned(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "perceptual_hash": row["perceptual_hash"] % (1 << 64)}


def _other_original(media: Media) -> str:
    """Returns the SHA-256 of the ingested file if the stored image differs from it; otherwise an empty string."""
    return media.provenance.original_sha256 if media.provenance.original_sha256 != media.sha256 else ""
