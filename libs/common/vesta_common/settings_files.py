"""Settings in files: `X_FILE` names a file that holds the value of `X`, as Secrets of Kubernetes are mounted."""

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic_settings import EnvSettingsSource

SUFFIX = "_file"
# What Kubernetes sets for a Service: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_SERVICE_LINK = re.compile(
    r".*(_SERVICE_HOST|_SERVICE_PORT(_[A-Z0-9_]+)?|_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


class SettingsFileError(ValueError):
    """A file that holds a setting cannot be read, or the setting is given twice; the message names the variable."""


class SettingsFiles(EnvSettingsSource):
    """The source of settings whose variable ends in `_FILE`. A line break at the end of the file is no part of the value."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        environment = super()._load_env_vars()
        found = {}
        for field in self.settings_cls.model_fields:
            name = f"{self.env_prefix}{field}".lower()
            path = environment.get(name + SUFFIX)
            if not path:
                continue
            variable = (name + SUFFIX).upper()
            if environment.get(name):
                raise SettingsFileError(f"{variable}: {name.upper()} is set too; set one of them")
            try:
                found[name] = Path(path).read_text().rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsFileError(
                    f"{variable}: {path} cannot be read ({error}); mount the Secret there"
                ) from error
        return found


def is_service_link(name: str) -> bool:
    """Whether a variable may be one that Kubernetes sets for a Service, such as `…_SERVICE_HOST` or `…_PORT_9000_TCP_ADDR`."""
    return _SERVICE_LINK.fullmatch(name) is not None
