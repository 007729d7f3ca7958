"""Resource names after AIP-122: `projects/acme/datasets/vans`."""

import re
from dataclasses import dataclass
from functools import cached_property

from vesta_common.errors import InvalidArgument

ID = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


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
