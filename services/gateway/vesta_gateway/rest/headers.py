"""HTTP headers: security headers of responses, and the content negotiation of requests."""

import re
from collections.abc import Iterable, Mapping

from vesta_common.errors import InvalidArgument

from vesta_gateway.rest.transcoding import JSON, PROTOBUF

_ALWAYS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_API_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TRANSPORT = "max-age=31536000; includeSubDomains"
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNIT_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_JSON_TYPES = frozenset({"", JSON})
_PROTOBUF_TYPES = frozenset({PROTOBUF, "application/protobuf"})


def response_headers(given: Mapping[str, str], *, is_tls: bool, is_page: bool = False) -> list[tuple[bytes, bytes]]:
    """Returns the response headers with the security headers. HSTS is sent only over TLS, where it has an effect."""
    headers = {"cache-control": "no-store", "content-security-policy": _PAGE_POLICY if is_page else _API_POLICY}
    if is_tls:
        headers["strict-transport-security"] = _TRANSPORT
    merged = {**_ALWAYS, **headers, **given}
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in merged.items()]


def request_headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Returns the request headers by lower-case name. If a header repeats, the last value counts."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in raw}


def body_type(headers: Mapping[str, str]) -> str:
    """Returns the format of a message body, JSON or PROTOBUF.

    Raises:
        InvalidArgument: CONTENT_TYPE_UNKNOWN.
    """
    given = media_type(headers.get("content-type", ""))
    if given in _JSON_TYPES:
        return JSON
    if given in _PROTOBUF_TYPES:
        return PROTOBUF
    raise InvalidArgument(
        f"the content type {given[:100]!r} is not supported; send {JSON} or {PROTOBUF}", reason="CONTENT_TYPE_UNKNOWN"
    )


def wants_protobuf(headers: Mapping[str, str]) -> bool:
    """Returns True if the response is to be protobuf: the first known type in Accept, or, without one, the type of the request body."""
    accepted = [media_type(part) for part in headers.get("accept", "*/*").split(",")]
    named = next((part for part in accepted if part == JSON or part in _PROTOBUF_TYPES), "")
    if named or "*/*" not in accepted:
        return named in _PROTOBUF_TYPES
    return media_type(headers.get("content-type", "")) in _PROTOBUF_TYPES


def media_type(value: str) -> str:
    """Returns the media type without parameters: `image/jpeg` for `image/jpeg; q=1`."""
    return value.partition(";")[0].strip().lower()


def length_of(headers: Mapping[str, str]) -> int | None:
    """Returns the Content-Length; None without one."""
    given = headers.get("content-length", "")
    return int(given) if given.isdecimal() else None


def timeout_of(headers: Mapping[str, str]) -> float | None:
    """Returns the client's timeout in seconds from the header `grpc-timeout` in gRPC's format (`500m`, `2S`); None without one.

    Raises:
        InvalidArgument: TIMEOUT_MALFORMED.
    """
    given = headers.get("grpc-timeout", "")
    if not given:
        return None
    match = _TIMEOUT.fullmatch(given)
    if match is None:
        raise InvalidArgument(
            f"the header grpc-timeout is invalid: {given[:40]!r}; use digits and a unit of H, M, "
            "S, m, u or n, such as 500m",
            reason="TIMEOUT_MALFORMED",
        )
    return int(match[1]) * _UNIT_SECONDS[match[2]]


def matches(if_none_match: str, etag: str) -> bool:
    """Returns True if the client has the content already (RFC 9110, weak comparison)."""
    known = {part.strip().removeprefix("W/") for part in if_none_match.split(",")}
    return bool(etag) and ("*" in known or etag.removeprefix("W/") in known)
