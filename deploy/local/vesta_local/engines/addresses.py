"""How clients reach the engines: the settings with which `vesta-admin` prepares them."""

from pydantic import SecretStr
from vesta_admin.settings import Settings

from vesta_local.engines import objects, postgres
from vesta_local.home import Home


def admin_settings(home: Home) -> Settings:
    """The engines of a home."""
    return Settings(
        postgres_url=postgres.url(home),
        s3_endpoint_url=objects.endpoint(home),
        s3_access_key=home.secrets["s3_access_key"],
        s3_secret_key=SecretStr(home.secrets["s3_secret_key"]),
        s3_bucket=objects.BUCKET,
        kafka_bootstrap=home.address("events"),
    )
