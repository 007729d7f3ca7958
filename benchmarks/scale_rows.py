"""Inserts items without images into a dataset, as rows, so that a dataset of a million items exists within minutes.

The rows are as the datasets service writes them: scored, embedded, and a share of them labelled. Names, hashes and file
names are numbered, so that every item is different, and no two are near-duplicates by their perceptual hash.
"""

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pgvector import Vector
from pgvector.psycopg import register_vector
from vesta_common.storage.postgres import Connection
from vesta_contracts.common.v1 import Annotation, ConceptScore, ImageLabel, Media, Prediction, Provenance
from vesta_contracts.datasets.v1 import AcceptedAnnotations

Integers = NDArray[np.int64]
Floats = NDArray[np.float32]

CONCEPTS = tuple(f"concept-{index}" for index in range(10))
SOURCES = 4
SOURCE_RUN = 25_000  # items of one source in a row
ROWS_AT_ONCE = 25_000
LABELLED_EVERY = 20
EMBEDDING_SPACE = "scale"
EMBEDDING_DIMENSION = 1280  # of the packaged backbone
FIRST_TIME = datetime(2026, 1, 1, tzinfo=UTC)
TIME_BETWEEN_ITEMS = timedelta(seconds=1)
_CENTRES_BITS, _OFFSETS_BITS = 12, 10
_OFFSET_LENGTH = 0.5
_MULTIPLIERS = (
    2_654_435_761,
    2_246_822_519,
    3_266_489_917,
)  # of the hashes that draw the centre and the two offsets of an item
_SHA256, _FILE_NAME = "#" * 64, "@" * 17  # placeholders in a serialized message, of the length of what replaces them


def insert_items(connection: Connection, dataset: str, first: int, end: int, model_version: str) -> None:
    """Inserts the items with the numbers from `first` to before `end`, with scores of a model version and embeddings.

    Item `n` is created `n` seconds after `FIRST_TIME`. Every twentieth is labelled. The sources follow one another,
    `SOURCE_RUN` items each. Of 10 items, 2 are in the test and 1 in the validation split.
    """
    _create_parameters(connection, dataset, model_version)
    values = {
        "dataset": dataset,
        "model_version": model_version,
        "space": EMBEDDING_SPACE,
        "labelled_every": LABELLED_EVERY,
        "source_run": SOURCE_RUN,
        "sources": SOURCES,
        "concepts": len(CONCEPTS),
        "first_time": FIRST_TIME,
        "between": TIME_BETWEEN_ITEMS,
        "centres_bits": _CENTRES_BITS,
        "offsets_bits": _OFFSETS_BITS,
        **dict(zip(("centre_multiplier", "first_multiplier", "second_multiplier"), _MULTIPLIERS, strict=True)),
    }
    for start in range(first, end, ROWS_AT_ONCE):
        values |= {"first": start, "last": min(start + ROWS_AT_ONCE, end) - 1}
        connection.execute(_INSERT_ITEMS, values)
        connection.execute(_INSERT_EMBEDDINGS, values)
        connection.commit()


def name_of(dataset: str, number: int) -> str:
    """Returns the name of an item by its number."""
    return f"{dataset}/items/01{number:024x}"


def file_name_of(number: int) -> str:
    """Returns the file name of an item by its number."""
    return f"photo-{number:07d}.jpg"


def source_of(dataset: str, number: int) -> str:
    """Returns the source of an item by its number."""
    return f"{dataset.rpartition('/datasets/')[0]}/sources/source-{number // SOURCE_RUN % SOURCES}"


def number_of(name: str) -> int:
    """Returns the number of an item by its name."""
    return int(name.rpartition("/")[2], 16) - (1 << 96)


def concept_of(numbers: Integers) -> Integers:
    """Returns the number of the concept that each item has."""
    return numbers // 3 % len(CONCEPTS)


