"""A name is there or not, taken or not; made once; changed as mask and etag allow."""

from datetime import UTC, datetime

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from psycopg.errors import SerializationFailure
from vesta_common.errors import Aborted, AlreadyExists, InvalidArgument, NotFound
from vesta_common.resources.etags import etag_of, with_etag
from vesta_common.resources.methods import (
    body_of,
    create_once,
    existing,
    find_answer,
    missing,
    resource_of,
    revise,
    run_once,
    taken,
)
from vesta_common.storage.postgres import Connection, Postgres
from vesta_contracts.datasets.v1 import CreateTaxonomyRequest, Taxonomy

NAME = "projects/acme/taxonomies/vans"


@pytest.fixture
def postgres(postgres: Postgres) -> Postgres:
    with postgres.transaction() as connection:
        connection.execute("CREATE TABLE taxonomies (name text PRIMARY KEY)")
    return postgres


def a_request(request_id: str, taxonomy_id: str = "") -> CreateTaxonomyRequest:
    return CreateTaxonomyRequest(parent="projects/acme", taxonomy_id=taxonomy_id, request_id=request_id)


def create(postgres: Postgres, request_id: str = "") -> Taxonomy:
    def insert(connection: Connection) -> Taxonomy:
        connection.execute("INSERT INTO taxonomies VALUES (%s)", (NAME,))
        return Taxonomy(name=NAME)

    return create_once(postgres, a_request(request_id), Taxonomy, NAME, insert)


def test_what_is_there_is_answered_even_where_it_is_empty() -> None:
    assert existing({}, NAME) == {}
    assert existing(0, NAME) == 0


@pytest.mark.parametrize(
    ("hint", "reason", "message"),
    [
        ("", "RESOURCE_NOT_FOUND", f"{NAME} does not exist; list {NAME.rpartition('/')[0]} to see the existing ones"),
        ("create it first", "TAXONOMY_NOT_FOUND", f"{NAME} does not exist; create it first"),
    ],
)
def test_what_is_not_there_is_an_error_that_names_it(hint: str, reason: str, message: str) -> None:
    with pytest.raises(NotFound) as refused:
        existing(None, NAME, hint, reason=reason)
    told = (refused.value.message, refused.value.reason, refused.value.metadata)
    assert told == (message, reason, {"name": NAME})


def test_a_hint_says_what_would_work() -> None:
    assert missing(NAME, "name another").message == f"{NAME} does not exist; name another"
    assert taken(NAME, "choose another id").message == f"{NAME} already exists; choose another id"


def test_a_name_is_given_once(postgres: Postgres) -> None:
    create(postgres)
    with pytest.raises(AlreadyExists) as refused:
        create(postgres)
    assert (refused.value.reason, refused.value.metadata) == ("RESOURCE_EXISTS", {"name": NAME})


def test_a_repeat_is_answered_with_what_was_made(postgres: Postgres) -> None:
    assert create(postgres, "r1") == create(postgres, "r1")


def test_the_answer_to_a_repeat_is_there_to_be_found_before_anything_else_is_asked(postgres: Postgres) -> None:
    assert find_answer(postgres, a_request("r1"), Taxonomy) is None
    made = create(postgres, "r1")
    assert find_answer(postgres, a_request("r1"), Taxonomy) == made
    assert find_answer(postgres, a_request("r2"), Taxonomy) is None
    with pytest.raises(InvalidArgument) as refused:
        find_answer(postgres, a_request("r1", "cars"), Taxonomy)
    assert refused.value.reason == "REQUEST_ID_REUSED"


def test_without_a_request_id_no_request_is_a_repeat(postgres: Postgres) -> None:
    create(postgres)
    assert find_answer(postgres, a_request(""), Taxonomy) is None


def test_an_effect_runs_again_where_postgresql_asks_for_it(postgres: Postgres) -> None:
    attempts: list[Connection] = []

    def effect(connection: Connection) -> Taxonomy:
        attempts.append(connection)
        if len(attempts) == 1:
            raise SerializationFailure
        return Taxonomy(name=NAME)

    assert run_once(postgres, CreateTaxonomyRequest(request_id="r1"), Taxonomy, effect).name == NAME
    assert len(attempts) == 2


def test_a_revision_has_what_the_mask_names_and_leaves_the_current_one_alone() -> None:
    current = with_etag(Taxonomy(name=NAME, display_name="Vans"))
    wanted = Taxonomy(name=NAME, display_name="Cars", etag=current.etag)
    assert revise(current, wanted, FieldMask(paths=["display_name"]), ("display_name",)).display_name == "Cars"
    assert current.display_name == "Vans"


@pytest.mark.parametrize(
    ("wanted", "paths", "error"),
    [
        (Taxonomy(etag="of yesterday"), ["display_name"], Aborted),
        (Taxonomy(name="projects/acme/taxonomies/cars"), ["name"], InvalidArgument),
    ],
)
def test_a_revision_is_refused_where_the_etag_is_stale_or_the_field_fixed(
    wanted: Taxonomy, paths: list[str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        revise(Taxonomy(name=NAME), wanted, FieldMask(paths=paths), ("display_name",))


def test_what_a_row_keeps_of_a_resource_comes_back_with_its_times_and_etag() -> None:
    taxonomy = Taxonomy(name=NAME, display_name="Vans", etag="stale")
    taxonomy.update_time.FromDatetime(datetime(2020, 1, 1, tzinfo=UTC))
    times = {"create_time": datetime(2026, 1, 1, tzinfo=UTC), "update_time": datetime(2026, 1, 2, tzinfo=UTC)}
    found = resource_of(Taxonomy, {"body": body_of(taxonomy, "display_name"), **times})
    assert (found.name, found.display_name) == (NAME, "")
    assert found.update_time.ToDatetime(UTC) == times["update_time"]
    assert found.etag == etag_of(found)
