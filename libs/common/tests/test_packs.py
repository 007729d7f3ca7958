"""Several contents are stored in one object, and each is read alone."""

from collections.abc import Iterator
from typing import Any

import pytest
from vesta_common.errors import NotFound
from vesta_common.settings import ServiceSettings
from vesta_common.storage.objects import ObjectStore
from vesta_common.storage.packs import get_packed, put_pack


@pytest.fixture
def store(objects_settings: dict[str, Any]) -> Iterator[ObjectStore]:
    store = ObjectStore.of(ServiceSettings(postgres_url="postgresql://unused", **objects_settings))
    store.ensure_bucket()
    yield store
    store.close()


def test_each_content_of_a_pack_is_read_alone(store: ObjectStore) -> None:
    contents = [b"one", b"a longer second one", b"3"]
    keys = put_pack(store, "thumbnails", contents)
    assert [get_packed(store, key) for key in keys] == contents
    assert len(list(store.list_keys("thumbnails/"))) == 1
    assert put_pack(store, "thumbnails", contents) == keys


def test_nothing_is_stored_without_contents(store: ObjectStore) -> None:
    assert put_pack(store, "thumbnails", []) == []
    assert list(store.list_keys("thumbnails/")) == []


def test_a_key_without_a_range_is_a_whole_object(store: ObjectStore) -> None:
    store.put_named("thumbnails/of-the-previous-version", b"a small picture")
    assert get_packed(store, "thumbnails/of-the-previous-version") == b"a small picture"
    with pytest.raises(NotFound):
        get_packed(store, "thumbnails/lost:0+3")
