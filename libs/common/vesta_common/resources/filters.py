"""Filters of List requests: a subset of AIP-160, compiled to SQL.

Example: `split = TEST AND NOT labelled AND (label = "dress" OR score < 0.5)`.

Grammar: `all := any ("AND"? any)*`, `any := not ("OR" not)*`, `not := ("NOT" | "-")* (atom | "(" all ")")`,
`atom := FIELD ((= | != | < | <= | > | >= | :) VALUE)?`. A boolean field may stand alone.

As in AIP-160, and unlike SQL, OR binds more tightly than AND: `a AND b OR c` is `a AND (b OR c)`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vesta_common.errors import InvalidArgument, Violation

CHARACTERS_MAX = 4096
DEPTH_MAX = 20
TERMS_MAX = 100

_TOKEN = re.compile(
    r"\s*(?:(?P<string>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')|(?P<op><=|>=|!=|[=<>:()]|-(?=[A-Za-z(]))|(?P<word>[^\s=<>!:()\"']+))"
)
_OPERATORS = {"=", "!=", "<", "<=", ">", ">="}
_RESERVED = _OPERATORS | {":", "(", ")", "-", "AND", "OR", "NOT"}
"""Tokens that are fields or values only if they are quoted."""


@dataclass(frozen=True)
class Field:
    """A field that filters may use.

    Attributes:
        sql: the column or expression.
        parse: converts the value's text to a query parameter; raises ValueError for invalid text.
        ordered: whether < and > are allowed.
        has: an expression with one `%(value)s` for the operator `:`, for example on a list of labels. If `sql` is empty, `=` uses it too.
    """

    sql: str
    parse: Callable[[str], Any] = str
    ordered: bool = False
    has: str = ""


def boolean(text: str) -> bool:
    """Parses `true` or `false`."""
    if text not in {"true", "false"}:
        raise ValueError("is not true or false")
    return text == "true"


def instant(text: str) -> datetime:
    """Parses an RFC 3339 time with a time zone."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError('has no time zone; write "2026-01-31T12:00:00Z", in quotes')
    return time


def one_of(*values: str) -> Callable[[str], str]:
    """Returns a parser for a fixed set of words."""

    def parse(text: str) -> str:
        if text not in values:
            raise ValueError(f"is not one of {', '.join(values)}")
        return text

    return parse


@dataclass(frozen=True)
class Comparison:
    """A field and what it is compared with.

    Attributes:
        operator: one of = != < <= > >= : as written in the filter. A boolean field alone is `= true`.
        value: as parsed.
        sql: the condition; never NULL.
    """

    field: str
    operator: str
    value: Any
    sql: str


@dataclass(frozen=True)
class Combination:
    """A combination of conditions.

    Attributes:
        word: AND, OR or NOT; NOT has one part.
    """

    word: str
    parts: tuple["Condition", ...]


Condition = Comparison | Combination


def sql_of(condition: Condition) -> str:
    """Returns the SQL of a condition."""
    if isinstance(condition, Comparison):
        return condition.sql
    parts = [sql_of(part) for part in condition.parts]
    return f"(NOT {parts[0]})" if condition.word == "NOT" else "(" + f" {condition.word} ".join(parts) + ")"


def truth(condition: Condition, known: Callable[[Comparison], bool | None]) -> bool | None:
    """Evaluates a condition of which only some comparisons are known (`known` returns None for others). None if the others matter."""
    if isinstance(condition, Comparison):
        return known(condition)
    values = [truth(part, known) for part in condition.parts]
    if condition.word == "NOT":
        return None if values[0] is None else not values[0]
    decisive = condition.word == "OR"  # one part with this value decides
    if decisive in values:
        return decisive
    return None if None in values else not decisive


def conjuncts(condition: Condition | None) -> Iterator[Condition]:
    """Iterates over the conditions that must all be true."""
    if isinstance(condition, Combination) and condition.word == "AND":
        for part in condition.parts:
            yield from conjuncts(part)
    elif condition is not None:
        yield condition


@dataclass(frozen=True)
class Where:
    """A filter as an SQL condition with named parameters and their values.

    Attributes:
        condition: its structure; None for an empty filter.
    """

    sql: str
    parameters: dict[str, Any]
    condition: Condition | None = None


def compile_filter(
    text: str, fields: Mapping[str, Field], prefixed: Mapping[str, Callable[[str], Field]] | None = None
) -> Where:
    """Compiles a filter to an SQL condition; `TRUE` for an empty filter. Values become the parameters `filter_0`, `filter_1` …

    Args:
        fields: the fields that the filter may use.
        prefixed: families of fields such as `metadata.`; each returns the field for the rest of the name.

    Raises:
        InvalidArgument: the filter is invalid; the message has the position and the available fields.
    """
    if not text.strip():
        return Where("TRUE", {})
    if len(text) > CHARACTERS_MAX:
        raise _filter_error(text[:20] + "…", CHARACTERS_MAX, f"more than {CHARACTERS_MAX} characters")
    parser = _Parser(text, fields, prefixed or {})
    condition = parser.parse()
    return Where(sql_of(condition), parser.parameters, condition)


