"""Resource names after AIP-122: `projects/acme/datasets/vans`."""

import re
from dataclasses import dataclass
from functools import cached_property

from vesta_common.errors import InvalidArgument, Violation

ID = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
"""An id: what a create accepts, and every id that the platform makes."""
COLLECTION = r"[a-z][a-zA-Z0-9]{0,62}"
SHOWN_CHARACTERS_MAX = 80

_SEGMENTS = (
    (re.compile(COLLECTION), "a collection, which begins with a lower-case letter and has letters and digits alone"),
    (re.compile(ID), "an id, which has 1 to 63 of a-z, 0-9 and -, and begins and ends with a letter or digit"),
)


@dataclass(frozen=True)
class ResourcePattern:
    """The shape of one kind's names, such as `projects/{project}/datasets/{dataset}`."""

    pattern: str

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        return re.compile(re.sub(r"\{(\w+)\}", lambda part: f"(?P<{part[1]}>{ID})", self.pattern))

    def format(self, **parts: str) -> str:
        """The name with these parts."""
        return self.pattern.format(**parts)

    def matches(self, name: str) -> bool:
        """True where `name` has this shape."""
        return self._regex.fullmatch(name) is not None

    def parse(self, name: str) -> dict[str, str]:
        """The parts of a name.

        Raises:
            InvalidArgument: it has another shape.
        """
        found = self._regex.fullmatch(name)
        if found is None:
            raise InvalidArgument(
                f"{name!r} is not a name like {self.pattern}", reason="INVALID_NAME", metadata={"pattern": self.pattern}
            )
        return found.groupdict()


def check_name(name: str, field: str = "name") -> None:
    """Accepts a name whose segments are collections and ids in turn (AIP-122), of any kind of resource.

    A name that passes is ASCII without control characters, so that it can travel in gRPC metadata.

    Args:
        field: the field of the request that holds the name.

    Raises:
        InvalidArgument: INVALID_NAME, with the segment that is wrong.
    """
    for index, segment in enumerate(name.split("/")):
        wanted, description = _SEGMENTS[index % 2]
        if wanted.fullmatch(segment) is None:
            shown = segment if len(segment) <= SHOWN_CHARACTERS_MAX else f"{segment[:SHOWN_CHARACTERS_MAX]}…"
            raise InvalidArgument(
                f"{field} is no resource name: its segment {index + 1}, {shown!a}, must be {description}",
                reason="INVALID_NAME",
                metadata={"segment": f"{shown!a}", "position": str(index + 1)},
                violations=[Violation(field, f"has the segment {shown!a}, which must be {description}")],
            )


def parent_of(name: str) -> str:
    """`projects/acme` for `projects/acme/datasets/vans`."""
    return "/".join(name.split("/")[:-2])


def project_of(name: str) -> str:
    """`projects/acme` for anything in it.

    Raises:
        InvalidArgument: it is in no project.
    """
    parts = name.split("/")
    if len(parts) < 2 or parts[0] != "projects" or not parts[1]:
        raise InvalidArgument(f"{name!r} is in no project; names begin with projects/", reason="INVALID_NAME")
    return f"projects/{parts[1]}"
