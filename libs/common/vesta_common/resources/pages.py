"""Pages after AIP-158: a list is read in keyset order, and the token says where the last page ended and what was asked."""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from vesta_common.errors import InvalidArgument, Violation

T = TypeVar("T")

SIZE_DEFAULT = 50
SIZE_MAX = 1000


@dataclass(frozen=True)
class Page:
    """What to read.

    Attributes:
        size: how many resources at most.
        cursor: the key of the last resource of the page before; empty for the first page.
    """

    size: int
    cursor: tuple[str, ...]
    _question: str

    @property
    def limit(self) -> int:
        """How many rows to ask for: one more than the page holds tells whether there is another page."""
        return self.size + 1

    @property
    def after(self) -> str:
        """The key of the last resource of the page before, where it has one part, such as a name; empty for the first page."""
        return self.cursor[0] if self.cursor else ""

    def cut(self, rows: Sequence[T], key_of: Any) -> tuple[Sequence[T], str]:
        """The page's rows and the token of the next page, empty on the last.

        Args:
            rows: up to `limit` rows in the order of the list.
            key_of: answers a row's key, a tuple of strings.
        """
        if len(rows) <= self.size:
            return rows, ""
        kept = rows[: self.size]
        token = json.dumps([self._question, *key_of(kept[-1])], separators=(",", ":"))
        return kept, base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


def read_page(request: Any, size_max: int = SIZE_MAX) -> Page:
    """What a List request asks for, of at most so many resources.

    Raises:
        InvalidArgument: the token is none of ours, or belongs to another question.
    """
    size = min(request.page_size or SIZE_DEFAULT, size_max)
    question = _question(request)
    if not request.page_token:
        return Page(size, (), question)
    try:
        padded = request.page_token + "=" * (-len(request.page_token) % 4)
        found, *cursor = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        "".join(cursor).encode()  # which no lone surrogate stands
    except (binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise bad_token("it is none of ours") from error
    if found != question or not cursor:
        raise bad_token("it belongs to a list with another parent or filter")
    if any("\0" in part for part in cursor):  # which PostgreSQL cannot compare
        raise bad_token("it is none of ours")
    return Page(size, tuple(cursor), question)


def _question(request: Any) -> str:
    """A hash of what is asked and of whom, the page aside."""
    copy = type(request)()
    copy.CopyFrom(request)
    copy.ClearField("page_size")
    copy.ClearField("page_token")
    asked = request.DESCRIPTOR.full_name.encode() + b"\n" + copy.SerializeToString(deterministic=True)
    return hashlib.sha256(asked).hexdigest()[:12]


def bad_token(why: str) -> InvalidArgument:
    """The refusal of a page_token."""
    return InvalidArgument(
        f"the page_token cannot be used: {why}; begin again without one",
        reason="PAGE_TOKEN_INVALID",
        violations=[Violation("page_token", why)],
    )
