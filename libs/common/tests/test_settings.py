"""Settings come from the environment once; what is wrong is told by its variable's name, and no secret shows."""

import re
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import Field, ValidationError
from pydantic_settings import SettingsConfigDict
from vesta_common.events.broker import Broker
from vesta_common.settings import EXIT_WRONG_SETTINGS, ServiceSettings, describe, load_settings
from vesta_common.storage.postgres import address_of

URL = "postgresql://vesta:hunter2@127.0.0.1:5433/vesta"


class Settings(ServiceSettings):
    """A service's own."""

    model_config = SettingsConfigDict(env_prefix="VESTA_SAMPLE_", frozen=True, extra="forbid")

    datasets_address: str = Field("", description="HOST:PORT of the datasets service")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("VESTA_SAMPLE_POSTGRES_URL", URL)
    return monkeypatch


def test_settings_are_read_from_the_environment(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("VESTA_SAMPLE_DATASETS_ADDRESS", "127.0.0.1:7002")
    found = load_settings(Settings)
    assert (found.postgres_url, found.datasets_address) == (URL, "127.0.0.1:7002")


@pytest.mark.usefixtures("environment")
def test_settings_cannot_change() -> None:
    with pytest.raises(ValidationError):
        load_settings(Settings).log_level = "debug"  # type: ignore[misc]


def test_secrets_do_not_show(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("VESTA_SAMPLE_S3_SECRET_KEY", "swordfish")
    shown = repr(load_settings(Settings))
    assert "hunter2" not in shown
    assert "swordfish" not in shown


def test_every_wrong_setting_is_named_with_what_would_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("VESTA_SAMPLE_POSTGRES_URL", raising=False)
    monkeypatch.setenv("VESTA_SAMPLE_LOG_LEVEL", "loud")
    with pytest.raises(SystemExit) as left:
        load_settings(Settings)
    told = capsys.readouterr().err.splitlines()
    assert left.value.code == EXIT_WRONG_SETTINGS
    assert [line.partition(":")[0] for line in told] == ["VESTA_SAMPLE_POSTGRES_URL", "VESTA_SAMPLE_LOG_LEVEL"]
    assert "debug, info, warning or error" in told[1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LISTEN_ADDRESS", "nonsense"),
        ("METRICS_ADDRESS", "x:y"),
        ("POSTGRES_URL", "nonsense"),
        ("POSTGRES_SCHEMA", "My-Schema"),
        ("POSTGRES_SCHEMA", "x" * 57),
        ("S3_ENDPOINT_URL", "nonsense"),
        ("S3_PREFIX", "noslash"),
        ("KAFKA_BOOTSTRAP", "nonsense"),
        ("KAFKA_BOOTSTRAP", "one:9092,nonsense"),
        ("KAFKA_SECURITY_PROTOCOL", "TLS"),
        ("KAFKA_SASL_MECHANISM", "GSSAPI"),
        ("KAFKA_CA_FILE", "/nowhere/ca.pem"),
        ("KAFKA_KEY_FILE", __file__),
        ("KAFKA_TOPIC_PREFIX", "a b/c"),
        ("KAFKA_CONSUMER_CLASS", "nowhere:Consumer"),
        ("KAFKA_CONSUMER_CLASS", "json:JSONDecoder"),
        ("LISTN_ADDRESS", "127.0.0.1:0"),
    ],
)
def test_a_setting_that_cannot_be_is_named(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    environment.setenv(f"VESTA_SAMPLE_{name}", value)
    with pytest.raises(SystemExit):
        load_settings(Settings)
    assert capsys.readouterr().err.startswith(f"VESTA_SAMPLE_{name}: ")


def test_a_password_that_kafka_wants_is_asked_for_at_start(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("VESTA_SAMPLE_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    environment.setenv("VESTA_SAMPLE_KAFKA_SASL_USERNAME", "vesta")
    with pytest.raises(SystemExit):
        load_settings(Settings)
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("VESTA_SAMPLE_KAFKA_SASL_PASSWORD: ")
    assert "required with SASL_SSL" in told


def test_the_password_of_kafka_does_not_show(environment: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SECURITY_PROTOCOL": "SASL_SSL",
        "SASL_USERNAME": "vesta",
        "SASL_PASSWORD": "swordfish",
    }.items():
        environment.setenv(f"VESTA_SAMPLE_KAFKA_{name}", value)
    found = load_settings(Settings)
    assert Broker.of(found).access["sasl_plain_password"] == "swordfish"
    assert "swordfish" not in repr(found) + repr(Broker.of(found))


def test_several_brokers_may_be_named(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("VESTA_SAMPLE_KAFKA_BOOTSTRAP", "one:9092,two:9093")
    assert Broker.of(load_settings(Settings)).access["bootstrap_servers"] == ["one:9092", "two:9093"]


def test_a_cluster_may_set_variables_of_its_own(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("VESTA_SAMPLE_SERVICE_HOST", "10.0.0.1")
    environment.setenv("VESTA_SAMPLE_PORT", "tcp://10.0.0.1:7000")
    load_settings(Settings)


def test_every_setting_is_described() -> None:
    rows = {name: (kind, default, what) for name, kind, default, what in describe(Settings)}
    assert rows["VESTA_SAMPLE_POSTGRES_URL"][1] == "required"
    assert rows["VESTA_SAMPLE_DATASETS_ADDRESS"] == ("str", "", "HOST:PORT of the datasets service")
    assert all(what for _, _, what in rows.values())


def test_any_setting_may_be_given_as_a_file(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, text in (
        ("S3_SECRET_KEY", "swordfish\n"),
        ("POSTGRES_CONNECTIONS_MAX", "5"),
        ("POSTGRES_PASSWORD", "pass word"),
    ):
        (tmp_path / name).write_text(text)
        environment.setenv(f"VESTA_SAMPLE_{name}_FILE", str(tmp_path / name))
    found = load_settings(Settings)
    assert found.s3_secret_key.get_secret_value() == "swordfish"
    assert found.postgres_connections_max == 5
    assert conninfo_to_dict(address_of(found))["password"] == "pass word"
    assert conninfo_to_dict(address_of(found))["user"] == "vesta"


@pytest.mark.parametrize(
    ("twice", "words"), [(False, "cannot be read.*mount the Secret"), (True, "VESTA_SAMPLE_S3_ACCESS_KEY is set too")]
)
def test_a_file_that_cannot_be_the_setting_is_named(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, twice: bool, words: str
) -> None:
    environment.setenv("VESTA_SAMPLE_S3_ACCESS_KEY_FILE", str(tmp_path / "missing"))
    if twice:
        environment.setenv("VESTA_SAMPLE_S3_ACCESS_KEY", "key")
    with pytest.raises(SystemExit) as left:
        load_settings(Settings)
    assert left.value.code == EXIT_WRONG_SETTINGS
    assert re.match(f"VESTA_SAMPLE_S3_ACCESS_KEY_FILE: .*{words}", capsys.readouterr().err)


@pytest.mark.parametrize(
    "name",
    [
        "METRICS_PORT",
        "POSTGRES_PORT",
        "METRICS_SERVICE_HOST",
        "METRICS_SERVICE_PORT_HTTP",
        "METRICS_PORT_9000_TCP",
        "METRICS_PORT_9000_TCP_ADDR",
    ],
)
def test_the_variables_of_a_service_of_kubernetes_are_not_misspelt_settings(
    environment: pytest.MonkeyPatch, name: str
) -> None:
    environment.setenv(f"VESTA_SAMPLE_{name}", "tcp://10.0.0.1:7000")
    load_settings(Settings)
