"""How answers look in a terminal: one line a resource, JSON where asked for."""

import json
from collections.abc import Iterable
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vesta.cli.measured import measured

COLUMNS_MAX = 6
console = Console()


def as_json(message: Message) -> dict[str, Any]:
    """The message as REST would answer it: defaults written out."""
    return dict(json_format.MessageToDict(message, always_print_fields_with_no_presence=True))


def _set_fields(message: Message) -> dict[str, Any]:
    """What a person wants to see of it: its name, how good it is where that is the question, and what is set."""
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


def show_all(messages: Iterable[Message], *, json_output: bool) -> None:
    """Prints resources as a table, or as JSON lines."""
    if json_output:
        for message in messages:
            console.out(json.dumps(as_json(message)), highlight=False)
        return
    rows = [_set_fields(message) for message in messages]
    columns = list(dict.fromkeys(key for row in rows for key, value in row.items() if not isinstance(value, dict)))
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns[:COLUMNS_MAX]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_brief(row.get(column, ""), 80) for column in columns[:COLUMNS_MAX]))
    console.print(table if rows else "none")


def _brief(value: object, length_max: int) -> str:
    """The value, not too long; what looks like markup is shown as it is."""
    text = value if isinstance(value, str) else json.dumps(value)
    return escape(text if len(text) <= length_max else text[: length_max - 1] + "…")
