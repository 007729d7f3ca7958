"""Encryption of the secrets of sources, with key rotation; a secret that cannot be decrypted affects its own source only."""

import pytest
from connection_builders import DATASET, PROJECT, VAULT, Connection, counts
from cryptography.fernet import Fernet
from google.protobuf.field_mask_pb2 import FieldMask
from vesta_common.errors import FailedPrecondition
from vesta_common.settings import load_settings
from vesta_common.storage.objects import ObjectStore
from vesta_connection.app import encrypt_secrets
from vesta_connection.key_rotation import rotate_keys
from vesta_connection.settings import Settings
from vesta_connection.store import Store
from vesta_connection.vault import KEYS_SETTING, Vault
from vesta_contracts.connection.v1 import (
    BucketSource,
    GetSourceRequest,
    ListSourcesRequest,
    Source,
    Sync,
    UpdateSourceRequest,
)

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))
SECRET = "hush-4711"


def a_bucket(connection: Connection, name: str = "bucket", secret: str = SECRET) -> Source:
    endpoint = f"http://{connection.allow_list.inner_hosts[0]}"
    key = "key" if secret else ""
    bucket = BucketSource(url="s3://photos", endpoint_url=endpoint, access_key_id=key, secret_access_key=secret)
    return connection.a_bucket_source(bucket, name)


def stored(connection: Connection) -> str:
    """Returns all rows of sources, as text."""
    with connection.postgres.transaction() as transaction:
        return str(transaction.execute("SELECT *, encode(body, 'escape') AS shown FROM sources").fetchall())


def make_plain(connection: Connection, source: Source, secret: str = SECRET) -> None:
    """Stores a secret without encryption, like an older version."""
    with connection.postgres.transaction() as transaction:
        transaction.execute(
            "UPDATE sources SET secret = %s, secret_key_id = '', secret_token = '' WHERE name = %s",
            (secret, source.name),
        )


def store_with(connection: Connection, *keys: str) -> Store:
    return Store(connection.postgres, connection.clock, Vault(keys))


def updated(connection: Connection, source: Source, secret: str) -> Source:
    return connection.sources.UpdateSource(
        UpdateSourceRequest(
            source=Source(name=source.name, bucket=BucketSource(secret_access_key=secret)),
            update_mask=FieldMask(paths=["bucket.secret_access_key"]),
        )
    )


def test_secrets_are_not_stored_in_plain_text(connection: Connection) -> None:
    source = a_bucket(connection)
    assert SECRET not in stored(connection)
    updated(connection, source, f"{SECRET}-2")
    assert SECRET not in stored(connection)
    assert connection.store.get_source_with_secret(source.name)[1] == f"{SECRET}-2"


def test_plain_secrets_of_older_versions_work_and_are_encrypted_at_the_start(connection: Connection) -> None:
    source = a_bucket(connection)
    make_plain(connection, source)
    before = connection.sources.GetSource(GetSourceRequest(name=source.name))
    assert connection.store.get_source_with_secret(source.name)[1] == SECRET

    assert rotate_keys(connection.store) == {"encrypted": 1}
    assert SECRET not in stored(connection)
    assert connection.store.get_source_with_secret(source.name)[1] == SECRET
    assert connection.sources.GetSource(GetSourceRequest(name=source.name)) == before
    assert rotate_keys(connection.store) == {}


def test_a_plain_secret_survives_an_update_of_something_else(connection: Connection) -> None:
    source = a_bucket(connection)
    make_plain(connection, source)
    connection.sources.UpdateSource(
        UpdateSourceRequest(
            source=Source(name=source.name, display_name="Dock"), update_mask=FieldMask(paths=["display_name"])
        )
    )
    assert connection.store.get_source_with_secret(source.name)[1] == SECRET


def test_keys_are_rotated_while_replicas_with_either_order_read_every_secret(connection: Connection) -> None:
    """The steps in docs/operating.md: add the new key last, move it to the front, encrypt again, remove the old key."""
    source = a_bucket(connection, secret="")
    only_old, both, both_turned = (store_with(connection, *keys) for keys in ([OLD], [OLD, NEW], [NEW, OLD]))
    make_plain(connection, source)
    assert rotate_keys(only_old)["encrypted"] == 1
    assert both.get_source_with_secret(source.name)[1] == both_turned.get_source_with_secret(source.name)[1] == SECRET

    assert rotate_keys(both_turned) == {"encrypted": 1}
    for store in (both, both_turned, store_with(connection, NEW)):
        assert store.get_source_with_secret(source.name)[1] == SECRET
    with pytest.raises(FailedPrecondition):
        only_old.get_source_with_secret(source.name)