def similarities(query: int, numbers: Integers) -> Floats:
    """Returns the cosines of the embedding of an item with those of others, computed from the parts of the embeddings.

    Returns:
        `(N,)`, in the order of the numbers.
    """
    centres, offsets = _directions()
    across, among = centres @ offsets.T, offsets @ offsets.T
    parts, (own_centre, own_first, own_second) = _parts_of(numbers), _parts_of(np.array([query]))
    vector = (centres[own_centre] + offsets[own_first] + offsets[own_second])[0]
    centre, first, second = parts
    products = (centres @ vector)[centre] + (offsets @ vector)[first] + (offsets @ vector)[second]
    squares = (centres**2).sum(1)[centre] + (offsets**2).sum(1)[first] + (offsets**2).sum(1)[second]
    squares += 2 * (across[centre, first] + across[centre, second] + among[first, second])
    cosines: Floats = products / (np.sqrt(squares) * np.linalg.norm(vector))
    return cosines


class _Directions(NamedTuple):
    """The parts of embeddings: each is the direction of a centre and of two offsets.

    Attributes:
        centres: `(2**_CENTRES_BITS, D)` of unit length: an item has the same centre as some hundred others of a million.
        offsets: `(2**_OFFSETS_BITS, D)` of `_OFFSET_LENGTH`.
    """

    centres: Floats
    offsets: Floats


@cache
def _directions() -> _Directions:
    """Draws directions whose variance decreases from one dimension to the next, as that of embeddings of photographs does."""
    rng = np.random.default_rng(7)
    drawn = rng.normal(size=(2**_CENTRES_BITS + 2**_OFFSETS_BITS, EMBEDDING_DIMENSION)).astype(np.float32)
    drawn *= np.arange(1, EMBEDDING_DIMENSION + 1, dtype=np.float32) ** -0.5
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return _Directions(drawn[: 2**_CENTRES_BITS], drawn[2**_CENTRES_BITS :] * np.float32(_OFFSET_LENGTH))


def _parts_of(numbers: Integers) -> tuple[Integers, Integers, Integers]:
    """Returns the numbers of the centres and of both offsets of items."""
    centre, first, second = (numbers.astype(np.int64) * multiplier & 0xFFFF_FFFF for multiplier in _MULTIPLIERS)
    return centre >> (32 - _CENTRES_BITS), first >> (32 - _OFFSETS_BITS), second >> (32 - _OFFSETS_BITS)


def _create_parameters(connection: Connection, dataset: str, model_version: str) -> None:
    """Creates temporary tables of serialized messages, which the statements complete and combine, and of the parts of embeddings."""
    register_vector(connection)
    connection.execute("DROP TABLE IF EXISTS scale_media, scale_concepts, scale_directions")
    connection.execute("CREATE TEMPORARY TABLE scale_media (source integer, name text, parts bytea[])")
    connection.execute(
        "CREATE TEMPORARY TABLE scale_concepts (number integer, concept text, accepted bytea, sure bytea, unsure bytea)"
    )
    connection.execute("CREATE TEMPORARY TABLE scale_directions (kind text, number integer, direction vector)")
    with connection.cursor() as cursor:
        for number in range(SOURCES):
            source = source_of(dataset, number * SOURCE_RUN)
            cursor.execute("INSERT INTO scale_media VALUES (%s, %s, %s)", (number, source, _media_parts(source)))
        for number, concept in enumerate(CONCEPTS):
            accepted = AcceptedAnnotations(
                annotations=[Annotation(concept=concept, image_label=ImageLabel())], annotators=["scale"]
            )
            accepted.accept_time.FromDatetime(FIRST_TIME)
            scores = (_scores(number, share, model_version).SerializeToString() for share in (0.9, 0.5))
            cursor.execute(
                "INSERT INTO scale_concepts VALUES (%s, %s, %s, %s, %s)",
                (number, concept, accepted.SerializeToString(), *scores),
            )
        for kind, directions in _directions()._asdict().items():
            rows = [(kind, number, Vector(direction)) for number, direction in enumerate(directions)]
            cursor.executemany("INSERT INTO scale_directions VALUES (%s, %s, %b)", rows)
    connection.execute("ANALYZE scale_directions")


def _media_parts(source: str) -> list[bytes]:
    """Returns serialized media, split where the hash (three times) and the file name are inserted."""
    media = Media(
        sha256=_SHA256,
        size_bytes=50_000,
        mime_type="image/jpeg",
        width_px=640,
        height_px=480,
        object_key=f"media/{_SHA256}",
        thumbnail_key=f"thumbnails/{_SHA256}",
        provenance=Provenance(source=source, file_name=_FILE_NAME),
    )
    return media.SerializeToString().replace(_FILE_NAME.encode(), _SHA256.encode()).split(_SHA256.encode())


