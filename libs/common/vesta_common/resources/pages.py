"""Pagination (AIP-158) in keyset order. The page token contains the key of the last entry and a hash of the request."""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from google.protobuf.message import Message

from vesta_common.errors import InvalidArgument, Violation

T = TypeVar("T")

SIZE_DEFAULT = 50
SIZE_MAX = 1000
PAGE_BYTES_MAX = 16 * 1024 * 1024
"""A quarter of what a message may contain."""


@dataclass(frozen=True)
class Page:
    """A page of a list.

    Attributes:
        size: the maximum number of resources.
        cursor: the key of the last resource on the previous page; empty for the first page.
    """

    size: int
    cursor: tuple[str, ...]
    _request_hash: str

    @property
    def limit(self) -> int:
        """Number of rows to read: one more than the page size, to detect whether there is a next page."""
        return self.size + 1

    @property
    def after(self) -> str:
        """The key of the last resource on the previous page, for keys with one part such as a name; empty for the first page."""
        return self.cursor[0] if self.cursor else ""

    def cut(self, rows: Sequence[T], key_of: Any) -> tuple[Sequence[T], str]:
        """Returns the rows of the page and the token of the next page. The token is empty on the last page.

        Args:
            rows: up to `limit` rows in list order.
            key_of: returns the key of a row, a tuple of strings.
        """
        if len(rows) <= self.size:
            return rows, ""
        page_rows = rows[: self.size]
        token = json.dumps([self._request_hash, *key_of(page_rows[-1])], separators=(",", ":"))
        return page_rows, base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


def within_bytes(page: Page, rows: Sequence[Message]) -> Page:
    """Returns the page, shortened so that its rows are not larger than `PAGE_BYTES_MAX`. It has at least one row."""
    size_bytes = 0
    for count, row in enumerate(rows):
        size_bytes += row.ByteSize()
        if size_bytes > PAGE_BYTES_MAX and count:
            return replace(page, size=min(page.size, count))
    return page


def read_page(request: Any, size_max: int = SIZE_MAX) -> Page:
    """Reads page size and token of a List request, with at most `size_max` resources.

    Raises:
        InvalidArgument: PAGE_TOKEN_INVALID, the token is malformed or belongs to a different request.
    """
    size = min(request.page_size or SIZE_DEFAULT, size_max)
    request_hash = _request_hash(request)
    if not request.page_token:
        return Page(size, (), request_hash)
    try:
        padded = request.page_token + "=" * (-len(request.page_token) % 4)
        hash_in_token, *cursor = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        "".join(cursor).encode()  # fails for lone surrogates
    except (binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise bad_token("it was not issued by this server") from error
    if hash_in_token != request_hash or not cursor:
        raise bad_token("it is for a list with another parent or filter")
    if any("\0" in part for part in cursor):  # PostgreSQL cannot compare it
        raise bad_token("it was not issued by this server")
    return Page(size, tuple(cursor), request_hash)


def _request_hash(request: Any) -> str:
    """Returns a hash of the request without its page fields."""
    copy = type(request)()
    copy.CopyFrom(request)
    copy.ClearField("page_size")
    copy.ClearField("page_token")
    query = request.DESCRIPTOR.full_name.encode() + b"\n" + copy.SerializeToString(deterministic=True)
    return hashlib.sha256(query).hexdigest()[:12]


def bad_token(why: str) -> InvalidArgument:
    """Returns the error for an invalid page_token."""
    return InvalidArgument(
        f"the page_token is invalid: {why}; start again with the first page",
        reason="PAGE_TOKEN_INVALID",
        violations=[Violation("page_token", why)],
    )
