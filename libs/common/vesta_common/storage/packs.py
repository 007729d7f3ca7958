"""Packs: several small contents in one object, because a request per content costs more than its bytes.

The key of a content is the key of its object with a range: `thumbnails/<sha256 of the object>:<offset>+<size>`, in bytes.
"""

import re
from collections.abc import Sequence
from itertools import accumulate

from vesta_common.storage.objects import ObjectStore

_RANGE = re.compile(r"(?P<object>.+):(?P<offset>\d{1,12})\+(?P<size>\d{1,12})")


def put_pack(objects: ObjectStore, folder: str, contents: Sequence[bytes]) -> list[str]:
    """Stores contents in one object, named by its hash, and returns the key of each. Stores nothing if there are none."""
    if not contents:
        return []
    key = objects.put(folder, b"".join(contents)).key
    offsets = accumulate((len(content) for content in contents), initial=0)
    return [f"{key}:{offset}+{len(content)}" for offset, content in zip(offsets, contents, strict=False)]


def get_packed(objects: ObjectStore, key: str) -> bytes:
    """Returns a content of a pack; the whole object if the key has no range. Not verified against a hash.

    Raises:
        NotFound: the object does not exist.
    """
    packed = _RANGE.fullmatch(key)
    if packed is None:
        return objects.get(key, checked=False)
    return objects.get_range(packed["object"], int(packed["offset"]), int(packed["size"]))
