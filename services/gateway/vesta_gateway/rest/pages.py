"""Pages that need no API key: health, the OpenAPI document, and its viewer. They load nothing from other servers."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from importlib import resources

from vesta_gateway.rest.headers import matches

HttpResponse = tuple[int, dict[str, str], bytes]
Page = Callable[[Mapping[str, str]], Awaitable[HttpResponse]]
"""Returns HTTP status, headers and body for the headers of a request."""

_CACHE = "no-cache"
_FILES = {
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/docs/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
    "/docs/docs.css": ("docs.css", "text/css; charset=utf-8"),
}

Report = Callable[[], Awaitable[tuple[bool, Mapping[str, str]]]]
"""Returns whether the gateway is ready, and the status of each dependency."""
Problems = Callable[[], Awaitable[list[str]]]
"""Returns the current problems as sentences for operators."""


def all_pages(openapi: Mapping[str, object], report: Report, problems: Problems) -> dict[str, Page]:
    """Returns the pages by path."""
    pages = {path: _fixed(_static(name), content_type) for path, (name, content_type) in _FILES.items()}
    pages["/openapi.json"] = _fixed(json.dumps(openapi, ensure_ascii=False).encode(), "application/json")
    pages["/healthz"] = _health(report, problems, must_be_ready=False)
    pages["/healthz/ready"] = _health(report, problems, must_be_ready=True)
    return pages


def _static(name: str) -> bytes:
    return (resources.files("vesta_gateway") / "static" / name).read_bytes()


def _fixed(body: bytes, content_type: str) -> Page:
    """Returns a page with constant content."""
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"content-type": content_type, "etag": etag, "cache-control": _CACHE}

    async def page(request: Mapping[str, str]) -> HttpResponse:
        if matches(request.get("if-none-match", ""), etag):
            return 304, headers, b""
        return 200, headers, body

    return page


def _health(report: Report, problems: Problems, *, must_be_ready: bool) -> Page:
    """Returns a health page. `/healthz` returns 200 while the process runs; `/healthz/ready` returns 503 while it is not ready."""

    async def page(request: Mapping[str, str]) -> HttpResponse:  # noqa: ARG001
        is_ready, parts = await report()
        status = "SERVING" if is_ready else "NOT_SERVING"
        body = json.dumps({"status": status, "parts": parts, "problems": await problems()}).encode()
        return 503 if must_be_ready and not is_ready else 200, {"content-type": "application/json"}, body

    return page
