"""The keys that lists are paged by: the name, or the time of creation with the newest first. Pure."""

from datetime import UTC, datetime
from typing import Any

from vesta_common.resources.pages import Page, bad_token

_FAR_FUTURE = datetime(9999, 1, 1, tzinfo=UTC)


def by_name(resource: Any) -> tuple[str]:
    """The key of a list in order of name; `page.after` is where its next page begins."""
    return (resource.name,)


def by_age(resource: Any) -> tuple[str, str]:
    """The key of a list with the newest first; `newest_before` says where its next page begins."""
    return resource.create_time.ToDatetime(UTC).isoformat(), resource.name


def newest_before(page: Page) -> tuple[datetime, str]:
    """Creation time and name before which everything on the page lies; for the first page, a time far ahead.

    Raises:
        InvalidArgument: somebody has changed the token.
    """
    if not page.cursor:
        return _FAR_FUTURE, ""
    try:
        create_time, name = page.cursor
        return datetime.fromisoformat(create_time).astimezone(UTC), name
    except (ValueError, OverflowError) as error:
        raise bad_token("it is none of ours") from error