def values_of(text: str) -> Iterator[str]:
    """Iterates over the words and unquoted strings of a filter in order. Stops at the first unreadable token or at the length limit."""
    position = 0
    while match := _TOKEN.match(text, position, CHARACTERS_MAX):
        if match["string"]:
            yield _unquoted(match["string"])
        elif match["word"]:
            yield match["word"]
        position = match.end()


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])


class _Parser:
    def __init__(self, text: str, fields: Mapping[str, Field], prefixed: Mapping[str, Callable[[str], Field]]) -> None:
        self._text = text
        self._fields = fields
        self._prefixed = prefixed
        self._tokens = self._split()
        self._next = 0
        self._depth = 0
        self.parameters: dict[str, Any] = {}

    def parse(self) -> Condition:
        condition = self._all()
        if self._peek():
            raise self._error("unexpected text after the end")
        return condition

    def _all(self) -> Condition:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise self._error(f"more than {DEPTH_MAX} parentheses")
        parts = [self._any()]
        while self._peek() not in {None, ")"}:
            if self._peek() == "AND":
                self._next += 1
            parts.append(self._any())
        self._depth -= 1
        return _combined("AND", parts)

    def _any(self) -> Condition:
        parts = [self._negated()]
        while self._peek() == "OR":
            self._next += 1
            parts.append(self._negated())
        return _combined("OR", parts)

    def _negated(self) -> Condition:
        negated = False
        while self._peek() in {"NOT", "-"}:
            self._next += 1
            negated = not negated
        if self._peek() == "(":
            self._next += 1
            condition = self._all()
            self._take(")")
        else:
            condition = self._atom()
        return Combination("NOT", (condition,)) if negated else condition

    def _atom(self) -> Condition:
        name = self._take()
        field = self._field(name)
        operator = self._peek()
        if operator not in _OPERATORS | {":"}:
            if field.parse is not boolean:
                raise self._error(f"{name} needs a comparison, such as {name} = VALUE")
            return Comparison(name, "=", value=True, sql=f"coalesce({field.sql}, FALSE)")
        self._next += 1
        key, value = self._value(name, field, self._take())
        return Comparison(name, operator, value, self._sql(name, field, operator, key))

    def _sql(self, name: str, field: Field, operator: str, key: str) -> str:
        if operator == ":" or (operator == "=" and not field.sql):
            if not field.has:
                raise self._error(f"{name} is not a map or list; use =")
            return field.has.replace("%(value)s", key)
        if operator == "!=":
            return (
                f"(NOT {field.has.replace('%(value)s', key)})"
                if not field.sql
                else f"({field.sql} IS DISTINCT FROM {key})"
            )
        if operator != "=" and not field.ordered:
            raise self._error(f"{name} does not support the operator {operator}")
        return f"coalesce({field.sql} {operator} {key}, FALSE)"

    def _field(self, name: str) -> Field:
        if name in self._fields:
            return self._fields[name]
        for prefix, make in self._prefixed.items():
            if name.startswith(prefix) and len(name) > len(prefix):
                return make(name.removeprefix(prefix))
        known = ", ".join(sorted([*self._fields, *(prefix + "KEY" for prefix in self._prefixed)]))
        raise self._error(f"unknown field {name}; known fields: {known}")

    def _value(self, name: str, field: Field, text: str) -> tuple[str, Any]:
        """Returns the placeholder of a value, and the value."""
        if len(self.parameters) == TERMS_MAX:
            raise self._error(f"more than {TERMS_MAX} comparisons")
        if text[0] in "\"'":
            text = _unquoted(text)
        try:
            value = field.parse(text)
        except ValueError as error:
            raise self._error(f"{name}: {text!r} {error}") from error
        key = f"filter_{len(self.parameters)}"
        self.parameters[key] = value
        return f"%({key})s", value

    def _split(self) -> list[tuple[str, int]]:
        tokens, position = [], 0
        while position < len(self._text.rstrip()):
            match = _TOKEN.match(self._text, position)
            if not match:
                raise _filter_error(self._text, position, "cannot be read")
            tokens.append((match.group().strip(), match.start()))
            position = match.end()
        return tokens

    def _peek(self) -> str | None:
        return self._tokens[self._next][0] if self._next < len(self._tokens) else None

    def _take(self, expected: str | None = None) -> str:
        token = self._peek()
        if token is None or (expected and token != expected) or (not expected and token in _RESERVED):
            raise self._error(f"{expected or 'a field or value'} is expected")
        self._next += 1
        return token

    def _error(self, what: str) -> InvalidArgument:
        position = self._tokens[self._next][1] if self._next < len(self._tokens) else len(self._text)
        return _filter_error(self._text, position, what)


def _combined(word: str, parts: list[Condition]) -> Condition:
    return parts[0] if len(parts) == 1 else Combination(word, tuple(parts))


def _filter_error(text: str, position: int, what: str) -> InvalidArgument:
    return InvalidArgument(
        f"the filter {text!r} is invalid at character {position + 1}: {what}",
        reason="FILTER_INVALID",
        violations=[Violation("filter", what)],
    )
