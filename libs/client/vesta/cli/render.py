"""Output formats of the command line: one line per resource, or JSON."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import click
from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console
from rich.markup import escape

from vesta.cli.measured import measured

COLUMNS_MAX = 6
CELL_LENGTH_MAX = 60
_FIRST = ("name", "displayName", "state")
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
Output = Literal["table", "wide", "json", "name"]
OUTPUTS: tuple[Output, ...] = get_args(Output)
console = Console()


def as_json(message: Message) -> dict[str, Any]:
    """Converts a message to JSON as REST does, with default values."""
    return dict(json_format.MessageToDict(message, always_print_fields_with_no_presence=True))


def _set_fields(message: Message) -> dict[str, Any]:
    """Returns the text of a resource: its name, its metrics if it has any, and the fields that are set."""
    fields = dict(json_format.MessageToDict(message))
    named = {"name": fields.pop("name")} if "name" in fields else {}
    return {**named, **measured(message), **fields}


def show(message: Message, *, json_output: bool) -> None:
    """Prints one resource."""
    if json_output:
        console.print_json(json.dumps(as_json(message)))
        return
    for key, value in _set_fields(message).items():
        console.print(f"[cyan]{key}[/cyan] {_brief(value, 2000)}", highlight=False, soft_wrap=True)


def show_all(messages: Iterable[Message], output: Output) -> None:
    """Prints resources: a table with one line each, JSON lines, or names."""
    if output == "json":
        for message in messages:
            click.echo(json.dumps(as_json(message)))
        return
    rows = [_set_fields(message) for message in messages]
    if output == "name":
        click.echo("".join(f"{row.get('name', '')}\n" for row in rows), nl=False)
        return
    click.echo("\n".join(_table(rows, is_wide=output == "wide")) if rows else "none")


def _table(rows: Sequence[Mapping[str, Any]], *, is_wide: bool) -> Iterator[str]:
    """Returns lines with aligned columns. Names are never truncated, regardless of the width of the terminal."""
    keys = dict.fromkeys(key for row in rows for key, value in row.items() if not isinstance(value, dict))
    columns = sorted(keys, key=lambda key: _FIRST.index(key) if key in _FIRST else len(_FIRST))
    if not is_wide:
        columns = [key for key in columns if key != "etag"][:COLUMNS_MAX]
    cells = [[_cell(row.get(key, ""), is_whole=is_wide or key == "name") for key in columns] for row in rows]
    heads = [_WORD.sub(" ", key).upper() for key in columns]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for line in (heads, *cells):
        yield "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()


def _cell(value: object, *, is_whole: bool) -> str:
    text = " ".join(_text(value).split())
    return text if is_whole or len(text) <= CELL_LENGTH_MAX else text[: CELL_LENGTH_MAX - 1] + "…"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _brief(value: object, length_max: int) -> str:
    """Returns a shortened value, with markup escaped."""
    text = _text(value)
    return escape(text if len(text) <= length_max else text[: length_max - 1] + "…")
