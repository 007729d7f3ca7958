"""Resource names (AIP-122): `projects/acme/datasets/vans`."""

import re
from dataclasses import dataclass
from functools import cached_property

from vesta_common.errors import InvalidArgument, Violation

ID = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
"""Pattern of ids, both those that create methods accept and those that the platform generates."""
COLLECTION = r"[a-z][a-zA-Z0-9]{0,62}"
SHOWN_CHARACTERS_MAX = 80

_SEGMENTS = (
    (re.compile(COLLECTION), "a collection, which begins with a lower-case letter and has letters and digits alone"),
    (re.compile(ID), "an id, which has 1 to 63 of a-z, 0-9 and -, and begins and ends with a letter or digit"),
)


@dataclass(frozen=True)
class ResourcePattern:
    """The name pattern of a resource type, such as `projects/{project}/datasets/{dataset}`."""

    pattern: str

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        return re.compile(re.sub(r"\{(\w+)\}", lambda part: f"(?P<{part[1]}>{ID})", self.pattern))

    def format(self, **parts: str) -> str:
        """Returns the name with the given ids."""
        return self.pattern.format(**parts)

    def matches(self, name: str) -> bool:
        """Returns True if `name` matches the pattern."""
        return self._regex.fullmatch(name) is not None

    def parse(self, name: str) -> dict[str, str]:
        """Returns the ids in a name.

        Raises:
            InvalidArgument: INVALID_NAME, the name does not match the pattern.
        """
        match = self._regex.fullmatch(name)
        if match is None:
            raise InvalidArgument(
                f"{name!r} does not match the name pattern {self.pattern}",
                reason="INVALID_NAME",
                metadata={"pattern": self.pattern},
            )
        return match.groupdict()


def check_name(name: str, field: str = "name") -> None:
    """Checks that the segments of a name alternate between collections and ids (AIP-122). Valid for any resource type.

    A valid name is printable ASCII, so it can be sent in gRPC metadata.

    Args:
        field: the request field with the name.

    Raises:
        InvalidArgument: INVALID_NAME, with the invalid segment.
    """
    for index, segment in enumerate(name.split("/")):
        pattern, description = _SEGMENTS[index % 2]
        if pattern.fullmatch(segment) is None:
            shown = segment if len(segment) <= SHOWN_CHARACTERS_MAX else f"{segment[:SHOWN_CHARACTERS_MAX]}…"
            raise InvalidArgument(
                f"{field} is not a resource name: its segment {index + 1}, {shown!a}, must be {description}",
                reason="INVALID_NAME",
                metadata={"segment": f"{shown!a}", "position": str(index + 1)},
                violations=[Violation(field, f"has the segment {shown!a}, which must be {description}")],
            )


def parent_of(name: str) -> str:
    """Returns the parent of a name: `projects/acme` for `projects/acme/datasets/vans`."""
    return "/".join(name.split("/")[:-2])


def project_of(name: str) -> str:
    """Returns the project of a name: `projects/acme` for anything in it.

    Raises:
        InvalidArgument: INVALID_NAME, the name is not in a project.
    """
    parts = name.split("/")
    if len(parts) < 2 or parts[0] != "projects" or not parts[1]:
        raise InvalidArgument(f"{name!r} is not in a project; names start with projects/", reason="INVALID_NAME")
    return f"projects/{parts[1]}"
