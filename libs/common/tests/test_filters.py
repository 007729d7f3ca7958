"""Filters say what they mean in SQL, and what is wrong with them in words."""

from datetime import UTC, datetime

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vesta_common.errors import InvalidArgument
from vesta_common.resources.filters import Field, boolean, compile_filter, instant, one_of, values_of

FIELDS = {
    "state": Field("state", one_of("OPEN", "DONE")),
    "hot": Field("hot", boolean),
    "score": Field("score", float, ordered=True),
    "made": Field("made", instant, ordered=True),
    "label": Field("", has="(labels @> ARRAY[%(value)s])"),
}
ROWS = [
    ("a", "OPEN", True, 0.1, ["dress"], datetime(2026, 1, 1, tzinfo=UTC)),
    ("b", "DONE", False, 0.5, ["hat"], datetime(2026, 2, 1, tzinfo=UTC)),
    ("c", "OPEN", None, 0.9, ["dress", "hat"], datetime(2026, 3, 1, tzinfo=UTC)),
]


@pytest.fixture
def rows(postgres_url: str):
    with psycopg.connect(postgres_url) as connection:
        connection.execute(
            "CREATE TEMP TABLE things (name text, state text, hot boolean, score float, labels text[], made timestamptz)"
        )
        for row in ROWS:
            connection.execute("INSERT INTO things VALUES (%s, %s, %s, %s, %s, %s)", row)
        yield connection


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "abc"),
        ("state = OPEN", "ac"),
        ("state != OPEN", "b"),
        ("hot", "a"),
        ("NOT hot", "bc"),
        ("-hot", "bc"),
        ("score >= 0.5 AND score < 0.9", "b"),
        ('label = "dress"', "ac"),
        ("label:hat", "bc"),
        ("label != hat", "a"),
        ("state = OPEN AND NOT label:hat", "a"),
        ("state = DONE OR score < 0.2", "ab"),
        ("(state = DONE OR hot) AND score < 0.2", "a"),
        ("state = OPEN score > 0.5", "c"),
        ("state = OPEN AND score < 0.2 OR score > 0.4", "ac"),  # AIP-160: OR binds more tightly
        ("NOT NOT hot", "a"),
        ('made > "2026-01-15T00:00:00Z"', "bc"),
    ],
)
def test_a_filter_finds_what_it_says(rows: psycopg.Connection, text: str, names: str) -> None:
    where = compile_filter(text, FIELDS)
    found = rows.execute(f"SELECT name FROM things WHERE {where.sql} ORDER BY name".encode(), where.parameters)
    assert "".join(name for (name,) in found) == names


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("colour = red", "unknown field colour"),
        ("state = RED", "not one of"),
        ("state < OPEN", "does not support"),
        ("score = many", "score"),
        ("state", "needs a comparison"),
        ("state =", "expected"),
        ("(hot", "expected"),
        ("hot)", "after the end"),
        ("hot = perhaps", "true or false"),
        ("made > 2026-01-01T00:00:00", "time zone"),
        ("label = (", "expected"),
        ("label = <=", "expected"),
        ("score = 1 " * 500, "characters"),
        ("NOT " * 2000, "characters"),
        ("NOT " * 1000, "expected"),
        ("(" * 30 + "hot" + ")" * 30, "parentheses"),
        (" OR ".join(["score = 1"] * 200), "comparisons"),
    ],
)
def test_a_wrong_filter_is_refused_with_what_is_wrong(text: str, what: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid at character") as refused:
        compile_filter(text, FIELDS)
    assert refused.value.reason == "FILTER_INVALID"
    assert what in refused.value.message


@given(st.text(max_size=60))
def test_any_text_is_compiled_or_refused(text: str) -> None:
    try:
        where = compile_filter(text, FIELDS)
    except InvalidArgument:
        return
    assert set(where.parameters) == {f"filter_{index}" for index in range(len(where.parameters))}


def test_values_never_become_sql() -> None:
    where = compile_filter('label = "x\') OR TRUE --"', FIELDS)
    assert where.parameters == {"filter_0": "x') OR TRUE --"}
    assert "TRUE" not in where.sql


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", []),
        ("item = projects/a AND NOT hot", ["item", "projects/a", "AND", "NOT", "hot"]),
        (r"""a="x \"y\"" OR b:'z'""", ["a", 'x "y"', "OR", "b", "z"]),
        ("a = 'b' !", ["a", "b"]),
    ],
)
def test_the_values_of_a_filter_are_found_as_far_as_it_can_be_read(text: str, values: list[str]) -> None:
    assert list(values_of(text)) == values
