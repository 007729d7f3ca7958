"""Adds media to a dataset: assigns each new item to a split, stores it and publishes events, in one transaction per batch."""

from collections.abc import Sequence

from vesta_common.errors import InvalidArgument, Violation
from vesta_common.ids import new_id
from vesta_common.media.annotations import Terms, check_annotations
from vesta_common.messages import without
from vesta_common.storage.postgres import Connection
from vesta_contracts.common.v1 import Annotation, Media
from vesta_contracts.datasets.v1 import (
    AcceptedAnnotations,
    CreatedItem,
    Dataset,
    ItemAnnotated,
    ItemCreated,
    NewItem,
    Split,
)

from vesta_datasets.items import splits
from vesta_datasets.items.accepted_annotations import next_accept_time
from vesta_datasets.items.duplicates import DISTANCE_MAX_BITS, DuplicateIndex, Hashed, near, probes
from vesta_datasets.store import Store


def add_items(
    store: Store, connection: Connection, dataset_name: str, new_items: Sequence[NewItem], annotator: str
) -> list[CreatedItem]:
    """Adds media as items. For media that the dataset already has, the existing item is returned.

    Annotations in `new_items` are accepted for items that have no accepted annotations, also for existing items. They do not
    replace accepted annotations.

    Args:
        annotator: the caller, recorded as the annotator of these annotations.

    Raises:
        NotFound: the dataset does not exist.
        InvalidArgument: the taxonomy does not allow the annotations.
    """
    dataset = store.datasets.get(connection, dataset_name, lock=True, counted=False)
    _check(store, connection, dataset, new_items)
    known = store.items.lock_by_hash(connection, dataset_name, [item.media.sha256 for item in new_items])
    fresh: dict[str, NewItem] = {}
    for item in new_items:
        if item.media.sha256 not in known:
            fresh.setdefault(item.media.sha256, item)
    placements = _place(store, connection, dataset, list(fresh.values()))
    rows = [
        (placement_name, item.media, item.metadata, placement)
        for item, (placement_name, placement) in zip(fresh.values(), placements, strict=True)
    ]
    store.items.insert(connection, dataset_name, rows)
    for name, media, _, placement in rows:
        split = Split.Value(f"SPLIT_{placement.split.value}")
        store.publish(connection, name, ItemCreated(item=name, media=media, split=split))
    created = {
        media.sha256: (name, placement.duplicate_of or "", placement.split.value) for name, media, _, placement in rows
    }
    existing = {digest: (row["name"], row["duplicate_of"], row["split"]) for digest, row in known.items()}
    decided = {digest for digest, row in known.items() if row["accepted"] is not None}
    seen: set[str] = set()
    results = []
    for item in new_items:
        digest = item.media.sha256
        name, duplicate_of, split_name = created.get(digest) or existing[digest]
        existed = digest in existing or digest in seen
        seen.add(digest)
        if item.HasField("annotations") and digest not in decided:
            given = item.annotations.annotations
            accept_directly(store, connection, name, given, annotator, reviewed=item.reviewed)
            decided.add(digest)
        results.append(
            CreatedItem(
                name=name, already_existed=existed, duplicate_of=duplicate_of, split=Split.Value(f"SPLIT_{split_name}")
            )
        )
    return results


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


def _check(store: Store, connection: Connection, dataset: Dataset, new_items: Sequence[NewItem]) -> None:
    """Checks the annotations of all new items before anything is stored."""
    if not any(item.HasField("annotations") for item in new_items):
        return
    taxonomy = store.taxonomies.get(connection, dataset.taxonomy)
    for index, item in enumerate(new_items):
        terms = Terms(taxonomy, item.media, dataset.multi_label)
        check_annotations(item.annotations.annotations, terms, f"items[{index}].annotations")


def _place(
    store: Store, connection: Connection, dataset: Dataset, new_items: Sequence[NewItem]
) -> list[tuple[str, splits.Placement]]:
    """Returns a name and a placement for each new item, in order. Items of the same batch can be near-duplicates of each other too."""
    shares = splits.Shares.of(dataset)
    all_probes = [probe for item in new_items for probe in probes(item.media.perceptual_hash, DISTANCE_MAX_BITS)]
    placed: dict[str, splits.Placed] = {}
    index = DuplicateIndex()
    for row in store.items.find_candidates(connection, dataset.name, all_probes) if all_probes else ():
        placed[row["name"]] = splits.Placed(row["name"], row["group_name"], splits.Split(row["split"]))
        index.add(Hashed(row["name"], row["perceptual_hash"]))
    results = []
    for item in new_items:
        name = f"{dataset.name}/items/{new_id()}"
        media: Media = item.media
        neighbours = index.near(media.perceptual_hash, DISTANCE_MAX_BITS)
        ordered = [placed[hashed.name] for hashed in near(media.perceptual_hash, neighbours, DISTANCE_MAX_BITS)]
        placement = splits.place(name, media.sha256, ordered, shares, _asked(item.split))
        placed[name] = splits.Placed(name, placement.group, placement.split)
        index.add(Hashed(name, media.perceptual_hash))
        results.append((name, placement))
    return results


def _asked(split: Split.ValueType) -> splits.Split | None:
    return None if split == Split.SPLIT_UNSPECIFIED else splits.Split(Split.Name(split).removeprefix("SPLIT_"))


def accept_directly(
    store: Store,
    connection: Connection,
    item: str,
    annotations: Sequence[Annotation],
    annotator: str,
    *,
    reviewed: bool,
    stored: AcceptedAnnotations | None = None,
) -> None:
    """Accepts annotations that do not come from a task, and publishes ItemAnnotated.

    Args:
        reviewed: whether a second person has checked them, as stated by the caller.
        stored: the currently accepted annotations of the item, read with its row locked.
    """
    accepted = AcceptedAnnotations(
        annotations=annotations,
        annotators=[annotator] if annotator else [],
        reviewed=reviewed,
        control=stored is not None and stored.control,
    )
    accepted.accept_time.FromDatetime(next_accept_time(stored, store.clock.now()))
    store.items.accept(connection, item, accepted)
    store.publish(connection, item, ItemAnnotated(item=item, accepted=accepted))
