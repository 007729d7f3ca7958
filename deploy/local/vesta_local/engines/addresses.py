"""Connection settings of the engines of a home. Only this module distinguishes the home's own engines from external ones."""

from pydantic import SecretStr
from vesta_common.events.broker import Broker
from vesta_common.settings import EngineSettings

from vesta_local.engines import events, external_engines, objects, postgres
from vesta_local.home import Home
from vesta_local.settings import EVENTS, INFERENCE, OBJECTS, POSTGRES, Settings

EMBEDDED_CONSUMER = "vesta_local.embedded_consumer:EmbeddedBrokerConsumer"


def admin_settings(home: Home) -> Settings:
    """Returns the engine settings of a home for `vesta-admin` and the services."""
    given = external_engines.of(home)
    own: dict[str, object] = {}
    if POSTGRES not in given.external:
        own["postgres_url"] = postgres.url(home)
    if OBJECTS not in given.external:
        own |= {
            "s3_endpoint_url": objects.endpoint(home),
            "s3_access_key": home.secrets["s3_access_key"],
            "s3_secret_key": SecretStr(home.secrets["s3_secret_key"]),
            "s3_bucket": objects.BUCKET,
            "storage_path": str(home.data),
        }
    if EVENTS not in given.external:
        own["kafka_bootstrap"] = home.address(EVENTS)
        if not events.is_apache(home):
            own |= {"kafka_idempotence": False, "kafka_consumer_class": EMBEDDED_CONSUMER}
    if INFERENCE not in given.external:
        own["triton_address"] = home.addresses(INFERENCE)
    return given.model_copy(update=own)


def broker(home: Home) -> Broker:
    """Returns the connection to Kafka."""
    return Broker.of(admin_settings(home))


def service_settings(home: Home) -> dict[str, str]:
    """Returns the engine settings of every service that differ from the default, by setting."""
    settings = admin_settings(home)
    fields = {name: (getattr(settings, name), field.default) for name, field in EngineSettings.model_fields.items()}
    return {
        name.upper(): str(external_engines.plain(value))
        for name, (value, default) in fields.items()
        if value != default
    }
