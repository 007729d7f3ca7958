"""Taxonomies, datasets, items and snapshots in PostgreSQL."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pgvector import Vector
from pgvector.psycopg import register_vector
from vesta_common import outbox
from vesta_common.clock import Clock
from vesta_common.etags import with_etag
from vesta_common.events import new_event
from vesta_common.filters import Where
from vesta_common.messages import set_times, without
from vesta_common.names import parent_of
from vesta_common.postgres import Connection, Postgres, load_queries
from vesta_common.resources import existing
from vesta_contracts.common.v1 import ImageScores, Media
from vesta_contracts.datasets.v1 import (
    AcceptedAnnotations,
    AnnotationList,
    Dataset,
    DatasetCounts,
    Item,
    Snapshot,
    Split,
    Taxonomy,
)

from vesta_datasets.annotations import labels_of
from vesta_datasets.duplicates import bands
from vesta_datasets.manifest import ManifestRow
from vesta_datasets.splits import Placement

R = TypeVar("R", Taxonomy, Dataset)

SERVICE = "datasets"
_SIGN = 1 << 63

queries = load_queries("vesta_datasets")


POOL_ROWS_AT_ONCE = 1_000


class PoolLimits(NamedTuple):
    """Most items that selection looks at; of more it sees a random sample.

    Attributes:
        free_max: that it may choose.
        held_max: that are labelled or on their way, and with which it compares.
    """

    free_max: int = 16_384
    held_max: int = 4_096


POOL_LIMITS = PoolLimits()


@dataclass(frozen=True)
class PoolRow:
    """An item as selection sees it.

    Attributes:
        held: labelled or on its way to the experts: never chosen, and what lies near it counts as covered.
    """

    name: str
    held: bool
    scores: ImageScores | None


@dataclass(frozen=True, eq=False)
class Candidates:
    """What selection chooses from.

    Attributes:
        rows: in order of their names.
        embeddings: `(N, D)`, a line a row.
        embedded: `(N,)`, whether the row has an embedding; its line is 0 where it has none.
        free_count: how many items there are to choose from, whether they are in `rows` or not.
    """

    rows: Sequence[PoolRow]
    embeddings: NDArray[np.float32]
    embedded: NDArray[np.bool_]
    free_count: int


class LockedItem(NamedTuple):
    """What to know of an item before something is accepted for it.

    Attributes:
        control: whether the random control arm drew it.
    """

    media: Media
    control: bool


class ScoringModel(NamedTuple):
    """Who scores: a model version, as a deployment's change of the number `generation` brought it."""

    version: str
    deployment: str
    generation: int


