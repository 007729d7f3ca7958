"""Path templates of `google.api.http`, such as `/v1/{name=projects/*/datasets/*}:export`: parsing, matching, expansion.

Grammar: google/api/http.proto. `*` matches one segment; `**` matches the rest of the path and must be last. Captured segments are
percent-decoded. A segment that contains a slash after decoding does not match, so that no name can bypass the form of its template.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

ANY_SEGMENT = "*"
ANY_SUFFIX = "**"
_VARIABLE = re.compile(r"\{([^{}=]+)(?:=([^{}]+))?\}")
_FIELD_PATH = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
_UNRESERVED = "-._~!$&'()+,;=@"


@dataclass(frozen=True)
class Variable:
    """A captured part of the path: the segments from `start` up to, not including, `end`; None for the rest of the path."""

    field_path: str
    start: int
    end: int | None


@dataclass(frozen=True)
class PathTemplate:
    """A parsed template.

    Attributes:
        segments: literals, `*` and `**`, without slashes.
        variables: the captured parts.
        verb: the custom verb after the colon; empty if there is none.
    """

    segments: tuple[str, ...]
    variables: tuple[Variable, ...]
    verb: str

    @classmethod
    def parse(cls, text: str) -> "PathTemplate":
        """Parses a template.

        Raises:
            ValueError: the text is not a valid template.
        """
        if not text.startswith("/"):
            raise ValueError(f"{text!r} does not start with a slash")
        body, verb = split_verb(text[1:])
        segments: list[str] = []
        variables: list[Variable] = []
        for segment in _segments(body):
            match = _VARIABLE.fullmatch(segment)
            if not match:
                segments.append(segment)
                continue
            field_path, inner = match[1], match[2] or ANY_SEGMENT
            parts = inner.split("/")
            if not _FIELD_PATH.fullmatch(field_path):
                raise ValueError(f"{field_path!r} in {text!r} is not a field path")
            end = None if parts[-1] == ANY_SUFFIX else len(segments) + len(parts)
            variables.append(Variable(field_path, len(segments), end))
            segments.extend(parts)
        if any(not segment or "{" in segment or "}" in segment for segment in segments) or ANY_SUFFIX in segments[:-1]:
            raise ValueError(f"{text!r} is not a path template")
        return cls(tuple(segments), tuple(variables), verb)

    def match(self, segments: list[str], verb: str) -> dict[str, str] | None:
        """Matches the percent-encoded segments of a path. Returns the captured values by field; None if the path does not match."""
        if verb != self.verb or not self._fits(segments):
            return None
        captured: dict[str, str] = {}
        for variable in self.variables:
            value = _decode(segments[variable.start : variable.end], rest=variable.end is None)
            if value is None:
                return None
            captured[variable.field_path] = value
        return captured

    def _fits(self, segments: list[str]) -> bool:
        pattern = self.segments
        if pattern and pattern[-1] == ANY_SUFFIX:
            if len(segments) < len(pattern) - 1:
                return False
            pattern = pattern[:-1]
        elif len(segments) != len(pattern):
            return False
        return all(
            (expected == ANY_SEGMENT and actual) or expected == actual
            for expected, actual in zip(pattern, segments, strict=False)
        )

    def expand(self, values: Mapping[str, str]) -> str:
        """Returns the percent-encoded path for the given field values.

        Raises:
            ValueError: a value does not match the template.
        """
        segments = list(self.segments)
        for variable in reversed(self.variables):
            segments[variable.start : variable.end] = [
                quote(part, safe=_UNRESERVED) for part in values[variable.field_path].split("/")
            ]
        path = "/" + "/".join(segments) + (f":{self.verb}" if self.verb else "")
        if self.match(*split_path(path)) != dict(values):
            raise ValueError(f"{dict(values)} does not match {self}")
        return path


def split_path(path: str) -> tuple[list[str], str]:
    """Splits a raw path into segments and custom verb."""
    body, verb = split_verb(path[1:])
    return body.split("/"), verb


def split_verb(path: str) -> tuple[str, str]:
    """Splits `:verb` off the last segment."""
    head, colon, verb = path.rpartition(":")
    if not colon or "/" in verb or "}" in verb:
        return path, ""
    return head, verb


def _segments(body: str) -> Iterator[str]:
    """Yields the segments of a template; a variable counts as one segment."""
    start = depth = 0
    for index, character in enumerate(body):
        depth += (character == "{") - (character == "}")
        if character == "/" and depth == 0:
            yield body[start:index]
            start = index + 1
    yield body[start:]


def _decode(segments: list[str], *, rest: bool) -> str | None:
    """Decodes captured segments. Returns None if a segment contains an encoded slash; in the rest of a path, slashes are allowed.

    Invalid UTF-8 becomes U+FFFD, which resource names must not contain. The error then names the segment, instead of an unknown path.
    """
    decoded = []
    for segment in segments:
        text = unquote_to_bytes(segment).decode(errors="replace")
        if not rest and ("/" in text or not text):
            return None
        decoded.append(text)
    return "/".join(decoded)
