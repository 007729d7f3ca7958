"""The context of all commands: the client and the output format."""

from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vesta.cli.render import Output, console
from vesta.cli.settings import find_connection
from vesta.client import Vesta

EXIT_REJECTED = 1
EXIT_USAGE = 2


class Session:
    """The client, opened on first use, and the output format."""

    def __init__(self, address: str | None, api_key: str | None, home: Path, json_output: bool) -> None:
        self._found = (address, api_key, home)
        self.json_output = json_output
        self._client: Vesta | None = None

    @property
    def output(self) -> Output:
        """The default output format of lists."""
        return "json" if self.json_output else "table"

    @property
    def client(self) -> Vesta:
        """The connection to the platform."""
        if self._client is None:
            connection = find_connection(*self._found)
            self._client = Vesta(connection.address, connection.api_key)
        return self._client

    def progress(self) -> Progress:
        """Returns a progress bar on standard error."""
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=type(console)(stderr=True),
            transient=self.json_output,
        )


pass_session = click.make_pass_decorator(Session)
limit_option = click.option(
    "--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="The maximum number of results."
)
