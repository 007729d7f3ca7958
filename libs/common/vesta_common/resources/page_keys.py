"""Sort keys of paginated lists: by name, or by creation time with the oldest or the newest first. Pure."""

from datetime import UTC, datetime
from typing import Any

from vesta_common.resources.pages import Page, bad_token

_FAR_PAST = datetime(1, 1, 1, tzinfo=UTC)
_FAR_FUTURE = datetime(9999, 1, 1, tzinfo=UTC)


def by_name(resource: Any) -> tuple[str]:
    """Returns the key for lists in order of name. The next page begins at `page.after`."""
    return (resource.name,)


def by_creation(resource: Any) -> tuple[str, str]:
    """Returns the key for lists with the oldest first. The next page begins at `created_after`."""
    return resource.name, resource.create_time.ToDatetime(UTC).isoformat()


def created_after(page: Page) -> tuple[datetime | None, str]:
    """Returns the creation time and name that all entries of the page follow; a time in the far past for the first page.

    The time is None if the previous version, which lists by name, has issued the token.

    Raises:
        InvalidArgument: PAGE_TOKEN_INVALID, the token was modified.
    """
    if not page.cursor:
        return _FAR_PAST, ""
    try:
        name, *create_time = page.cursor
        return (datetime.fromisoformat(*create_time).astimezone(UTC) if create_time else None), name
    except (ValueError, OverflowError, TypeError) as error:
        raise bad_token("it was not issued by this server") from error


def by_age(resource: Any) -> tuple[str, str]:
    """Returns the key for lists with the newest first. The next page begins at `newest_before`."""
    return resource.create_time.ToDatetime(UTC).isoformat(), resource.name


def newest_before(page: Page) -> tuple[datetime, str]:
    """Returns the creation time and name that all entries of the page precede; a time in the far future for the first page.

    Raises:
        InvalidArgument: PAGE_TOKEN_INVALID, the token was modified.
    """
    if not page.cursor:
        return _FAR_FUTURE, ""
    try:
        create_time, name = page.cursor
        return datetime.fromisoformat(create_time).astimezone(UTC), name
    except (ValueError, OverflowError) as error:
        raise bad_token("it was not issued by this server") from error
