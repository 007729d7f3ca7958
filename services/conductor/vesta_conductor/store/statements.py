"""The statements of `queries.sql`, by name."""

from typing import Any

from vesta_common.storage.postgres import load_queries

queries: Any = load_queries("vesta_conductor")
