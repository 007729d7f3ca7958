"""Copies the images into a registry with the OCI distribution API (distribution-spec v1.1)."""

from __future__ import annotations

import argparse
import base64
import getpass
import http.client
import json
import os
import re
import ssl
import time
from collections.abc import Mapping, Sequence
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, urlencode, urljoin, urlsplit

from vesta_install.content import Failure, blob, images

TIMEOUT_SECONDS = 300
ATTEMPTS = 3


class Registry:
    """A registry with the credentials of the user."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.host, _, self.path = options.target.partition("/")
        self._options = options
        self._authorization = ""
        self._password: str | None = None

    def name(self, image: str) -> str:
        """Returns the repository of an image: `path/vesta-datasets`."""
        return "/".join(filter(None, (self.path, image)))

    def call(
        self,
        method: str,
        url: str,
        body: bytes | Path | None = None,
        media_type: str = "",
        good: Sequence[int] = (200, 201, 202),
    ) -> tuple[int, Message]:
        """Returns status and headers of a response, with a token if the registry requires one. `body` is bytes or the
        path of a file.
        """
        headers = {"Content-Type": media_type} if media_type else {}
        status, answered, text = self._send(method, url, body, headers)
        if status == 401:
            self._authorization = self._authorize(answered.get("WWW-Authenticate", ""))
            status, answered, text = self._send(method, url, body, headers)
        if status not in good:
            raise Failure(self._rejection(method, url, status, text))
        return status, answered

    def _send(
        self, method: str, url: str, body: bytes | Path | None, headers: Mapping[str, str]
    ) -> tuple[int, Message, bytes]:
        headers = dict(headers)
        if self._authorization and urlsplit(url).netloc in ("", self.host):
            headers.setdefault("Authorization", self._authorization)
        attempt = 1
        while True:
            try:
                return self._send_once(method, url, body, headers)
            except ssl.SSLCertVerificationError as error:
                raise Failure(
                    f"The certificate of {self.host} is not trusted ({error.verify_message}): set its CA with --ca FILE"
                ) from error
            except ssl.SSLError as error:
                raise Failure(
                    f"{self.host} does not use TLS ({error.reason}): if that is intended, use --plain-http"
                ) from error
            except (OSError, http.client.HTTPException) as error:
                if attempt == ATTEMPTS:
                    raise Failure(
                        f"{self.host} cannot be reached: {error or type(error).__name__}. Check the address, "
                        "and that it is running"
                    ) from error
            time.sleep(attempt)
            attempt += 1

    def _send_once(
        self, method: str, url: str, body: bytes | Path | None, headers: Mapping[str, str]
    ) -> tuple[int, Message, bytes]:
        parts = urlsplit(urljoin(f"{'http' if self._options.plain_http else 'https'}://{self.host}", url))
        connection = self._connection(parts)
        try:
            target = f"{parts.path}?{parts.query}" if parts.query else parts.path
            if isinstance(body, Path):
                with body.open("rb") as file:
                    connection.request(method, target, file, {**headers, "Content-Length": str(body.stat().st_size)})
                    answer = connection.getresponse()
                    return answer.status, answer.headers, answer.read()
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def _connection(self, parts: SplitResult) -> http.client.HTTPConnection:
        if parts.scheme == "http":
            return http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_SECONDS)
        try:
            context = ssl.create_default_context(cafile=str(self._options.ca) if self._options.ca else None)
        except OSError as error:
            raise Failure(f"{self._options.ca} is not a readable CA bundle: {error}") from error
        return http.client.HTTPSConnection(parts.netloc, timeout=TIMEOUT_SECONDS, context=context)

    def _authorize(self, challenge: str) -> str:
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic":
            return self._basic()
        if scheme.lower() != "bearer":
            raise Failure(f'{self.host} asks for "{challenge}", and this speaks Basic and Bearer')
        requested = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        realm = requested.pop("realm", "")
        query = urlencode({key: requested[key] for key in ("service", "scope") if key in requested})
        who = {"Authorization": self._basic()} if self._options.username else {}
        status, _, text = self._send("GET", f"{realm}{'&' if '?' in realm else '?'}{query}", None, who)
        if status != 200:
            raise Failure(
                f"{realm} issues no token for {requested.get('scope', 'the registry')} ({status}): check "
                "--username and the password"
            )
        token = json.loads(text)
        return f"Bearer {token.get('token') or token['access_token']}"

    def _basic(self) -> str:
        options = self._options
        if not options.username:
            raise Failure(
                f"{self.host} requires authentication: set --username, and the password with "
                "--password-file or $VESTA_REGISTRY_PASSWORD"
            )
        if self._password is None:
            try:
                if options.password_file:
                    self._password = options.password_file.read_text().rstrip("\r\n")
                else:
                    self._password = os.environ.get("VESTA_REGISTRY_PASSWORD") or getpass.getpass(
                        f"Password of {options.username}: "
                    )
            except (OSError, EOFError) as error:
                raise Failure(f"The password cannot be read: {error}") from error
        return "Basic " + base64.b64encode(f"{options.username}:{self._password}".encode()).decode()

    def _rejection(self, method: str, url: str, status: int, text: bytes) -> str:
        try:
            reasons = "; ".join(
                f"{error.get('code', '')} {error.get('message', '')}".strip() for error in json.loads(text)["errors"]
            )
        except (ValueError, LookupError, TypeError, AttributeError):
            reasons = text.decode(errors="replace").strip()[:200]
        what = {
            401: "the user name or password is wrong, or the user has no write permission",
            403: "the user has no write permission",
            404: "the repository does not exist, or there is no registry at this address",
            413: "the registry, or a proxy in front of it, rejects files of this size",
            507: "the registry's disk is full",
        }.get(status, "see its log")
        return f"{self.host} rejected {method} {urlsplit(url).path} with {status} ({reasons}): {what}"


def copy_to_registry(options: argparse.Namespace) -> None:
    """Copies all missing images; shared layers are sent once."""
    registry = Registry(options)
    placed: dict[str, str] = {}  # digest -> the first repository with it
    for reference, entry in images():
        image, _, tag = reference.rpartition("/")[2].partition(":")
        manifest = json.loads(blob(entry["digest"]).read_text())
        name, sent = registry.name(image), 0
        for part in (*manifest["layers"], manifest["config"]):
            sent += place_blob(registry, name, part, placed)
            placed.setdefault(part["digest"], name)
        media_type = manifest.get("mediaType", entry["mediaType"])
        _, headers = registry.call("PUT", f"/v2/{name}/manifests/{quote(tag)}", blob(entry["digest"]), media_type)
        stored = headers.get("Docker-Content-Digest", entry["digest"])
        if stored != entry["digest"]:
            raise Failure(
                f"{registry.host} stored {name}:{tag} as {stored} instead of {entry['digest']}: the "
                "registry modifies images"
            )
        print(f"{registry.host}/{name}:{tag}  {sent / 1e6:.0f} MB sent", flush=True)


def place_blob(registry: Registry, name: str, part: Mapping[str, Any], placed: Mapping[str, str]) -> int:
    """Returns the number of bytes that were sent."""
    digest = part["digest"]
    status, _ = registry.call("HEAD", f"/v2/{name}/blobs/{digest}", good=(200, 302, 307, 404))
    if status != 404:  # some registries redirect to their storage
        return 0
    query = f"?mount={quote(digest)}&from={quote(placed[digest], safe='')}" if digest in placed else ""
    status, headers = registry.call("POST", f"/v2/{name}/blobs/uploads/{query}", b"", good=(201, 202))
    if status == 201:
        return 0
    location = headers["Location"]
    url = f"{location}{'&' if '?' in location else '?'}digest={quote(digest)}"
    registry.call("PUT", url, blob(digest), "application/octet-stream")
    return int(part["size"])
