"""Settings of Kafka clients: brokers and authentication."""

import pkgutil
from pathlib import Path

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings

BROKERS = r"^([^\s,]+:[0-9]{1,5}(,[^\s,]+:[0-9]{1,5})*)?$"


class KafkaSettings(BaseSettings):
    """Kafka client settings, included in the settings of each service and of `vesta-admin`."""

    kafka_bootstrap: str = Field(
        "", pattern=BROKERS, description="HOST:PORT of a Kafka broker, or of several, separated by commas"
    )
    kafka_security_protocol: str = Field(
        "PLAINTEXT",
        pattern="^(PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)$",
        description="the security protocol of Kafka: PLAINTEXT, SSL (TLS), SASL_PLAINTEXT or SASL_SSL",
    )
    kafka_sasl_mechanism: str = Field(
        "SCRAM-SHA-512",
        pattern="^(PLAIN|SCRAM-SHA-256|SCRAM-SHA-512)$",
        description="the SASL mechanism of Kafka: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
    )
    kafka_sasl_username: str = Field("", validate_default=True, description="the Kafka user; required with SASL")
    kafka_sasl_password: SecretStr = Field(
        SecretStr(""), validate_default=True, description="the password of the Kafka user; required with SASL"
    )
    kafka_ca_file: str = Field(
        "", description="PEM file of the CAs that sign the certificates of Kafka; the CAs of the system if empty"
    )
    kafka_certificate_file: str = Field("", description="PEM file of the client certificate, if Kafka requires one")
    kafka_key_file: str = Field("", validate_default=True, description="PEM file of the key of the client certificate")
    kafka_idempotence: bool = Field(
        True,
        description="whether the brokers support idempotent producers; false for the embedded broker",
    )

    kafka_consumer_class: str = Field(
        "kafka:KafkaConsumer",
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="module:class of Kafka consumers; a class derived from kafka-python's adapts them to a broker that is not Apache Kafka",
    )

    @field_validator("kafka_consumer_class")
    @classmethod
    def _is_a_consumer_class(cls, name: str) -> str:
        try:
            resolved = pkgutil.resolve_name(name)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"it cannot be imported ({error}); remove it for Apache Kafka") from error
        if not hasattr(resolved, "poll"):
            raise ValueError("it is no class of consumers; remove it for Apache Kafka")
        return name

    @field_validator("kafka_sasl_username", "kafka_sasl_password")
    @classmethod
    def _is_given_with_sasl(cls, value: str | SecretStr, info: ValidationInfo) -> str | SecretStr:
        protocol = str(info.data.get("kafka_security_protocol", ""))
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if protocol.startswith("SASL") and not text:
            raise ValueError(f"required with {protocol}")
        return value

    @field_validator("kafka_ca_file", "kafka_certificate_file", "kafka_key_file")
    @classmethod
    def _is_a_file(cls, path: str) -> str:
        if path and not Path(path).is_file():
            raise ValueError(f"{path} is not a file")
        return path

    @field_validator("kafka_key_file")
    @classmethod
    def _goes_with_a_certificate(cls, path: str, info: ValidationInfo) -> str:
        if bool(path) != bool(info.data.get("kafka_certificate_file")) and "kafka_certificate_file" in info.data:
            raise ValueError("set both the certificate and its key, or neither")
        return path