class Store:
    """The service's tables."""

    def __init__(self, postgres: Postgres, clock: Clock) -> None:
        self.postgres = postgres
        self.clock = clock

    def publish(self, connection: Connection, subject: str, *payloads: Any) -> None:
        """Publishes events about one resource in the caller's transaction."""
        now = self.clock.now()
        outbox.publish(connection, *(new_event(SERVICE, subject, payload, now) for payload in payloads))

    # Taxonomies

    def insert_taxonomy(self, connection: Connection, taxonomy: Taxonomy) -> None:
        """Keeps a new taxonomy. Raises psycopg.errors.UniqueViolation where the name is taken."""
        queries.insert_taxonomy(
            connection, name=taxonomy.name, parent=parent_of(taxonomy.name), body=_body(taxonomy), now=self.clock.now()
        )

    def get_taxonomy(self, connection: Connection, name: str, *, lock: bool = False) -> Taxonomy:
        """A taxonomy. Raises NotFound."""
        find = queries.lock_taxonomy if lock else queries.find_taxonomy
        return _resource(Taxonomy, existing(find(connection, name=name), name))

    def list_taxonomies(self, connection: Connection, parent: str, after: str, limit: int) -> list[Taxonomy]:
        """A project's taxonomies after a name, by name."""
        rows = queries.list_taxonomies(connection, parent=parent, after=after, limit=limit)
        return [_resource(Taxonomy, row) for row in rows]

    def update_taxonomy(self, connection: Connection, taxonomy: Taxonomy) -> None:
        """Keeps a changed taxonomy."""
        queries.update_taxonomy(connection, name=taxonomy.name, body=_body(taxonomy), now=self.clock.now())

    def delete_taxonomy(self, connection: Connection, name: str) -> None:
        """Removes a taxonomy. Raises psycopg.errors.ForeignKeyViolation where a dataset uses it."""
        queries.delete_taxonomy(connection, name=name)

    def used_labels(self, connection: Connection, taxonomy: str) -> set[str]:
        """Concepts that items bear."""
        return {row["label"] for row in queries.list_used_labels(connection, taxonomy=taxonomy)}

    def borne_labels(self, connection: Connection, dataset: str) -> set[str]:
        """Concepts that items of one dataset bear."""
        return {row["label"] for row in queries.list_borne_labels(connection, dataset=dataset)}

    # Datasets

    def insert_dataset(self, connection: Connection, dataset: Dataset) -> None:
        """Keeps a new dataset. Raises psycopg.errors.UniqueViolation or ForeignKeyViolation."""
        queries.insert_dataset(
            connection,
            name=dataset.name,
            parent=parent_of(dataset.name),
            taxonomy=dataset.taxonomy,
            body=_body(dataset, "counts"),
            now=self.clock.now(),
        )

    def get_dataset(self, connection: Connection, name: str, *, lock: bool = False, counted: bool = True) -> Dataset:
        """A dataset, with its counts where they are wanted. Raises NotFound."""
        find = queries.lock_dataset if lock else queries.find_dataset
        row = existing(find(connection, name=name), name)
        return _dataset(row, self.counts(connection, [name])[name] if counted else None)

    def list_datasets(self, connection: Connection, parent: str, after: str, limit: int) -> list[Dataset]:
        """A project's datasets after a name, by name."""
        rows = list(queries.list_datasets(connection, parent=parent, after=after, limit=limit))
        counts = self.counts(connection, [row["name"] for row in rows])
        return [_dataset(row, counts[row["name"]]) for row in rows]

    def update_dataset(self, connection: Connection, dataset: Dataset) -> None:
        """Keeps a changed dataset."""
        queries.update_dataset(
            connection,
            name=dataset.name,
            body=_body(dataset, "counts"),
            taxonomy=dataset.taxonomy,
            now=self.clock.now(),
        )

    def delete_dataset(self, connection: Connection, name: str) -> None:
        """Removes a dataset with its items and snapshots."""
        queries.delete_dataset(connection, name=name)

    def counts(self, connection: Connection, datasets: Sequence[str]) -> dict[str, DatasetCounts]:
        """How much each of these datasets holds; scores are counted of the model version that scored it last."""
        rows = queries.count_items(connection, datasets=list(datasets))
        return {row.pop("dataset"): DatasetCounts(**row) for row in rows}

    def find_scored_by(self, connection: Connection, dataset: str) -> str:
        """The model version that scored a dataset last; empty where none did."""
        row = queries.find_dataset(connection, name=dataset)
        return row["scored_by"] if row else ""

    # Items

    def lock_by_hash(self, connection: Connection, dataset: str, hashes: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Items of a dataset that bear one of these SHA-256, by it, kept from others until the transaction ends."""
        rows = queries.lock_items_by_hash(connection, dataset=dataset, hashes=list(hashes))
        return {row["sha256"]: row for row in rows}

    def find_media(self, connection: Connection, project: str, hashes: Sequence[str]) -> dict[str, Media]:
        """Media of these SHA-256 that some item of the project bears, by it."""
        rows = queries.list_known_media(connection, datasets=f"{project}/datasets/%", hashes=list(hashes))
        return {row["sha256"]: Media.FromString(bytes(row["media"])) for row in rows}

    def find_candidates(self, connection: Connection, dataset: str, probes: Sequence[int]) -> list[dict[str, Any]]:
        """Items that may be near-duplicates, with `perceptual_hash` unsigned."""
        rows = queries.find_candidates(connection, dataset=dataset, probes=sorted(set(probes)))
        return [{**row, "perceptual_hash": row["perceptual_hash"] % (1 << 64)} for row in rows]

    def insert_items(
        self, connection: Connection, dataset: str, rows: Iterable[tuple[str, Media, Mapping[str, str], Placement]]
    ) -> None:
        """Keeps new items: name, media, metadata and placement of each."""
        now = self.clock.now()
        with (
            connection.cursor() as cursor,
            cursor.copy(
                "COPY items (name, dataset, sha256, media, file_name, source, metadata, split, group_name, duplicate_of, straddles, "
                "perceptual_hash, bands, create_time, update_time) FROM STDIN"
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
                        now,
                        now,
                    )
                )

    def get_item(self, connection: Connection, name: str) -> Item:
        """An item. Raises NotFound."""
        return _item(existing(queries.find_item(connection, name=name), name))

    def list_items(self, connection: Connection, dataset: str, where: Where, after: str, limit: int) -> list[Item]:
        """Items of a dataset after a name, in order of creation."""
        statement = (  # the filter is compiled to columns and placeholders of our own
            "SELECT * FROM items WHERE dataset = %(dataset)s AND name > %(after)s "
            f"AND {where.sql} ORDER BY name LIMIT %(limit)s"
        )
        values = {"dataset": dataset, "after": after, "limit": limit, **where.parameters}
        return [_item(row) for row in connection.execute(statement.encode(), values)]

    def lock_items(self, connection: Connection, names: Sequence[str]) -> dict[str, LockedItem]:
        """Items by name, kept from others until the transaction ends. Raises NotFound for the first that is missing."""
        rows = {row["name"]: row for row in queries.lock_items(connection, names=list(names))}
        for name in names:
            existing(rows.get(name), name)
        return {name: LockedItem(Media.FromString(bytes(row["media"])), row["control"]) for name, row in rows.items()}

    def update_metadata(self, connection: Connection, name: str, metadata: Mapping[str, str]) -> None:
        """Replaces an item's metadata."""
        queries.update_metadata(connection, name=name, metadata=json.dumps(dict(metadata)), now=self.clock.now())

    def delete_item(self, connection: Connection, name: str) -> None:
        """Removes an item; of those that repeat it the oldest takes its place."""
        queries.refound_group(connection, name=name, now=self.clock.now())
        queries.delete_item(connection, name=name)

    def accept(self, connection: Connection, name: str, accepted: AcceptedAnnotations) -> bool:
        """Keeps what is accepted for an item; False where the item is gone."""
        count = queries.accept(
            connection,
            name=name,
            accepted=accepted.SerializeToString(),
            labels=list(labels_of(accepted.annotations)),
            reviewed=accepted.reviewed,
            control=accepted.control,
            now=self.clock.now(),
        )
        return bool(count)

    def put_scores(
        self,
        connection: Connection,
        dataset: str,
        model: ScoringModel,
        rows: Sequence[tuple[str, ImageScores]],
    ) -> None:
        """Keeps what a model says of items; what an older generation of its deployment says changes nothing."""
        with connection.cursor() as cursor:
            cursor.executemany(
                queries.put_scores.sql,
                [
                    {
                        "name": name,
                        "scores": scores.SerializeToString(),
                        "scored_by": model.version,
                        "deployment": model.deployment,
                        "generation": model.generation,
                        "predicted": scores.scores[0].concept if scores.scores else "",
                        "score": scores.scores[0].score if scores.scores else 0.0,
                        "margin": scores.margin,
                        "uncertain": scores.uncertain,
                    }
                    for name, scores in rows
                ],
            )
        queries.set_scored_by(
            connection,
            name=dataset,
            scored_by=model.version,
            deployment=model.deployment,
            generation=model.generation,
        )

    def put_embeddings(
        self,
        connection: Connection,
        dataset: str,
        model: ScoringModel,
        space: str,
        rows: Sequence[tuple[str, NDArray[np.float32]]],
    ) -> None:
        """Keeps embeddings of items whose scores were put before; items that are gone, or know newer ones, are passed over."""
        register_vector(connection)
        with connection.cursor() as cursor:
            cursor.executemany(
                queries.put_embedding.sql,
                [
                    {
                        "item": name,
                        "dataset": dataset,
                        "space": space,
                        "embedding": Vector(values),
                        "deployment": model.deployment,
                        "generation": model.generation,
                    }
                    for name, values in rows
                ],
            )

    def find_embeddings(
        self, connection: Connection, items: Sequence[str]
    ) -> dict[str, tuple[str, NDArray[np.float32]]]:
        """The embeddings of those items that have one, each with its space."""
        register_vector(connection)
        rows = queries.find_embeddings(connection, items=list(items))
        return {row["item"]: (row["space"], _array(row["embedding"])) for row in rows}

    def find_embedding(self, connection: Connection, item: str) -> tuple[str, NDArray[np.float32]] | None:
        """An item's embedding and its space."""
        return self.find_embeddings(connection, [item]).get(item)

    def find_space(self, connection: Connection, dataset: str) -> str:
        """The space that most items of a dataset are embedded in; empty where none is."""
        return queries.find_space(connection, dataset=dataset) or ""

    def find_dimension(self, connection: Connection, dataset: str, space: str) -> int:
        """How many numbers the embeddings of a space have; 0 where there are none."""
        return int(queries.find_dimension(connection, dataset=dataset, space=space) or 0)

    def neighbours(
        self, connection: Connection, dataset: str, space: str, query: NDArray[np.float32], where: Where, limit: int
    ) -> list[tuple[Item, float]]:
        """The items nearest to a vector by cosine distance, nearest first."""
        register_vector(connection)
        statement = (  # as in list_items
            "SELECT items.*, embeddings.embedding <=> %(query)s AS distance FROM embeddings JOIN items ON items.name = embeddings.item "
            f"WHERE embeddings.dataset = %(dataset)s AND embeddings.space = %(space)s AND {where.sql} "
            "ORDER BY distance, items.name LIMIT %(limit)s"
        )
        values = {"query": Vector(query), "dataset": dataset, "space": space, "limit": limit, **where.parameters}
        return [(_item(row), row["distance"]) for row in connection.execute(statement.encode(), values)]

    def read_candidates(
        self,
        connection: Connection,
        dataset: str,
        space: str,
        excluded: Sequence[str],
        seed: int,
        limits: PoolLimits = POOL_LIMITS,
    ) -> Candidates:
        """The training side, duplicates aside, read row by row into one array.

        Args:
            space: which embeddings are wanted.
            excluded: items on their way already.
            seed: draws the sample where there are more items than the limits allow.
        """
        register_vector(connection)
        wanted = {"dataset": dataset, "space": space, "excluded": list(excluded)}
        found = queries.count_pool(connection, **wanted)
        count = min(found["free_count"], limits.free_max) + min(found["held_count"], limits.held_max)
        embeddings = np.zeros((count, found["dimension"] or 0), np.float32)
        embedded = np.zeros(count, np.bool_)
        rows: list[PoolRow] = []
        with connection.cursor("pool") as cursor:
            cursor.itersize = POOL_ROWS_AT_ONCE
            cursor.execute(queries.list_pool.sql, {**wanted, "seed": seed, **limits._asdict()}, binary=True)
            for index, row in zip(range(count), cursor):  # noqa: B905 - items that came meanwhile wait for the next call
                scores = ImageScores.FromString(bytes(row["scores"])) if row["scores"] is not None else None
                rows.append(PoolRow(row["name"], row["held"], scores))
                if row["embedding"] is not None:
                    embeddings[index] = _array(row["embedding"])
                    embedded[index] = True
        return Candidates(rows, embeddings[: len(rows)], embedded[: len(rows)], found["free_count"])

    # Snapshots

    def read_manifest_rows(self, dataset: str) -> list[ManifestRow]:
        """Every item that takes part, as a snapshot holds it: one statement, and nothing held while the rows are made sense of."""
        with self.postgres.transaction() as connection:
            rows = queries.list_for_snapshot(connection, dataset=dataset)
        return [_manifest_row(row) for row in rows]

    def insert_snapshot(self, connection: Connection, snapshot: Snapshot, now: datetime) -> None:
        """Keeps a snapshot. Raises psycopg.errors.UniqueViolation where the name is taken."""
        dataset = "/".join(snapshot.name.split("/")[:4])
        queries.insert_snapshot(
            connection, name=snapshot.name, dataset=dataset, body=snapshot.SerializeToString(), now=now
        )

    def get_snapshot(self, connection: Connection, name: str) -> Snapshot:
        """A snapshot. Raises NotFound."""
        return Snapshot.FromString(bytes(existing(queries.find_snapshot(connection, name=name), name)["body"]))

    def list_snapshots(
        self, connection: Connection, dataset: str, before: tuple[datetime, str], limit: int
    ) -> list[Snapshot]:
        """A dataset's snapshots, newest first."""
        rows = queries.list_snapshots(
            connection, dataset=dataset, before_time=before[0], before_name=before[1], limit=limit
        )
        return [Snapshot.FromString(bytes(row["body"])) for row in rows]


def _array(value: Any) -> NDArray[np.float32]:
    return np.asarray(value.to_numpy() if isinstance(value, Vector) else value, np.float32)


def _body(resource: Taxonomy | Dataset, *counted: str) -> bytes:
    """What is kept of a resource: all but what follows from its row."""
    return without(resource, "create_time", "update_time", "etag", *counted).SerializeToString(deterministic=True)


def _resource(kind: type[R], row: dict[str, Any]) -> R:
    resource = kind.FromString(bytes(row["body"]))
    set_times(resource, row, "create_time", "update_time")
    return with_etag(resource)


def _dataset(row: dict[str, Any], counts: DatasetCounts | None) -> Dataset:
    dataset = _resource(Dataset, row)
    if counts is not None:
        dataset.counts.CopyFrom(counts)
    return dataset


def _item(row: dict[str, Any]) -> Item:
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


def _manifest_row(row: dict[str, Any]) -> ManifestRow:
    media = Media.FromString(bytes(row["media"]))
    facts: dict[str, Any] = {}
    if row["accepted"] is not None:
        accepted = AcceptedAnnotations.FromString(bytes(row["accepted"]))
        facts = {
            "labels": tuple(sorted(row["labels"])),
            "annotations": AnnotationList(annotations=accepted.annotations).SerializeToString(deterministic=True),
            "annotators": tuple(accepted.annotators),
            "reviewer": accepted.reviewer,
            "reviewed": accepted.reviewed,
            "control": accepted.control,
            "task": accepted.task,
            "model_version": accepted.model_version,
            "accept_time": accepted.accept_time.ToDatetime(UTC),
        }
    return ManifestRow(
        name=row["name"],
        sha256=row["sha256"],
        object_key=media.object_key,
        mime_type=media.mime_type,
        width_px=media.width_px,
        height_px=media.height_px,
        split=row["split"],
        **facts,
    )
