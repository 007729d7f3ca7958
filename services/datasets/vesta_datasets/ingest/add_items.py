"""Adds media to a dataset: assigns each new item to a split, stores it and publishes events, in one transaction per batch."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from vesta_common.errors import InvalidArgument, Violation
from vesta_common.ids import new_id
from vesta_common.media.annotations import Terms, check_annotations
from vesta_common.messages import copy_of, without
from vesta_common.storage.postgres import Connection
from vesta_contracts.common.v1 import Annotation
from vesta_contracts.datasets.v1 import (
    AcceptedAnnotations,
    CreatedItem,
    Dataset,
    ItemAnnotated,
    ItemCreated,
    NewItem,
    Split,
)

from vesta_datasets.ingest.near_duplicates import NearDuplicates
from vesta_datasets.items import splits
from vesta_datasets.items.accepted_annotations import next_accept_time
from vesta_datasets.items.splits import Shares
from vesta_datasets.store import Store
from vesta_datasets.task_types import DatasetTask, task_type_of


class Added(NamedTuple):
    """A new or an existing item.

    Attributes:
        accepted: the accepted annotations of the item, if the request has annotations for it.
    """

    created: CreatedItem
    accepted: AcceptedAnnotations | None


def add_items(
    store: Store, connection: Connection, dataset_name: str, new_items: Sequence[NewItem], annotator: str
) -> list[CreatedItem]:
    """Adds media as items, all or none. For media that the dataset already has, the existing item is returned.

    Annotations in `new_items` are accepted for items that have no accepted annotations, also for existing items. They do not
    replace accepted annotations.

    Args:
        annotator: the caller, recorded as the annotator of these annotations.

    Raises:
        NotFound: the dataset does not exist.
        InvalidArgument: the taxonomy does not allow the annotations.
    """
    duplicates = NearDuplicates(store, connection, dataset_name, [item.media for item in new_items])
    dataset = store.datasets.get(connection, dataset_name, lock=True, counted=False)
    fields = [f"items[{index}].annotations" for index in range(len(new_items))]
    for error in _errors(store, connection, dataset, new_items, fields):
        if error:
            raise error
    return [added.created for added in _add(store, connection, dataset, new_items, duplicates, annotator)]


def add_valid_items(
    store: Store,
    connection: Connection,
    dataset_name: str,
    new_items: Sequence[NewItem],
    annotator: str,
    known: Collection[str] = (),
) -> list[Added | InvalidArgument]:
    """As `add_items`, but adds the items whose annotations the taxonomy allows, and returns an error for each other one. In order.

    Args:
        known: the SHA-256 of media that the dataset had shortly before, so that they need no search for near-duplicates.
    """
    unknown = [item.media for item in new_items if item.media.sha256 not in known]
    duplicates = NearDuplicates(store, connection, dataset_name, unknown)
    dataset = store.datasets.get(connection, dataset_name, lock=True, counted=False)
    errors = _errors(store, connection, dataset, new_items, ["annotations"] * len(new_items))
    valid = [item for item, error in zip(new_items, errors, strict=True) if error is None]
    added = iter(_add(store, connection, dataset, valid, duplicates, annotator))
    return [error or next(added) for error in errors]


def _add(
    store: Store,
    connection: Connection,
    dataset: Dataset,
    new_items: Sequence[NewItem],
    duplicates: NearDuplicates,
    annotator: str,
) -> list[Added]:
    """Adds valid items to a dataset whose row is locked."""
    known = store.items.lock_by_hash(connection, dataset.name, [item.media.sha256 for item in new_items])
    fresh: dict[str, NewItem] = {}
    for item in new_items:
        if item.media.sha256 not in known:
            fresh.setdefault(item.media.sha256, item)
    created = {}
    if fresh:
        duplicates.update(connection, [item.media for item in fresh.values()])
        placements = _place(duplicates, dataset.name, Shares.of(dataset), list(fresh.values()))
        rows = [
            (name, item.media, item.metadata, placement)
            for item, (name, placement) in zip(fresh.values(), placements, strict=True)
        ]
        store.items.insert(connection, dataset.name, rows)
        created = {media.sha256: _created(name, placement) for name, media, _, placement in rows}
        events = (
            (name, ItemCreated(item=name, media=media, split=created[media.sha256].split)) for name, media, _, _ in rows
        )
        store.publish_all(connection, events)
    existing = {digest: _existing(row) for digest, row in known.items()}
    answers: dict[str, DirectAnswer] = {}
    for item in new_items:
        digest = item.media.sha256
        row = known.get(digest)
        if item.HasField("annotations") and digest not in answers and (row is None or row["accepted"] is None):
            name = created[digest].name if row is None else row["name"]
            control = row is not None and row["control"]
            answers[digest] = DirectAnswer(name, item.annotations.annotations, reviewed=item.reviewed, control=control)
    now_accepted = accept_directly(store, connection, task_type_of(dataset), list(answers.values()), annotator)
    results = []
    for item in new_items:
        digest = item.media.sha256
        result = existing.get(digest) or created[digest]
        accepted = None
        if item.HasField("annotations"):
            accepted = now_accepted.get(result.name) or store.items.whole(
                AcceptedAnnotations.FromString(bytes(known[digest]["accepted"]))
            )
        results.append(Added(result, accepted))
        existing.setdefault(digest, copy_of(result, already_existed=True))
    return results


def _created(name: str, placement: splits.Placement) -> CreatedItem:
    split = Split.Value(f"SPLIT_{placement.split.value}")
    return CreatedItem(name=name, duplicate_of=placement.duplicate_of or "", split=split)


def _existing(row: Mapping[str, Any]) -> CreatedItem:
    return CreatedItem(
        name=row["name"],
        already_existed=True,
        duplicate_of=row["duplicate_of"],
        split=Split.Value(f"SPLIT_{row['split']}"),
    )


def known_media(store: Store, connection: Connection, project: str, new_items: Sequence[NewItem]) -> list[NewItem]:
    """Replaces the media in a request by the media that the project has stored, so that the caller cannot set their properties.

    Raises:
        InvalidArgument: MEDIA_UNKNOWN, the project has no such media; the violation names the entry.
    """
    known = store.items.find_media(connection, project, [item.media.sha256 for item in new_items])
    items = []
    for index, item in enumerate(new_items):
        media = known.get(item.media.sha256)
        given = (item.media.object_key, item.media.thumbnail_key)
        if media is None or given != (media.object_key, media.thumbnail_key):
            what = "is not media of this project; add images through a source"
            raise InvalidArgument(
                f"items[{index}].media {what}",
                reason="MEDIA_UNKNOWN",
                violations=[Violation(f"items[{index}].media", what)],
            )
        items.append(without(item, "media"))
        items[-1].media.CopyFrom(media)
    return items


def _errors(
    store: Store, connection: Connection, dataset: Dataset, new_items: Sequence[NewItem], fields: Sequence[str]
) -> list[InvalidArgument | None]:
    """Returns the error in the annotations of each new item, if any. `fields` has the path of the annotations of each."""
    if not any(item.HasField("annotations") for item in new_items):
        return [None] * len(new_items)
    terms = Terms(store.taxonomies.get(connection, dataset.taxonomy), dataset.task_type)
    checked: dict[tuple[Any, ...], InvalidArgument | None] = {}  # many items of an import have the same label
    errors = []
    for item, field in zip(new_items, fields, strict=True):
        media = item.media
        key = (field, item.annotations.SerializeToString(), media.mime_type, media.width_px, media.height_px)
        if key not in checked:
            checked[key] = _error(item, terms, field)
        errors.append(checked[key])
    return errors


def _error(item: NewItem, terms: Terms, field: str) -> InvalidArgument | None:
    try:
        check_annotations(item.annotations.annotations, item.media, terms, field)
    except InvalidArgument as error:
        return error
    return None


def _place(
    duplicates: NearDuplicates, dataset: str, shares: Shares, new_items: Sequence[NewItem]
) -> list[tuple[str, splits.Placement]]:
    """Returns a name and a placement for each new item, in order."""
    results = []
    for item in new_items:
        name = f"{dataset}/items/{new_id()}"
        placement = splits.place(name, item.media.sha256, duplicates.of(item.media), shares, _asked(item.split))
        duplicates.add(name, item.media, placement)
        results.append((name, placement))
    return results


def _asked(split: Split.ValueType) -> splits.Split | None:
    return None if split == Split.SPLIT_UNSPECIFIED else splits.Split(Split.Name(split).removeprefix("SPLIT_"))


class DirectAnswer(NamedTuple):
    """Annotations of an item that do not come from a task. The row of the item is locked.

    Attributes:
        reviewed: whether a second person has checked them, as stated by the caller.
        control: whether the random control arm drew the item.
        stored: the accepted annotations that they replace.
    """

    item: str
    annotations: Sequence[Annotation]
    reviewed: bool
    control: bool
    stored: AcceptedAnnotations | None = None


def accept_directly(
    store: Store, connection: Connection, task: DatasetTask, answers: Sequence[DirectAnswer], annotator: str
) -> dict[str, AcceptedAnnotations]:
    """Accepts annotations that do not come from a task, and publishes ItemAnnotated for each. Returns what was accepted, by item.

    The last of several answers for one item applies.
    """
    now = store.clock.now()
    accepted = {
        answer.item: AcceptedAnnotations(
            annotations=answer.annotations,
            annotators=[annotator] if annotator else [],
            reviewed=answer.reviewed,
            control=answer.control,
        )
        for answer in answers
    }
    for answer in answers:
        accepted[answer.item].accept_time.FromDatetime(next_accept_time(answer.stored, now))
    reduced = store.items.put_accepted(connection, accepted, task)
    store.publish_all(connection, ((item, ItemAnnotated(item=item, accepted=entry)) for item, entry in reduced.items()))
    return accepted
