"""Settings in files: `X_FILE` is the path of a file with the value of `X`, such as a mounted Kubernetes Secret."""

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic_settings import EnvSettingsSource

SUFFIX = "_file"
# Variables that Kubernetes sets for a Service: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_SERVICE_LINK = re.compile(
    r".*(_SERVICE_HOST|_SERVICE_PORT(_[A-Z0-9_]+)?|_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


class SettingsFileError(ValueError):
    """A settings file cannot be read, or the setting is given twice. The message has the variable."""


class SettingsFiles(EnvSettingsSource):
    """Settings source for variables that end in `_FILE`. A line break at the end of the file is removed."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        environment = super()._load_env_vars()
        values = {}
        for field in self.settings_cls.model_fields:
            name = f"{self.env_prefix}{field}".lower()
            path = environment.get(name + SUFFIX)
            if not path:
                continue
            variable = (name + SUFFIX).upper()
            if environment.get(name):
                raise SettingsFileError(f"{variable}: {name.upper()} is set too; set only one of them")
            try:
                values[name] = Path(path).read_text().rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsFileError(
                    f"{variable}: {path} cannot be read ({error}); mount the Secret there"
                ) from error
        return values


def is_service_link(name: str) -> bool:
    """Returns True if Kubernetes may set the variable for a Service, such as `…_SERVICE_HOST` or `…_PORT_9000_TCP_ADDR`."""
    return _SERVICE_LINK.fullmatch(name) is not None
