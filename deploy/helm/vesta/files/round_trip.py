"""The program of `helm test`: creates a project, uploads an image through the gateway, lists it, and deletes the project."""

import json
import os
import secrets
import ssl
import struct
import sys
import urllib.error
import urllib.request
import zlib
from pathlib import Path

SIDE = 64
TIMEOUT_SECONDS = 60


def png():
    """Returns a unique grey image of noise."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + secrets.token_bytes(SIDE) for _ in range(SIDE))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def call(method, path, body=None, kind="application/json"):
    """Sends a request to the gateway as the platform's owner, and returns the response.

    Raises:
        SystemExit: the request failed, or the gateway cannot be reached; has the cause.
    """
    headers = {
        "Authorization": f"Bearer {Path(os.environ['OWNER_KEY_FILE']).read_text().strip()}",
        "Content-Type": kind,
    }
    content = json.dumps(body).encode() if isinstance(body, dict) else body
    request = urllib.request.Request(os.environ["GATEWAY"] + path, content, headers, method=method)
    trust = ssl._create_unverified_context()  # the certificate of the gateway is for its external name
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=trust) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        sys.exit(f"{method} {path}: {error.code} {error.read().decode(errors='replace')}")
    except OSError as error:
        sys.exit(f"{method} {path}: {error}; is the gateway ready?")


def main():
    """Prints each step; always deletes the project."""
    word = f"helm-test-{secrets.token_hex(4)}"
    project = f"projects/{word}"
    call("POST", f"/v1/projects?project_id={word}", {"displayName": "helm test"})
    print(f"created {project}")
    try:
        call("POST", f"/v1/{project}/taxonomies?taxonomy_id=things", {"concepts": [{"id": "thing"}]})
        call("POST", f"/v1/{project}/datasets?dataset_id=noise", {"taxonomy": f"{project}/taxonomies/things"})
        call("POST", f"/v1/{project}/sources?source_id=desk", {"dataset": f"{project}/datasets/noise", "upload": {}})
        call("POST", f"/v1/{project}/sources/desk:upload?file_name=noise.png", png(), "image/png")
        print("uploaded an image")
        items = call("GET", f"/v1/{project}/datasets/noise/items").get("items", [])
        if len(items) != 1:
            sys.exit(f"{len(items)} images are listed where one was uploaded")
        print(f"listed {items[0]['name']}")
    finally:
        call("DELETE", f"/v1/{project}?force=true")
        print(f"deleted {project}")


if __name__ == "__main__":
    main()