def _scores(number: int, share: float, model_version: str) -> Prediction:
    """Returns scores of the concept with this number and of the next one."""
    other = CONCEPTS[(number + 1) % len(CONCEPTS)]
    return Prediction(
        model_version=model_version,
        scores=[ConceptScore(concept=CONCEPTS[number], score=share), ConceptScore(concept=other, score=1 - share)],
        uncertain=share < 0.8,
        margin=2 * share - 1,
    )


_INSERT_ITEMS = b"""
INSERT INTO items (
    name, dataset, sha256, media, file_name, source, metadata, split, group_name, duplicate_of, straddles, perceptual_hash, bands,
    accepted, labels, scores, scored_by, predicted_labels, score, margin, uncertain, create_time, update_time
)
SELECT
    item.name, %(dataset)s, item.sha256,
    parts[1] || item.sha256::bytea || parts[2] || item.sha256::bytea || parts[3] || item.sha256::bytea || parts[4]
        || item.file_name::bytea || parts[5],
    item.file_name, media.name, '{}',
    CASE WHEN item.place < 2 THEN 'TEST' WHEN item.place = 2 THEN 'VALIDATION' ELSE 'TRAIN' END,
    item.name, '', false, item.hash,
    ARRAY[(item.hash & 65535)::integer, 65536 + (item.hash >> 16 & 65535)::integer, 131072 + (item.hash >> 32 & 65535)::integer,
        196608 + (item.hash >> 48 & 65535)::integer],
    CASE WHEN item.labelled THEN said.accepted END,
    CASE WHEN item.labelled THEN ARRAY[said.concept] ELSE '{}' END,
    CASE WHEN item.unsure THEN said.unsure ELSE said.sure END, %(model_version)s, ARRAY[said.concept],
    CASE WHEN item.unsure THEN 0.5 ELSE 0.9 END, CASE WHEN item.unsure THEN 0 ELSE 0.8 END, item.unsure, item.time, item.time
FROM (
    SELECT
        n, %(dataset)s || '/items/01' || lpad(to_hex(n), 24, '0') AS name, encode(sha256((%(dataset)s || n)::bytea), 'hex') AS sha256,
        'photo-' || lpad(n::text, 7, '0') || '.jpg' AS file_name, hashtextextended(%(dataset)s || n, 0) AS hash,
        n / 7 %% 10 AS place, n %% %(labelled_every)s = 0 AS labelled, n %% 11 < 2 AS unsure, %(first_time)s + n * %(between)s AS time
    FROM generate_series(%(first)s::integer, %(last)s::integer) AS n
) AS item
JOIN scale_media AS media ON media.source = item.n / %(source_run)s %% %(sources)s
JOIN scale_concepts AS said ON said.number = item.n / 3 %% %(concepts)s
ORDER BY item.n
"""
_INSERT_EMBEDDINGS = b"""
INSERT INTO embeddings (item, dataset, space, embedding)
SELECT %(dataset)s || '/items/01' || lpad(to_hex(item.n), 24, '0'), %(dataset)s, %(space)s,
    l2_normalize(centre.direction + first.direction + second.direction)
FROM (
    SELECT n,
        ((n::bigint * %(centre_multiplier)s) & 4294967295) >> (32 - %(centres_bits)s) AS centre_number,
        ((n::bigint * %(first_multiplier)s) & 4294967295) >> (32 - %(offsets_bits)s) AS first_number,
        ((n::bigint * %(second_multiplier)s) & 4294967295) >> (32 - %(offsets_bits)s) AS second_number
    FROM generate_series(%(first)s::integer, %(last)s::integer) AS n
) AS item
JOIN scale_directions AS centre ON centre.kind = 'centres' AND centre.number = item.centre_number
JOIN scale_directions AS first ON first.kind = 'offsets' AND first.number = item.first_number
JOIN scale_directions AS second ON second.kind = 'offsets' AND second.number = item.second_number
"""
