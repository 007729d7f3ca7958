"""Limits the size of pages: runs and versions with many concepts are large. Pure functions."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from vesta_common.resources.pages import Page

PAGE_BYTES_MAX = 16 * 1024 * 1024


def within_bytes(page: Page, rows: Sequence[Any]) -> Page:
    """Returns the page, shortened so that its rows are not larger than `PAGE_BYTES_MAX`. It has at least one row."""
    size_bytes = 0
    for count, row in enumerate(rows):
        size_bytes += row.ByteSize()
        if size_bytes > PAGE_BYTES_MAX and count:
            return replace(page, size=min(page.size, count))
    return page
