"""The statements of `queries.sql`, by name."""

from vesta_common.storage.postgres import load_queries

queries = load_queries("vesta_annotation")