def test_a_secret_with_a_missing_key_fails_its_own_syncs_and_can_be_set_again(
    connection: Connection, settings: Settings
) -> None:
    lost, fine = a_bucket(connection, "lost"), a_bucket(connection, "fine")
    make_plain(connection, lost)
    with connection.postgres.transaction() as transaction:
        transaction.execute("UPDATE sources SET secret = '' WHERE name = %s", (fine.name,))
    assert rotate_keys(store_with(connection, OLD))["encrypted"] == 1  # by a service with another key
    ObjectStore.of(settings).put_named("photos/a.jpg", b"")

    sync = connection.synced(lost)
    assert (sync.state, KEYS_SETTING in sync.error) == (Sync.FAILED, True)
    with pytest.raises(FailedPrecondition) as unreadable:
        connection.store.get_source_with_secret(lost.name)
    assert unreadable.value.reason == "SECRET_UNREADABLE"
    connection.write(1)
    assert counts(connection.synced(connection.a_folder_source())) == {"found": 1, "added": 1}
    assert connection.store.get_source_with_secret(fine.name)[1] == SECRET
    assert len(connection.sources.ListSources(ListSourcesRequest(parent=PROJECT)).sources) == 3

    updated(connection, lost, "again")
    assert connection.store.get_source_with_secret(lost.name)[1] == "again"


def test_a_secret_that_was_changed_in_the_database_is_rejected(connection: Connection) -> None:
    source = a_bucket(connection)
    with connection.postgres.transaction() as transaction:
        transaction.execute("UPDATE sources SET secret_token = reverse(secret_token)")
    with pytest.raises(FailedPrecondition) as caught:
        connection.store.get_source_with_secret(source.name)
    assert caught.value.reason == "SECRET_UNREADABLE"


def test_without_a_key_sources_with_secrets_are_rejected(connection: Connection) -> None:
    keyless = store_with(connection)
    source = Source(name=f"{PROJECT}/sources/keyless", dataset=DATASET, bucket=BucketSource(url="s3://photos"))
    with connection.postgres.transaction() as transaction:
        keyless.insert_source(transaction, source, "")
    with pytest.raises(FailedPrecondition) as caught, connection.postgres.transaction() as transaction:
        keyless.insert_source(transaction, source, SECRET)
    assert (caught.value.reason, KEYS_SETTING in caught.value.message) == ("SECRET_KEYS_MISSING", True)


def test_the_rotation_command_reports_its_result_and_fails_if_a_secret_cannot_be_read(
    connection: Connection, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    make_plain(connection, a_bucket(connection, "a"))
    a_bucket(connection, "b")  # encrypted with the key of these tests, which the command does not have
    with_key = settings.model_copy(update={"secret_keys": type(settings.secret_keys)(f"{NEW}, {OLD}")})
    assert encrypt_secrets(with_key) == 1
    printed = capsys.readouterr().out
    assert "1 secrets encrypted with the first key, 1 failed" in printed
    assert NEW not in printed
    assert OLD not in printed


@pytest.mark.parametrize(
    "keys", ["short", f"{NEW},{OLD[:-4]}", "ü" * 44], ids=["short", "second too short", "no ASCII"]
)
def test_an_invalid_key_is_reported_by_its_setting_and_not_printed(
    keys: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    monkeypatch.setenv(KEYS_SETTING, keys)
    monkeypatch.setenv("VESTA_CONNECTION_POSTGRES_URL", settings.postgres_url)
    monkeypatch.setenv("VESTA_CONNECTION_DATASETS_ADDRESS", "127.0.0.1:1")
    with pytest.raises(SystemExit):
        load_settings(Settings)
    told = capsys.readouterr().err
    assert f"{KEYS_SETTING}: Value error, key {keys.count(',') + 1} is not" in told
    assert keys not in told
    assert VAULT.first_key_id not in told
